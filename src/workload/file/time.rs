//! Arrivals as files say them: which unit the numbers have, and how that is known.

use super::super::Remark;
use super::date::date_ps;
use super::value::Value;
use crate::error::{InputError, Result, shorten};
use crate::trace::json::decimal;
use crate::units::PS_PER_S;
use serde::{Deserialize, Serialize};

/// Largest time that is read, either way from its zero: 10^30 ps, so that differences fit.
const FARTHEST_PS: i128 = 10_i128.pow(30);
/// Numbers are kept as multiples of this, whatever their unit; larger ones than 10^33 of these are no time in any unit.
const PART: i128 = PS_PER_S as i128;
const FARTHEST_PARTS: u128 = 10_u128.pow(33 + 3);

/// Seconds since 1970 of the first moments of 2000 and of 2100 (`date -u -d 2000-01-01 +%s`). Numbers that all lie between them in one
/// unit are taken for dates in it; the ranges of two units do not meet.
const DATES_S: std::ops::Range<i128> = 946_684_800..4_102_444_800;

/// Whole numbers of one of Mooncake's files are taken for milliseconds if they lie so far apart on average: 100 requests a second.
/// Its traces have 3 to 7 a second; numbers closer together may be seconds.
const MOONCAKE_GAP: i128 = 10;

/// A unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl TimeUnit {
    /// Each with its name in scenarios and on the command line.
    pub const ALL: [(TimeUnit, &'static str); 4] =
        [(TimeUnit::S, "s"), (TimeUnit::Ms, "ms"), (TimeUnit::Us, "us"), (TimeUnit::Ns, "ns")];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    fn words(self) -> &'static str {
        ["seconds", "milliseconds", "microseconds", "nanoseconds"][self as usize]
    }

    /// How many of it are a second.
    fn per_s(self) -> i128 {
        1000_i128.pow(self as u32)
    }

    /// The unit in which all numbers from `least` to `most`, in [`PART`]s, are dates of this century.
    fn of_dates(least: i128, most: i128) -> Option<TimeUnit> {
        let is_date = |unit: TimeUnit, parts: i128| DATES_S.contains(&(parts / PART / unit.per_s()));
        Self::ALL.map(|(unit, _)| unit).into_iter().find(|&unit| is_date(unit, least) && is_date(unit, most))
    }
}

/// What says the unit of a column of times before its numbers are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// `time_unit`.
    Option(TimeUnit),
    /// The name of the key, or of the format.
    Name(TimeUnit),
    /// The keys of a line, which are those of Mooncake's traces; whether hashes are among them.
    Mooncake { hashes: bool },
    /// Nothing.
    No,
}

/// A column of times while it is read.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    key: String,
    told: Told,
    /// Whether numbers may stand in quotes, as 64-bit numbers do in protocol buffers' JSON.
    pub quoted: bool,
    /// Where the next time stands; 0 where that is not known.
    pub line: u64,
    /// The first time: its text, whether it is a date, its line.
    first: Option<(String, bool, u64)>,
    least: i128,
    most: i128,
    whole: bool,
    count: i128,
}

/// How times of a column become picoseconds, and what to say about it.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    /// Parts of a number for a picosecond; 1 for dates.
    pub divisor: i128,
    /// Whether the arrivals are numbers.
    pub numbers: bool,
    /// In words.
    pub how: String,
    pub remark: Option<Remark>,
}

impl Clock {
    pub fn new(key: impl Into<String>, told: Told) -> Self {
        let (key, quoted, line, first): (String, _, _, _) = (key.into(), false, 0, None);
        let key = shorten(&key);
        Clock { key, told, quoted, line, first, least: i128::MAX, most: i128::MIN, whole: true, count: 0 }
    }

    /// Reads a time: picoseconds since 1970 of a date, or a number in [`PART`]s of its unit. A column has the one or the other.
    pub fn read(&mut self, value: Value) -> Result<i128> {
        let inner = value.text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let number = inner.filter(|_| self.quoted).unwrap_or(value.text);
        let number = decimal(number, 12).filter(|(_, size)| *size <= FARTHEST_PARTS);
        let number = number.map(|(negative, size)| if negative { -(size as i128) } else { size as i128 });
        let date = if number.is_none() { date_ps(inner.unwrap_or(value.text)) } else { None };
        let like_first = self.first.as_ref().is_none_or(|(_, dates, _)| *dates == date.is_some());
        let time = match number.or(date).filter(|_| like_first) {
            Some(time) => time,
            None => return Err(value.bad(self.expected()).into()),
        };
        if date.is_none() {
            self.whole &= time % PART == 0;
        }
        self.first.get_or_insert_with(|| (value.text.to_owned(), date.is_some(), self.line));
        (self.least, self.most, self.count) = (self.least.min(time), self.most.max(time), self.count + 1);
        Ok(time)
    }

