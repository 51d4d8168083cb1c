//! Fabrics for people: what they are made of, what collectives take on them, and what a fit of them says of itself.

use super::cells::SOURCES;
use super::sheet::Sheet;
use crate::calib::fabric::{CurveFit, FabricFit};
use crate::cost::{CollectivePrice, Group, PriceError, percent};
use crate::error::{InputError, shorten};
use crate::hw::{CallMode, Collectives, Fabric, Level, Library, Operation};
use std::collections::BTreeMap;

/// Sizes of the table of all-reduces: from one token of a small model to a pass of many.
const SIZES: [(u64, &str); 6] = [
    (8 << 10, "8 KiB"),
    (64 << 10, "64 KiB"),
    (512 << 10, "512 KiB"),
    (4 << 20, "4 MiB"),
    (32 << 20, "32 MiB"),
    (256 << 20, "256 MiB"),
];

/// Everything that a fabric says, and what all-reduces take on it.
///
/// # Errors
/// None that a checked fabric can have.
pub fn inspect(fabric: &Fabric) -> Result<String, InputError> {
    let numbers = fabric.numbers();
    let mut kinds = SOURCES.map(|kind| (kind, 0));
    for (_, number) in &numbers {
        kinds[number.source.kind() as usize].1 += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let mut text = format!(
        "{:<14} {} ({})\n{:<14} {}\n{:<14} every number is in its range and has a source\n",
        "fabric",
        shorten(&fabric.title),
        shorten(&fabric.name),
        "numbers",
        kinds.join(", "),
        "checks"
    );
    for (place, level) in fabric.levels.iter().enumerate() {
        text.push_str(&format!("{:<14} {}\n", format!("levels[{place}]"), described(level)));
    }
    let sheet = Sheet::new()
        .words("key", numbers.iter().map(|(key, _)| key))
        .narrow("value", numbers.iter().map(|(_, number)| number.value.to_string()))
        .words("source", numbers.iter().map(|(_, number)| number.source.kind().to_string()))
        .prose("who says so", numbers.iter().map(|(_, number)| number.source.text()));
    text.push_str(&sheet.render());
    for level in &fabric.levels {
        text.push_str(&measured(level));
    }
    text.push_str(&all_reduces(fabric)?);
    Ok(text)
}

fn described(level: &Level) -> String {
    let joins = format!("{}: joins {}", shorten(&level.name), level.units.value);
    let times = match (&level.collectives, &level.lent) {
        (Some(_), None) => "its collectives were measured".to_owned(),
        (Some(_), Some(loan)) => format!(
            "some of its collectives were measured, the others are lent by {}, {} % off as one expects",
            loan.from, loan.error.mean
        ),
        (None, Some(loan)) => {
            format!("its collectives are lent by {}, {} % off as one expects", loan.from, loan.error.mean)
        }
        (None, None) => "nobody measured its collectives: they are steps and bytes".to_owned(),
    };
    format!("{joins}; {times}")
}

/// What was measured on a level, a row for each library and operation.
fn measured(level: &Level) -> String {
    let Some(Collectives { curves, exchanges, source, .. }) = &level.collectives else {
        return String::new();
    };
    let mut calls: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for curve in curves {
        calls.entry((curve.operation, curve.library, curve.mode, &curve.version)).or_default().push(curve);
    }
    let several = |of: &dyn Fn(&crate::hw::Curve) -> String| -> Vec<String> {
        calls
            .values()
            .map(|curves| curves.iter().map(|curve| of(curve)).collect::<Vec<_>>().join(" / "))
            .collect()
    };
    let error =
        |held: Option<crate::hw::Held>| held.map_or("-".to_owned(), |held| format!("{:.1}", held.mean));
    let range = calls.values().map(|curves| {
        let least = curves.iter().map(|curve| curve.knots[0].0).min().unwrap_or(0);
        let most = curves.iter().map(|curve| curve.knots[curve.knots.len() - 1].0).max().unwrap_or(0);
        format!("{} to {}", bytes(least), bytes(most))
    });
    let sheet = Sheet::new()
        .words("measured", calls.keys().map(|(operation, ..)| operation.name()))
        .words(
            "library",
            calls.keys().map(|(_, library, _, version)| format!("{} {version}", library.name())),
        )
        .words("mode", calls.keys().map(|(_, _, mode, _)| mode.name()))
        .words("devices", several(&|curve| curve.devices.to_string()))
        .words("sizes", range)
        .words("% off on\nother sizes", several(&|curve| error(curve.sizes)))
        .words("% off from other\nnumbers of devices", several(&|curve| error(curve.others)));
    let mut text = sheet.render();
    for exchange in exchanges {
        text.push_str(&format!(
            "{} of DeepEP {} ({}) on {} devices: {:.1} % off on other shapes\n",
            exchange.part.name(),
            exchange.version,
            exchange.mode.name(),
            exchange.devices,
            exchange.error.mean
        ));
    }
    text + &Sheet::new().prose("who says so", [source.text()]).render()
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

/// All-reduces by library, mode and number of devices, in microseconds, with what says so and how wrong it may be.
fn all_reduces(fabric: &Fabric) -> Result<String, InputError> {
    let units = fabric.levels[0].units.value as u32;
    let mut counts: Vec<u32> = [2, 4, 8].into_iter().filter(|count| *count <= units).collect();
    if fabric.levels.len() > 1 {
        counts.push(2 * units);
    }
    let (mut heads, mut rows): (Vec<[String; 3]>, Vec<Vec<CollectivePrice>>) = (Vec::new(), Vec::new());
    for (library, name) in Library::ALL {
        for (mode, how) in CallMode::ALL {
            for &devices in &counts {
                let group = Group::packed(fabric, devices, library, mode)?;
                heads.push([name.to_owned(), how.to_owned(), devices.to_string()]);
                rows.push(SIZES.iter().map(|(size, _)| group.price(Operation::AllReduce, *size)).collect());
            }
        }
    }
    let mut sheet = Sheet::new()
        .words("all-reduce, us", heads.iter().map(|head| &head[0]))
        .words("mode", heads.iter().map(|head| &head[1]))
        .numbers("devices", heads.iter().map(|head| &head[2]));
    for (place, (_, size)) in SIZES.iter().enumerate() {
        sheet = sheet.numbers(size, rows.iter().map(|row| format!("{:.1}", row[place].time.us())));
    }
    let source = rows.iter().map(|row| {
        let kinds: Vec<_> = row.iter().map(|price| price.source).collect();
        let weakest = kinds.iter().max().copied();
        weakest.map_or(String::new(), |kind| kind.to_string())
    });
    let error = rows.iter().map(|row| {
        let worst: Option<PriceError> =
            row.iter().filter_map(|price| price.error).max_by_key(|error| error.mean);
        worst.map_or("-".to_owned(), |error| format!("{:.0}", percent(error.mean)))
    });
    Ok(sheet.words("source", source).numbers("% off", error).render()
        + "source and % off: the weakest and the largest of the row. graph: device time. eager: called one by one from Python, the host's\n\
           time for a call in it, and a copy of the message that the tables' collector makes before each call.\n")
}

/// What a fit says of itself, a row for each curve.
pub fn fabric_fits(fit: &FabricFit) -> String {
    let curves = &fit.curves;
    let percent = |of: &dyn Fn(&CurveFit) -> Option<f64>| -> Vec<String> {
        curves.iter().map(|row| shown(of(row))).collect()
    };
    let lent = curves.iter().any(|row| row.lent.is_some());
    let mark = |row: &CurveFit| if row.written { "" } else { " *" };
    let mut sheet = Sheet::new()
        .words("operation", curves.iter().map(|row| row.curve.operation.name()))
        .words(
            "library",
            curves
                .iter()
                .map(|row| format!("{} {}{}", row.curve.library.name(), row.curve.version, mark(row))),
        )
        .words("mode", curves.iter().map(|row| row.curve.mode.name()))
        .numbers("devices", curves.iter().map(|row| row.curve.devices.to_string()))
        .numbers("rows", curves.iter().map(|row| row.rows.to_string()))
        .numbers("curve\n%", percent(&|row| row.sizes.map(|errors| errors.mean)))
        .numbers("log-log\n%", percent(&|row| row.log_log))
        .numbers("a + b S\n%", percent(&|row| row.start_and_bandwidth))
        .numbers("ring\n%", percent(&|row| row.bandwidth_alone))
        .numbers("devices\n%", percent(&|row| row.others.map(|errors| errors.mean)));
    if lent {
        sheet = sheet.numbers("lent\n%", percent(&|row| row.lent));
    }
    let mut text = if curves.is_empty() { String::new() } else { sheet.render() + &means(curves, lent) };
    if !curves.is_empty() {
        text.push_str(
            "curve, log-log, a + b S, ring: mean absolute error on the sizes of every second doubling, by a fit to the others, and the other\n\
             way round: by the curve that is written, by lines between logarithms, by a start and a bandwidth, by the least bytes on the\n\
             wire over the bandwidth alone. devices: on all sizes, by the curves of the other numbers of devices; between: of a number between\n\
             two others. * an older version, or not of 16 bits: fitted, not written.\n",
        );
    }
    if lent {
        text.push_str("lent: of all sizes, by what the other fabric lends.\n");
    }
    if fit.copies > 0 {
        text.push_str(&format!("{} series repeat others row by row and were left out.\n", fit.copies));
    }
    if !fit.exchanges.is_empty() {
        let rows = &fit.exchanges;
        let sheet = Sheet::new()
            .words("DeepEP", rows.iter().map(|row| row.constants.mode.name()))
            .words("way", rows.iter().map(|row| row.constants.part.name()))
            .numbers("devices", rows.iter().map(|row| row.constants.devices.to_string()))
            .numbers("rows", rows.iter().map(|row| row.rows.to_string()))
            .numbers("shapes", rows.iter().map(|row| row.shapes.to_string()))
            .numbers("constants\n%", rows.iter().map(|row| shown(Some(row.held.mean))))
            .numbers("p90\n%", rows.iter().map(|row| shown(Some(row.held.p90))))
            .numbers("a + b S\n%", rows.iter().map(|row| shown(Some(row.start_and_bandwidth))));
        text.push_str(&sheet.render());
        text.push_str("constants, a + b S: mean absolute error on shapes (hidden width, chosen experts, experts) kept aside in turn.\n");
    }
    text
}

/// Means over the curves of a library and mode, and of all.
fn means(curves: &[CurveFit], lent: bool) -> String {
    let mut groups: BTreeMap<(Library, CallMode), Vec<&CurveFit>> = BTreeMap::new();
    for row in curves {
        groups.entry((row.curve.library, row.curve.mode)).or_default().push(row);
    }
    let mut named: Vec<(String, Vec<&CurveFit>)> = groups
        .into_iter()
        .map(|((library, mode), rows)| (format!("{} {}", library.name(), mode.name()), rows))
        .collect();
    named.push(("all".into(), curves.iter().collect()));
    let between = |row: &&CurveFit| {
        let twins = curves
            .iter()
            .filter(|other| other.curve.same_call(&row.curve) && other.curve.version == row.curve.version);
        let counts: Vec<u32> = twins.map(|other| other.curve.devices).collect();
        let own = row.curve.devices;
        counts.iter().any(|count| *count < own) && counts.iter().any(|count| *count > own)
    };
    let column = |of: &dyn Fn(&CurveFit) -> Option<f64>| -> Vec<String> {
        named.iter().map(|(_, rows)| mean(rows.iter().filter_map(|row| of(row)))).collect()
    };
    let split = |inner: bool| -> Vec<String> {
        let of = |row: &&&CurveFit| between(row) == inner;
        let error = |row: &&CurveFit| row.others.map(|errors| errors.mean);
        named.iter().map(|(_, rows)| mean(rows.iter().filter(of).filter_map(error))).collect()
    };
    let held = |row: &CurveFit| row.sizes.map_or(0, |errors| errors.rows);
    let mut sheet = Sheet::new()
        .words("mean over curves", named.iter().map(|(name, _)| name))
        .numbers(
            "rows held",
            named.iter().map(|(_, rows)| rows.iter().map(|row| held(row)).sum::<usize>().to_string()),
        )
        .numbers("curve\n%", column(&|row| row.sizes.map(|errors| errors.mean)))
        .numbers("log-log\n%", column(&|row| row.log_log))
        .numbers("a + b S\n%", column(&|row| row.start_and_bandwidth))
        .numbers("ring\n%", column(&|row| row.bandwidth_alone))
        .numbers("devices\nbetween %", split(true))
        .numbers("devices\nbeyond %", split(false));
    if lent {
        sheet = sheet.numbers("lent\n%", column(&|row| row.lent));
    }
    sheet.render()
}

fn shown(percent: Option<f64>) -> String {
    percent.map_or("-".into(), |percent| format!("{percent:.1}"))
}

fn mean(all: impl Iterator<Item = f64>) -> String {
    let all: Vec<f64> = all.collect();
    shown((!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64))
}
