//! How far simulated caps and locks lie from measured ones.

use super::sheet::Sheet;
use crate::meter::caps::{CapAnswer, CapSeries, Control};

/// How well the answers of one device do.
#[derive(Clone, Debug, Default)]
struct Line {
    name: String,
    rows: f64,
    /// Sums of errors without and with sign, of speed and of energy, in percent.
    off: [f64; 2],
    bias: [f64; 2],
    /// Changes of energy of more than [`CHANGE`], and those whose sign is right.
    changes: usize,
    right: usize,
    /// Sum over workloads of how far the draw without limits is off, and workloads.
    draw: f64,
    workloads: f64,
}

/// A change of energy below this share has no sign.
const CHANGE: f64 = 0.02;

/// Errors of caps and locks, as the last line has them: in percent, mean over devices; and how many signs of how many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CapErrors {
    /// Of the speed.
    pub speed: f64,
    /// Of the energy of a unit of work.
    pub energy: f64,
    /// Changes of energy by more than 2 %.
    pub changes: usize,
    /// Of them, those with the right sign.
    pub right: usize,
}

/// A workload, its answers, and what it draws without limits by the profile's constants over what it drew.
pub type Answered<'a> = (&'a CapSeries, &'a [CapAnswer], f64);

impl Line {
    fn add(&mut self, answers: &[CapAnswer], draw: f64) {
        for answer in answers {
            self.rows += 1.0;
            for (of, [was, said]) in [answer.speed, answer.energy].into_iter().enumerate() {
                let error = 100.0 * (said / was - 1.0);
                self.off[of] += error.abs();
                self.bias[of] += error;
            }
            let [was, said] = answer.energy;
            if (was - 1.0).abs() > CHANGE {
                self.changes += 1;
                self.right += usize::from((was > 1.0) == (said > 1.0));
            }
        }
        self.draw += 100.0 * (draw - 1.0).abs();
        self.workloads += 1.0;
    }
}

fn lines(all: &[Answered]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (series, answers, draw) in all.iter().filter(|(_, answers, _)| !answers.is_empty()) {
        match lines.iter_mut().find(|line| line.name == series.device) {
            Some(line) => line.add(answers, *draw),
            None => {
                let mut line = Line { name: series.device.clone(), ..Line::default() };
                line.add(answers, *draw);
                lines.push(line);
            }
        }
    }
    lines
}

/// The errors of all; none without answers.
pub fn cap_errors(all: &[Answered]) -> Option<CapErrors> {
    let lines = lines(all);
    let mean = |of: fn(&Line) -> f64| lines.iter().map(of).sum::<f64>() / lines.len() as f64;
    let sum = |of: fn(&Line) -> usize| lines.iter().map(of).sum();
    (!lines.is_empty()).then(|| CapErrors {
        speed: mean(|line| line.off[0] / line.rows),
        energy: mean(|line| line.off[1] / line.rows),
        changes: sum(|line| line.changes),
        right: sum(|line| line.right),
    })
}

/// A table with a row for each device, and one for the mean over them.
pub fn caps(all: &[Answered]) -> String {
    let lines = lines(all);
    let devices = lines.len().max(1) as f64;
    let column = |of: &dyn Fn(&Line) -> f64| -> Vec<String> {
        let values: Vec<f64> = lines.iter().map(of).collect();
        let mean = values.iter().sum::<f64>() / devices;
        values.iter().chain([&mean]).map(|value| format!("{value:.1}")).collect()
    };
    let counted = |of: &dyn Fn(&Line) -> usize| -> Vec<String> {
        let values: Vec<usize> = lines.iter().map(of).collect();
        values.iter().chain([&values.iter().sum()]).map(usize::to_string).collect()
    };
    Sheet::new()
        .words("device", lines.iter().map(|line| line.name.as_str()).chain(["all: mean over devices"]))
        .numbers("rows", counted(&|line| line.rows as usize))
        .numbers("speed\n%", column(&|line| line.off[0] / line.rows))
        .numbers("bias\n%", column(&|line| line.bias[0] / line.rows))
        .numbers("J / unit\n%", column(&|line| line.off[1] / line.rows))
        .numbers("bias\n%", column(&|line| line.bias[1] / line.rows))
        .numbers("sign\nright", counted(&|line| line.right))
        .numbers("of", counted(&|line| line.changes))
        .numbers("draw\n%", column(&|line| line.draw / line.workloads))
        .render()
}

/// Every row: what was set, and speed and energy over those of the row that draws most.
pub fn cap_points(all: &[Answered]) -> String {
    let rows: Vec<(&CapSeries, &CapAnswer)> =
        all.iter().flat_map(|(series, answers, _)| answers.iter().map(|answer| (*series, answer))).collect();
    let column = |of: &dyn Fn(&CapAnswer) -> String| -> Vec<String> {
        rows.iter().map(|(_, answer)| of(answer)).collect()
    };
    let number = |value: f64| format!("{value:.3}");
    let error = |[was, said]: [f64; 2]| format!("{:.1}", 100.0 * (said / was - 1.0));
    let set = |answer: &CapAnswer| match answer.point.control {
        Control::Cap(watts) => format!("{watts} W"),
        Control::Lock(mhz, _) => format!("{mhz} MHz"),
    };
    let sign = |answer: &CapAnswer| match answer.energy {
        [was, _] if (was - 1.0).abs() <= CHANGE => "",
        [was, said] if (was > 1.0) == (said > 1.0) => "right",
        _ => "wrong",
    };
    Sheet::new()
        .numbers("line", column(&|answer| answer.point.line.to_string()))
        .words("device", rows.iter().map(|(series, _)| series.device.as_str()))
        .words("workload", rows.iter().map(|(series, _)| series.workload.as_str()))
        .numbers("set", column(&set))
        .numbers("speed\nmeasured", column(&|answer| number(answer.speed[0])))
        .numbers("simulated", column(&|answer| number(answer.speed[1])))
        .numbers("error\n%", column(&|answer| error(answer.speed)))
        .numbers("J / unit\nmeasured", column(&|answer| number(answer.energy[0])))
        .numbers("simulated", column(&|answer| number(answer.energy[1])))
        .numbers("error\n%", column(&|answer| error(answer.energy)))
        .words("sign", column(&|answer| sign(answer).to_owned()))
        .render()
}
