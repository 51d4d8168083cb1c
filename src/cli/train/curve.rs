//! The course of a training: a row for each step as CSV, lines as SVG, and what is said while it runs.

use super::say_unless;
use radialsim::error::{InputError, Result};
use radialsim::plot::{Body, Chart, ChartAxis, Ink, Line, Lines, Panel, Point};
use radialsim::report::Staged;
use radialsim::train::TrainStep;
use std::path::PathBuf;
use std::time::Instant;

/// Rows and lines, and the files that they go to.
pub struct Curve {
    rows: Vec<String>,
    lines: Vec<Line>,
    files: Vec<(Staged, bool)>,
}

impl Curve {
    /// For these files, `.csv` or `.svg`, which are refused before anything is computed.
    pub fn open(paths: &[PathBuf], header: &str) -> Result<Curve> {
        let mut files = Vec::new();
        for path in paths {
            let picture = match path.extension().and_then(|ending| ending.to_str()) {
                Some("svg") => true,
                Some("csv") => false,
                _ => {
                    let what = "files that end in .csv or .svg";
                    return Err(InputError::expected(what).key("--curve").found(path.display()).into());
                }
            };
            files.push((Staged::create(path)?, picture));
        }
        Ok(Curve { rows: vec![header.to_owned()], lines: Vec::new(), files })
    }

    /// A step: its row, and values of lines by their names.
    pub fn push(&mut self, row: String, step: u32, values: &[(&str, f64)]) {
        self.rows.push(row);
        for &(name, y) in values {
            let point = Point { x: f64::from(step), y, low: y, high: y, unsure: false };
            match self.lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push(point),
                None => self.lines.push(Line { name: name.to_owned(), points: vec![point] }),
            }
        }
    }

    /// Writes the files.
    pub fn finish(self, title: &str) -> Result<()> {
        let axis = |label: &str| ChartAxis { label: label.into(), log: false };
        let panels = vec![Panel { lines: self.lines, ..Panel::default() }];
        let body = Lines { x: axis("step"), y: axis("nats"), panels, steps: false };
        let summary = "What was minimised, and what was measured, step by step.".to_owned();
        let chart = Chart { title: title.into(), summary, body: Body::Lines(body) };
        for (file, picture) in self.files {
            let text = if picture { chart.svg(Ink::Paper) } else { self.rows.join("\n") + "\n" };
            file.finish(|out| out.write_all(text.as_bytes()))?;
        }
        Ok(())
    }
}

/// The course of a router's training for a frozen model.
pub struct Course {
    began: [Option<(u32, Instant)>; 2],
    curve: Curve,
    quiet: bool,
}

impl Course {
    /// For these files.
    pub fn open(paths: &[PathBuf], quiet: bool) -> Result<Course> {
        let curve = Curve::open(paths, "stage,step,loss,kl,depth,price")?;
        Ok(Course { began: [None; 2], curve, quiet })
    }

    /// A step was done.
    pub fn hear(&mut self, step: &TrainStep) {
        let TrainStep { stage, step, of, loss, kl, depth, price } = *step;
        let (first, since) = *self.began[stage as usize - 1].get_or_insert((step, Instant::now()));
        let values: &[(&str, f64)] = if stage == 2 { &[("loss", loss), ("divergence", kl)] } else { &[] };
        self.curve.push(format!("{stage},{step},{loss},{kl},{depth},{price}"), step, values);
        if stage == 2 || (step + 1) % 100 == 0 {
            // One step tells nothing of the time between two.
            let left = (step > first).then(|| {
                let each = since.elapsed().as_secs_f64() / f64::from(step - first);
                format!("; {:.0} s left", each * f64::from(of - step - 1))
            });
            let at = format!("stage {stage}, step {} of {of}", step + 1);
            let said = format!("loss {loss:.4}, KL {kl:.4}, depth {depth:.2}, price {price:.3}");
            say_unless(self.quiet, &format!("{at}: {said}{}", left.unwrap_or_default()));
        }
    }

    /// Writes the files.
    pub fn finish(self) -> Result<()> {
        self.curve.finish("A router's training")
    }
}