    /// Whether there was a time.
    pub fn has_read(&self) -> bool {
        self.first.is_some()
    }

    fn expected(&self) -> String {
        let date = "a date and time such as 2023-11-16 18:15:46.6805900";
        let number = match self.told {
            Told::Option(unit) | Told::Name(unit) => format!("a number of {}", unit.words()),
            Told::Mooncake { .. } => "a number of milliseconds".into(),
            Told::No => "a number".into(),
        };
        match self.first {
            None => format!("{number} of at most 10^18 seconds, or {date}"),
            Some((_, true, _)) => format!("{date}, as before"),
            Some((_, false, _)) => format!("{number} of at most 10^18 seconds, as before"),
        }
    }

    /// Decides when all were read.
    pub fn settle(&self) -> Result<Settled> {
        let key = &self.key;
        let Some((first, dates, line)) = &self.first else {
            return Ok(Settled { how: format!("`{key}`, which no request has"), ..Settled::default() });
        };
        if *dates {
            return Ok(Settled { how: format!("`{key}`, dates"), ..Settled::default() });
        }
        let ask = |found: String, why: &str| {
            let what = format!("its unit, {why}: say time_unit (s, ms, us or ns)");
            InputError {
                line: Some(*line).filter(|line| *line > 0),
                ..InputError::expected(what).key(key).found(found)
            }
        };
        let range = || format!("{} to {}", shown(self.least), shown(self.most));
        let by_size = TimeUnit::of_dates(self.least, self.most);
        let remark = |unit: TimeUnit, why: String| Some(Remark::new("time_unit", unit.name(), why));
        let one_time = self.least == self.most;
        let (unit, by, remark) = match (self.told, by_size) {
            (Told::Option(unit), Some(size)) if size != unit => {
                let why =
                    format!("said, but `{key}` has numbers that are dates in {} since 1970", size.words());
                (unit, "said", remark(unit, why))
            }
            (Told::Option(unit), _) => (unit, "said", None),
            (Told::Name(unit), Some(size)) if size.per_s() > unit.per_s() => {
                let why = format!("{} by its name, {} since 1970 by its size", unit.words(), size.words());
                return Err(ask(first.clone(), &why).into());
            }
            (Told::Name(unit), Some(size)) if size != unit => {
                let why = format!("by its name; in {} `{key}` would be dates since 1970", size.words());
                (unit, "by its name", remark(unit, why))
            }
            (Told::Name(unit), _) => (unit, "by its name", None),
            (Told::Mooncake { .. } | Told::No, Some(size)) => {
                let why = format!("by the size of `{key}`: dates since 1970 ({})", range());
                (size, "by its size", remark(size, why))
            }
            (Told::Mooncake { hashes }, None) if self.is_mooncake() || (one_time && self.whole) => {
                let why = "by the keys, which are those of Mooncake's traces".to_owned();
                (TimeUnit::Ms, "by the format", remark(TimeUnit::Ms, why).filter(|_| !hashes))
            }
            // Whatever the unit, nothing comes later than something else.
            (Told::No | Told::Mooncake { .. }, None) if one_time => (TimeUnit::S, "all alike", None),
            (Told::No | Told::Mooncake { .. }, None) => {
                return Err(ask(range(), "which neither the name nor the size of the numbers tells").into());
            }
        };
        let divisor = unit.per_s();
        if self.least / divisor < -FARTHEST_PS || self.most / divisor > FARTHEST_PS {
            let what = format!("a number of {} of at most 10^18 seconds", unit.words());
            return Err(InputError::expected(what).key(key).found(range()).into());
        }
        Ok(Settled { divisor, numbers: true, how: format!("`{key}` in {}, {by}", unit.name()), remark })
    }

    /// Whether these can be Mooncake's milliseconds.
    fn is_mooncake(&self) -> bool {
        self.whole && self.most - self.least >= MOONCAKE_GAP * PART * (self.count - 1)
    }
}

impl Default for Settled {
    /// Of picoseconds.
    fn default() -> Self {
        Settled { divisor: 1, numbers: false, how: "none".into(), remark: None }
    }
}

impl Settled {
    /// Picoseconds of a time that was read, rounded to the nearest.
    pub fn ps(&self, time: i128) -> i128 {
        let half = self.divisor / 2 * time.signum();
        (time + half) / self.divisor
    }
}

/// A number in [`PART`]s, as a decimal.
fn shown(parts: i128) -> String {
    let (sign, size) = (if parts < 0 { "-" } else { "" }, parts.unsigned_abs());
    let (whole, rest) = (size / PART as u128, size % PART as u128);
    let rest = format!("{rest:012}");
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest}") }
}
