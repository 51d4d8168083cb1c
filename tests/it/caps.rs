//! Power caps and clock locks that were measured, against the clocks that prices have under them: by device, so that those which a law was
//! not fitted to show how far it goes. `cargo test --test it -- caps:: --nocapture` prints the table of docs/VALIDATION.md.

use radialsim::cost::{Device, Limits};
use radialsim::hw::Hardware;
use radialsim::kernel::{Density, Kernel};
use radialsim::units::Dtype;
use std::collections::BTreeMap;

/// Device, and the profile that stands for it: its own, that of its chip, or one without clocks of its own, so that the general law counts.
const DEVICES: [(&str, &str); 9] = [
    ("RTX 3090 (370 W OC card)", "nvidia-a100-sxm-80gb"),
    ("RTX 4000 Ada", "nvidia-l4"),
    ("Quadro RTX 8000", "nvidia-t4"),
    ("V100-SXM2-32GB", "nvidia-v100-sxm"),
    ("V100 (NV-DVFS)", "nvidia-v100-sxm"),
    ("RTX PRO 6000 Workstation (Ollama)", "nvidia-rtx-pro-6000"),
    ("RTX PRO 6000 Workstation", "nvidia-rtx-pro-6000"),
    ("RTX PRO 6000 Server", "nvidia-rtx-pro-6000"),
    ("RTX 5090", "nvidia-rtx-pro-6000"),
];

/// One measurement.
#[derive(Clone, Copy)]
struct Row {
    clock_mhz: f64,
    locked: bool,
    speed: f64,
    watts: f64,
}

/// Errors of a device in percent: of speed and of energy a unit, both against the row that draws most; and changes of energy whose sign is right.
#[derive(Default)]
struct Errors {
    rows: usize,
    speed: f64,
    energy: f64,
    changes: usize,
    right: usize,
}

/// Whether a workload is bound by memory, or by arithmetic; nothing for training and drafts, of which little is said.
fn by_memory(phase: &str) -> Option<bool> {
    match phase {
        _ if ["train", "draft", "forward", "backward", "prefill+"]
            .iter()
            .any(|word| phase.contains(word)) =>
        {
            None
        }
        _ if phase.starts_with("decode") || phase.contains("memory") => Some(true),
        _ if phase == "prefill" || phase.contains("matrix") => Some(false),
        _ => None,
    }
}

/// The product that stands for a workload: one row for memory, many for arithmetic.
fn product(by_memory: bool) -> Kernel {
    let rows = if by_memory { 1 } else { 4096 };
    let (weights, activations) = (Dtype::Bf16, Dtype::Bf16);
    Kernel::MatMul {
        rows,
        inner: 4096,
        columns: 14336,
        weights,
        inputs: activations,
        activations,
        density: Density::Dense,
    }
}

/// Time and energy under limits.
fn run(hardware: &Hardware, kernel: &Kernel, limits: Limits) -> Option<(f64, f64)> {
    let price = Device::new(hardware, limits).ok()?.price(kernel);
    let time = price.time.ps() as f64;
    Some((time, hardware.power.static_w.value * time + price.dynamic_pj as f64))
}

impl Errors {
    /// A row that draws `share` of the most, at `speed` of the fastest.
    fn add(&mut self, (speed, share): (f64, f64), said: (f64, f64)) {
        let (energy, said_energy) = (share / speed, said.1);
        self.rows += 1;
        self.speed += 100.0 * (said.0 / speed - 1.0).abs();
        self.energy += 100.0 * (said_energy / energy - 1.0).abs();
        if (energy - 1.0).abs() > 0.02 {
            self.changes += 1;
            self.right += usize::from((energy > 1.0) == (said_energy > 1.0));
        }
    }
}

#[test]
fn measured_caps_and_locks_are_followed() {
    let Some(path) = crate::data("energy/power_caps.csv") else { return };
    let mut table = csv::Reader::from_path(path).expect("a table");
    let header = table.headers().expect("a header").clone();
    let place = |name: &str| header.iter().position(|column| column == name).expect(name);
    let names = [
        "device",
        "workload",
        "phase",
        "batch",
        "control",
        "clock_mhz",
        "speed",
        "mean_power_w",
        "power_fix_factor",
    ];
    let names = names.map(place);
    let mut series: BTreeMap<(String, String, String, String), Vec<Row>> = BTreeMap::new();
    for record in table.records() {
        let record = record.expect("a row");
        let [device, workload, phase, batch, control, clock, speed, watts, factor] =
            names.map(|at| &record[at]);
        let (Ok(speed), Ok(watts)) = (speed.parse::<f64>(), watts.parse::<f64>()) else { continue };
        // Some rows under-count power by a factor that is given.
        let watts = watts * factor.parse::<f64>().unwrap_or(1.0);
        let clock_mhz = clock.parse().unwrap_or(0.0);
        let row = Row { clock_mhz, locked: control == "clock", speed, watts };
        let key = [device, workload, phase, batch].map(str::to_owned);
        series.entry(key.into()).or_default().push(row);
    }
    let mut all: BTreeMap<&str, Errors> = BTreeMap::new();
    for ((device, _, phase, _), rows) in &series {
        let known = DEVICES.iter().find(|(name, _)| name == device);
        let (Some(&(name, profile)), Some(by_memory)) = (known, by_memory(phase)) else { continue };
        let hardware = Hardware::datasheet(profile).expect("shipped");
        let kernel = product(by_memory);
        let (time, energy) = run(&hardware, &kernel, Limits::default()).expect("no limits");
        let most = rows.iter().max_by(|a, b| a.watts.total_cmp(&b.watts)).expect("a row");
        let fastest = rows.iter().map(|row| row.clock_mhz).fold(0.0, f64::max);
        for row in rows {
            let (speed, share) = (row.speed / most.speed, row.watts / most.watts);
            // Below half the speed few would run.
            if speed < 0.45 {
                continue;
            }
            let boost = hardware.compute.boost_clock_mhz.value;
            let limits = match row.locked {
                true => Limits { clock_mhz: Some(boost * row.clock_mhz / fastest), ..Limits::default() },
                false => Limits { power_w: Some(share * energy / time), ..Limits::default() },
            };
            let Some((slower, less)) = run(&hardware, &kernel, limits) else { continue };
            all.entry(name).or_default().add((speed, share), (time / slower, less / energy));
        }
    }
    assert_eq!(all.len(), DEVICES.len(), "every device has rows");
    for (name, Errors { rows, speed, energy, changes, right }) in &all {
        let (count, profile) =
            (*rows as f64, DEVICES.iter().find(|known| known.0 == *name).expect("known").1);
        let (speed, energy) = (speed / count, energy / count);
        eprintln!("| {name} | `{profile}` | {rows} | {speed:.1} | {energy:.1} | {right} of {changes} |");
        assert!(speed < 12.0 && energy < 15.0, "{name}: {speed} {energy}");
        assert!(10 * right >= 8 * changes, "{name}: {right} of {changes}");
    }
}
