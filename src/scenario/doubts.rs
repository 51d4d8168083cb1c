//! Numbers of a run that are so far from the profile's own that another unit was probably meant.

use super::Note;
use crate::cost::Limits;
use crate::error::{Error, InputError};
use crate::hw::{Hardware, doubt, usual};
use crate::tier::{HostLink, Tiers};

/// Numbers of a profile: against those that it had `before` some were set, or else against those of known devices.
pub(super) fn of_profile(hardware: &Hardware, before: Option<&Hardware>) -> Vec<Note> {
    let doubts = hardware.doubts(before).into_iter();
    doubts.map(|(key, value, why)| Note::doubtful(format!("hardware.{key}"), value, why)).collect()
}

/// Limits and the link of a variant. `of` is what stands before their keys.
pub(super) fn of_variant(limits: Limits, tiers: Option<&Tiers>, hardware: &Hardware, of: &str) -> Vec<Note> {
    let power_w = hardware.power.limit_w.value;
    let clock_mhz = hardware.compute.boost_clock_mhz.value;
    let link = match tiers.map(|tiers| tiers.link) {
        Some(HostLink::Rate { gb_per_s, .. }) => Some(gb_per_s),
        _ => None,
    };
    let numbers = [
        ("limits.power_w", limits.power_w, Some((power_w, power_w)), "the profile's"),
        ("limits.clock_mhz", limits.clock_mhz, Some((clock_mhz, clock_mhz)), "the profile's"),
        (
            "tiers.link.gb_per_s",
            link,
            link.and_then(|_| usual("links.host_gb_per_s")),
            "what links of known devices have,",
        ),
    ];
    let note = |(key, value, usual, whose): (&str, Option<f64>, Option<(f64, f64)>, &str)| {
        Some(Note::doubtful(format!("{of}{key}"), value?, doubt(key, value?, usual?, whose)?))
    };
    numbers.into_iter().filter_map(note).collect()
}

/// What is wrong with a number, with what is odd about it or about one that it is held against.
pub(super) fn explained(mut error: InputError, doubts: &[Note]) -> InputError {
    let key = error.key.clone().unwrap_or_default();
    let own = doubts.iter().find(|note| !key.is_empty() && note.key.ends_with(&key));
    let other = |note: &&Note| error.expected.contains(note.key.trim_start_matches("hardware."));
    if let Some(note) = own.or_else(|| doubts.iter().find(other)) {
        error.expected = format!("{}; {} is {}", error.expected, note.key, note.why);
    }
    error
}

/// The same for an error that may be of another kind.
pub(super) fn explained_error(error: Error, doubts: &[Note]) -> Error {
    match error {
        Error::Input(input) => explained(*input, doubts).into(),
        other => other,
    }
}
