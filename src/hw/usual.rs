//! What numbers of devices usually are, by the profiles that are built into the program, and the unit that was probably meant by
//! one that is a thousand times off.

use super::{Hardware, Sourced};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// The profile that is no device: its numbers are made for closed forms.
const IDEAL: &str = "ideal";

/// From this factor on a value is doubted: halfway between 100, which is a what-if, and 1000, which is another unit.
const DOUBTED: f64 = 316.0;

/// The numbers of one shipped datasheet profile, by key.
type Numbers = BTreeMap<String, f64>;

/// The name and the numbers of every shipped datasheet profile of a device.
fn shipped() -> &'static [(&'static str, Numbers)] {
    static SHIPPED: OnceLock<Vec<(&str, Numbers)>> = OnceLock::new();
    SHIPPED.get_or_init(|| {
        let names = Hardware::shipped_names().into_iter().filter(|name| *name != IDEAL);
        // Shipped profiles are read by the tests; one that could not be would be missing here and nowhere else.
        names.filter_map(|name| Some((name, numbers(&Hardware::datasheet(name).ok()?)))).collect()
    })
}

fn numbers(hardware: &Hardware) -> Numbers {
    hardware.numbers().into_iter().map(|(key, number)| (key, number.value)).collect()
}

/// The least and the largest number above 0 that shipped devices have under a key of profiles; none where they have none.
pub fn usual(key: &str) -> Option<(f64, f64)> {
    let values = shipped().iter().filter_map(|(_, numbers)| numbers.get(key)).copied();
    values.filter(|value| *value > 0.0).fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((least, most)) => Some((f64::min(least, value), f64::max(most, value))),
    })
}

/// The key of every number that a shipped device has, in alphabetical order.
pub fn known_keys() -> impl Iterator<Item = &'static str> {
    let all: std::collections::BTreeSet<&str> =
        shipped().iter().flat_map(|(_, numbers)| numbers.keys().map(String::as_str)).collect();
    all.into_iter()
}

/// What the unit of a key is made of: the power of ten of its prefix, and the unit without one.
fn unit(key: &str) -> Option<(i32, &'static str)> {
    let last = key.rsplit('.').next().unwrap_or(key);
    let ends = |end: &str| last.ends_with(end);
    Some(match last {
        "pj_per_byte" => (-12, "J per byte"),
        "pj_per_flop" => (-12, "J per flop"),
        "pj_per_widened" => (-12, "J per weight"),
        "pj_per_logit" => (-12, "J per logit"),
        "ps_per_logit" => (-12, "s per logit"),
        _ if ends("_gb_per_s") || last == "gb_per_s" => (9, "B/s"),
        _ if ends("_gb") => (9, "B"),
        _ if ends("_mb") => (6, "B"),
        _ if ends("_mhz") => (6, "Hz"),
        _ if ends("_tflops") => (12, "flop/s"),
        _ if ends("_tops") => (12, "op/s"),
        _ if ends("_us") => (-6, "s"),
        _ if ends("_w") => (0, "W"),
        _ => return None,
    })
}

/// A unit with the prefix for a power of ten; none where the power has no prefix, or what is counted has no such parts.
fn prefixed(power: i32, unit: &str) -> Option<String> {
    const PREFIXES: [(i32, &str); 12] = [
        (-15, "f"),
        (-12, "p"),
        (-9, "n"),
        (-6, "u"),
        (-3, "m"),
        (0, ""),
        (3, "k"),
        (6, "M"),
        (9, "G"),
        (12, "T"),
        (15, "P"),
        (18, "E"),
    ];
    let divides = unit.starts_with(['s', 'J', 'W']);
    let (_, prefix) = PREFIXES.iter().find(|(known, _)| *known == power && (power >= 0 || divides))?;
    Some(format!("{prefix}{unit}"))
}

