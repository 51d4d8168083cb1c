//! The table of layers on several devices.

use super::cells::{cells, named};
use super::sheet::{digits, percent};
use crate::metrics::{DeviceSummary, PlacedSummary};
use crate::scenario::{SeedRun, VariantOutcome};

/// What tokens crossed, and what the devices did; nothing where all layers are on one.
pub(super) fn table(variants: &[VariantOutcome]) -> String {
    if variants.iter().all(|variant| variant.first().summary.placement.is_none()) {
        return String::new();
    }
    type Column = (&'static str, fn(&SeedRun, &PlacedSummary) -> f64, fn(f64) -> String);
    let two = |number: f64| format!("{number:.2}");
    fn ends(all: &PlacedSummary, of: fn(&DeviceSummary) -> f64) -> (f64, f64) {
        let values = all.devices.iter().map(of);
        (values.clone().fold(f64::INFINITY, f64::min), values.fold(0.0, f64::max))
    }
    let columns: [Column; 9] = [
        ("devices", |run, _| f64::from(run.summary.devices), |count| format!("{count:.0}")),
        ("crossings\na token", |_, all| all.crossings_per_token, two),
        ("states\nsent", |_, all| all.states_sent_per_token, two),
        ("MB\nsent", |_, all| all.sent_bytes / 1e6, |mb| digits(mb, 4)),
        ("passes\nat once", |_, all| all.most_in_flight.into(), |count| format!("{count:.0}")),
        ("least\nload %", |_, all| ends(all, |device| device.load).0, percent),
        ("most\nload %", |_, all| ends(all, |device| device.load).1, percent),
        ("least\nbusy %", |_, all| ends(all, |device| device.busy).0, percent),
        ("most\nbusy %", |_, all| ends(all, |device| device.busy).1, percent),
    ];
    let mut sheet = named(variants);
    for (header, of, show) in columns {
        let of = |run: &SeedRun| run.summary.placement.as_ref().map_or(f64::NAN, |all| of(run, all));
        let shown = |number: f64| if number.is_nan() { "-".into() } else { show(number) };
        sheet = sheet.numbers(header, cells(variants, of, shown));
    }
    sheet.render()
        + "A crossing is a move of a token between two layers on different devices; load: a device's share of the visits of\n\
           layers.\n"
}
