//! Energy counters of this machine: NVML where the adapter is an NVIDIA card, RAPL where it is the processor.

use super::adapter::AdapterInfo;
use nvml_wrapper::Nvml;
use std::cell::RefCell;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Where Linux shows RAPL (kernel documentation, "Power Capping Framework").
pub const POWERCAP: &str = "/sys/class/powercap";

/// A counter of joules.
#[derive(Debug)]
pub enum Counter {
    /// The board's energy since its driver was loaded (`nvmlDeviceGetTotalEnergyConsumption`, Volta and newer), by the number of the
    /// device.
    Nvml(Box<Nvml>, u32),
    /// Packages and their memory.
    Rapl(Vec<Domain>),
}

/// One RAPL domain.
#[derive(Debug)]
pub struct Domain {
    energy_uj: PathBuf,
    /// Where the counter begins anew.
    range_uj: u64,
    /// Last reading, and the sum since the first.
    last: RefCell<(u64, u64)>,
}

impl Counter {
    /// The counter that sees what this adapter draws; nothing where there is none, or where it may not be read.
    pub fn of(adapter: &AdapterInfo, powercap: &Path) -> Option<Counter> {
        if adapter.kind == "CPU" { rapl(powercap) } else { nvml(&adapter.name) }
    }

    /// What it is, for records.
    pub fn name(&self) -> String {
        match self {
            Counter::Nvml(..) => "NVML, the board's energy".into(),
            Counter::Rapl(domains) => {
                format!("RAPL, {} domains: all that packages and memory draw", domains.len())
            }
        }
    }

    /// Joules so far; nothing where the reading fails. RAPL must be read more often than its counter begins anew (a minute at 1 kW).
    pub fn joules(&self) -> Option<f64> {
        match self {
            Counter::Nvml(nvml, index) => {
                let device = nvml.device_by_index(*index).ok()?;
                Some(device.total_energy_consumption().ok()? as f64 / 1e3)
            }
            Counter::Rapl(domains) => {
                domains.iter().map(Domain::read).sum::<Option<u64>>().map(|uj| uj as f64 / 1e6)
            }
        }
    }
}

/// The one card of this name.
fn nvml(name: &str) -> Option<Counter> {
    // Drivers bring this name; the one without a number comes with development packages.
    let nvml =
        Nvml::builder().lib_path(OsStr::new("libnvidia-ml.so.1")).init().or_else(|_| Nvml::init()).ok()?;
    let named = |index: &u32| {
        nvml.device_by_index(*index).and_then(|device| device.name()).is_ok_and(|of| of == name)
    };
    let found: Vec<u32> = (0..nvml.device_count().ok()?).filter(named).collect();
    let [index] = found[..] else { return None };
    let counter = Counter::Nvml(Box::new(nvml), index);
    counter.joules().map(|_| counter)
}

fn rapl(powercap: &Path) -> Option<Counter> {
    let zones = std::fs::read_dir(powercap).ok()?.flatten().map(|entry| entry.path());
    // Cores are a part of their package; psys is what the whole board draws.
    let counted = |path: &PathBuf| {
        let name = std::fs::read_to_string(path.join("name")).unwrap_or_default();
        name.starts_with("package") || name.trim() == "dram"
    };
    let mut zones: Vec<PathBuf> = zones.filter(counted).collect();
    zones.sort();
    let domains: Vec<Domain> = zones.iter().map(|zone| Domain::open(zone)).collect::<Option<_>>()?;
    (!domains.is_empty()).then_some(Counter::Rapl(domains))
}

impl Domain {
    fn open(zone: &Path) -> Option<Domain> {
        let energy_uj = zone.join("energy_uj");
        let (first, range_uj) = (number(&energy_uj)?, number(&zone.join("max_energy_range_uj"))?);
        Some(Domain { energy_uj, range_uj, last: RefCell::new((first, 0)) })
    }

    /// Microjoules since it was opened.
    fn read(&self) -> Option<u64> {
        let now = number(&self.energy_uj)?;
        let (last, sum) = *self.last.borrow();
        let more = if now >= last { now - last } else { (self.range_uj - last.min(self.range_uj)) + now };
        *self.last.borrow_mut() = (now, sum + more);
        Some(sum + more)
    }
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(root: &Path, zone: &str, name: &str, energy: u64) {
        let zone = root.join(zone);
        std::fs::create_dir_all(&zone).expect("a folder");
        for (file, text) in [
            ("name", name.to_owned()),
            ("energy_uj", energy.to_string()),
            ("max_energy_range_uj", "1000000".into()),
        ] {
            std::fs::write(zone.join(file), text + "\n").expect("a file");
        }
    }

    #[test]
    fn packages_and_memory_add_up_past_the_end_of_their_counters() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        assert!(rapl(root).is_none(), "nothing there");
        zone(root, "intel-rapl:0", "package-0", 900_000);
        zone(root, "intel-rapl:0:0", "core", 5);
        zone(root, "intel-rapl:0:1", "dram", 100_000);
        zone(root, "intel-rapl:1", "psys", 7);
        let counter = rapl(root).expect("two domains");
        assert_eq!(counter.joules(), Some(0.0));
        zone(root, "intel-rapl:0:0", "core", 500_000);
        zone(root, "intel-rapl:1", "psys", 700_000);
        assert_eq!(
            counter.joules(),
            Some(0.0),
            "a part of a package, and the whole board, are not counted beside it"
        );
        zone(root, "intel-rapl:0", "package-0", 950_000);
        zone(root, "intel-rapl:0:1", "dram", 150_000);
        assert_eq!(counter.joules(), Some(0.1));
        zone(root, "intel-rapl:0", "package-0", 50_000);
        assert_eq!(counter.joules(), Some(0.2), "the counter began anew");
        std::fs::remove_file(root.join("intel-rapl:0/energy_uj")).expect("a file");
        assert_eq!(counter.joules(), None, "what cannot be read is no number");
        assert!(rapl(root).is_none());
    }
}
