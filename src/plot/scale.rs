//! Axes as numbers: the range of the data, round ticks, and the pixel of a value.

use super::text::shown;

/// Whether a value can be drawn. Larger ones would overflow on the way to a pixel; on a log axis 0 and below have none.
pub(super) fn usable(value: f64, log: bool) -> bool {
    value.abs() < 1e300 && (!log || value >= 1e-300)
}

/// A range of values, in decades if `log`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub low: f64,
    pub high: f64,
    pub log: bool,
}

impl Span {
    /// The range of the usable values, never empty: one value gets room on both sides, none gives a made-up range.
    pub fn of(values: impl IntoIterator<Item = f64>, log: bool) -> Span {
        let inner = |value: f64| if log { value.log10() } else { value };
        let values = values.into_iter().filter(|value| usable(*value, log)).map(inner);
        let (mut low, mut high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let least = if log { 0.1 } else { (low.abs().max(high.abs()) * 1e-9).max(1e-290) };
        if high - low < least {
            let room = if log {
                0.3
            } else if low == 0.0 {
                1.0
            } else {
                low.abs() * 0.5
            };
            (low, high) = (low - room, high + room);
        }
        Span { low, high, log }
    }

    /// With 0, if all values lie beyond it and the nearest is less than a share of the farthest.
    pub fn near_zero(self, share: f64) -> Span {
        match self {
            Span { log: true, .. } => self,
            Span { low, high, .. } if low > 0.0 && low < share * high => Span { low: 0.0, ..self },
            Span { low, high, .. } if high < 0.0 && high > share * low => Span { high: 0.0, ..self },
            _ => self,
        }
    }

    /// With a little room at both ends.
    pub fn padded(self) -> Span {
        let room = (self.high - self.low) * 0.04;
        let at_zero = |end: f64| end == 0.0 && !self.log;
        let low = if at_zero(self.low) { 0.0 } else { self.low - room };
        let high = if at_zero(self.high) { 0.0 } else { self.high + room };
        Span { low, high, ..self }
    }

    /// Onto the pixels from one to another.
    pub fn on(self, from: f64, to: f64) -> Scale {
        Scale { span: self, from, to }
    }

    /// Round values inside, about `most`, with their texts.
    pub fn ticks(&self, most: usize) -> Vec<(f64, String)> {
        let values = if self.log { self.log_ticks(most) } else { even(self.low, self.high, most) };
        values.into_iter().map(|value| (value, shown(value, 10))).collect()
    }

    fn log_ticks(&self, most: usize) -> Vec<f64> {
        let (first, last) = (self.low.floor() as i32, self.high.ceil() as i32);
        let decades = self.high - self.low;
        let factors: &[f64] = if decades < 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let every = (decades / most.max(1) as f64).ceil().max(1.0) as i32;
        let ticks: Vec<f64> = (first..=last)
            .filter(|decade| decade.rem_euclid(every) == 0)
            .flat_map(|decade| {
                factors.iter().filter_map(move |factor| format!("{factor}e{decade}").parse().ok())
            })
            .filter(|value: &f64| (self.low - 1e-9..=self.high + 1e-9).contains(&value.log10()))
            .collect();
        if ticks.len() > 1 { ticks } else { even(10f64.powf(self.low), 10f64.powf(self.high), most) }
    }
}

/// 1, 2 or 5 times a power of ten, so that about `most` of it make up the range.
fn step(range: f64, most: usize) -> f64 {
    let raw = range / most.max(1) as f64;
    let power = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= raw * 0.999).unwrap_or(10.0);
    (factor * power).max(f64::MIN_POSITIVE)
}

/// Multiples of a round step.
fn even(low: f64, high: f64, most: usize) -> Vec<f64> {
    let step = step(high - low, most);
    let first = (low / step - 1e-6).ceil();
    let count = ((high / step + 1e-6).floor() - first).clamp(0.0, 100.0) as usize;
    (0..=count).map(|at| (first + at as f64) * step).collect()
}

/// Maps values to pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub span: Span,
    pub from: f64,
    pub to: f64,
}

impl Scale {
    /// The pixel of a value; a value off the axis comes to lie at its nearer end.
    pub fn at(&self, value: f64) -> f64 {
        let value = match self.span.log {
            true if value <= 0.0 => self.span.low,
            true => value.log10(),
            false => value,
        };
        let share = (value - self.span.low) / (self.span.high - self.span.low);
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }
}