/// A number with at most four digits.
fn short(number: f64) -> String {
    if number != 0.0 && !(1e-3..1e7).contains(&number.abs()) {
        return format!("{number:.3e}");
    }
    let digits = (3 - number.abs().max(1e-3).log10().floor() as i32).max(0) as usize;
    let text = format!("{number:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// What to say of the value of a key whose last part names its unit, where it is so many times off that another unit was
/// probably meant. `usual` is what is known of it, from the least to the largest; `whose` says whose that is. None where nothing is odd.
pub fn doubt(key: &str, value: f64, (least, most): (f64, f64), whose: &str) -> Option<String> {
    let near = value.clamp(least, most);
    let ratio = value / near;
    let within = (1.0 / DOUBTED..DOUBTED).contains(&ratio);
    if within || !(ratio.is_finite() && ratio > 0.0) {
        return None;
    }
    let (power, unit) = unit(key)?;
    let thousands = (ratio.log10() / 3.0).round() as i32;
    let times = if ratio > 1.0 {
        format!("{} times", short(ratio))
    } else {
        format!("{} times less than", short(1.0 / ratio))
    };
    let usual = if least == most { short(near) } else { format!("{} to {}", short(least), short(most)) };
    let known = prefixed(power, unit)?;
    let meant = prefixed(power - 3 * thousands, unit).map(|meant| {
        let value_meant = short(value * 10f64.powi(-3 * thousands));
        format!("; if {} {meant} was meant, write {value_meant}", short(value))
    });
    Some(format!("{times} {whose} {usual}: the unit is {known}{}", meant.unwrap_or_default()))
}

impl Hardware {
    /// What to say of numbers whose unit is doubtful, by key: those of `before`, where the profile was made of it, else those of the
    /// shipped profile that it was derived from, else all of the shipped ones.
    pub fn doubts(&self, before: Option<&Hardware>) -> Vec<(String, f64, String)> {
        let own = numbers(self);
        let base = before.map(|before| ("the profile's", numbers(before)));
        let base = base.or_else(|| {
            let named = shipped().iter().find(|(name, _)| *name == self.name);
            let (name, numbers) = named.or_else(|| origin(&own))?;
            Some((*name, numbers.clone()))
        });
        let of = |(key, &value): (&String, &f64)| {
            let words = match &base {
                Some((whose, numbers)) => {
                    let usual = *numbers.get(key)?;
                    let whose = if before.is_some() { (*whose).to_owned() } else { format!("{whose}'s") };
                    doubt(key, value, (usual, usual), &whose)
                }
                None => doubt(key, value, usual(key)?, "what known devices have,"),
            };
            Some((key.clone(), value, words?))
        };
        own.iter().filter_map(of).collect()
    }

    /// The number that lies farthest on the side that makes runs longer or hotter than on any shipped device, with its key, what those have,
    /// and by what factor; none where all are usual.
    pub fn strangest(&self) -> Option<(String, f64, (f64, f64), f64)> {
        let odd = |(key, number): (String, &Sourced)| {
            let last = key.rsplit('.').next().unwrap_or(&key);
            let (least, most) =
                usual(&key).filter(|_| unit(&key).is_some() || ["flops", "bytes"].contains(&last))?;
            let more_is_longer = last.ends_with("_us")
                || last.starts_with("pj_")
                || last.starts_with("ps_")
                || last.ends_with("_w");
            let factor = if more_is_longer { number.value / most } else { least / number.value };
            (number.value > 0.0 && factor > 1.0).then_some((key, number.value, (least, most), factor))
        };
        self.numbers().into_iter().filter_map(odd).max_by(|a, b| a.3.total_cmp(&b.3))
    }
}

/// The shipped profile that has the most of these numbers, if it has more than half of those with a unit.
fn origin(own: &Numbers) -> Option<&'static (&'static str, Numbers)> {
    let with_unit = |numbers: &'static Numbers| {
        numbers.iter().filter(|(key, value)| **value > 0.0 && unit(key).is_some())
    };
    let same = |numbers| with_unit(numbers).filter(|(key, value)| own.get(*key) == Some(*value)).count();
    // Of equals the first.
    let best = shipped().iter().rev().max_by_key(|(_, numbers)| same(numbers))?;
    (2 * same(&best.1) > with_unit(&best.1).count()).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(key: &str, value: f64, usual: f64) -> Option<String> {
        doubt(key, value, (usual, usual), "the profile's")
    }

    #[test]
    fn another_unit_is_named() {
        for (key, value, usual, expected) in [
            ("memory.dram_gb_per_s", 3.35, 3350.0, "if 3.35 TB/s was meant, write 3350"),
            ("memory.dram_gb_per_s", 3.35e6, 3350.0, "if 3350000 MB/s was meant, write 3350"),
            ("memory.dram_gb_per_s", 3.35e12, 3350.0, "if 3.350e12 B/s was meant, write 3350"),
            ("memory.capacity_gb", 80e9, 80.0, "if 8.000e10 B was meant, write 80"),
            ("memory.capacity_gb", 0.08, 80.0, "if 0.08 TB was meant, write 80"),
            ("compute.boost_clock_mhz", 1.83, 1980.0, "if 1.83 GHz was meant, write 1830"),
            ("compute.boost_clock_mhz", 1.98e9, 1980.0, "if 1.980e9 Hz was meant, write 1980"),
            ("power.limit_w", 700e3, 700.0, "if 700000 mW was meant, write 700"),
            ("power.limit_w", 0.7, 700.0, "if 0.7 kW was meant, write 700"),
            ("launch.kernel_us", 4e-6, 4.0, "if 4.000e-6 s was meant, write 4"),
            ("launch.kernel_us", 4000.0, 4.0, "if 4000 ns was meant, write 4"),
            ("compute.matrix_f16_tflops", 989e12, 989.0, "if 9.890e14 flop/s was meant, write 989"),
            ("power.pj_per_byte", 0.06, 60.0, "if 0.06 nJ per byte was meant, write 60"),
        ] {
            let said = said(key, value, usual).unwrap_or_default();
            assert!(said.contains(expected), "{key}={value}: {said}");
        }
    }

    #[test]
    fn what_ifs_are_not_doubted() {
        for factor in [1.0, 0.01, 0.1, 0.5, 2.0, 10.0, 100.0, 0.0] {
            assert_eq!(said("memory.dram_gb_per_s", 3350.0 * factor, 3350.0), None, "{factor}");
        }
        assert_eq!(said("kernels.matmul.flops", 1e-6, 0.7), None, "a share has no unit");
    }

    /// Every shipped profile is usual, itself and as others see it.
    #[test]
    fn shipped_profiles_are_usual() {
        for (name, _) in shipped() {
            let hardware = Hardware::shipped(name).expect("it is shipped");
            assert_eq!(hardware.doubts(None), [], "{name}");
            assert!(hardware.strangest().is_none_or(|(.., factor)| factor < DOUBTED), "{name}");
        }
        assert_eq!(shipped().len(), Hardware::shipped_names().len() - 1);
    }
}
