//! Fabric files: what is shipped, what is refused, which way engines go.

use crate::cli::{radialsim, refuses, text};
use radialsim::hw::{Fabric, Level, Library, Way, Wiring};
use std::collections::BTreeSet;

const MIB: u64 = 1 << 20;

fn shipped_text(stem: &str) -> String {
    std::fs::read_to_string(format!("hw-profiles/fabrics/{stem}.ron")).expect("shipped")
}

fn level(name: &str) -> Level {
    Fabric::shipped(name).expect("shipped").levels.swap_remove(0)
}

#[test]
fn files_and_names_agree_and_every_source_says_something() {
    let files: BTreeSet<String> = std::fs::read_dir("hw-profiles/fabrics")
        .expect("a folder")
        .map(|entry| entry.expect("entry").path())
        .map(|path| {
            assert_eq!(path.extension().and_then(|e| e.to_str()), Some("ron"), "{}", path.display());
            path.file_stem().expect("stem").to_str().expect("UTF-8").trim_end_matches(".fitted").to_owned()
        })
        .collect();
    let names: BTreeSet<String> = Fabric::shipped_names().iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(files, names);
    for name in names {
        let (bare, best) = (Fabric::datasheet(&name).expect("bare"), Fabric::shipped(&name).expect("best"));
        assert_eq!((&bare.name, &best.name), (&name, &name));
        assert_eq!(bare.numbers(), best.numbers(), "{name}: a fit changed a number");
        for (key, number) in bare.numbers() {
            assert!(number.source.text().len() > 5, "{name}: {key}");
        }
    }
}

/// Bandwidth, step and origin of each row.
#[test]
fn the_table_of_fabrics_is_the_files() {
    let page = std::fs::read_to_string("docs/HARDWARE.md").expect("the page");
    for name in Fabric::shipped_names() {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).expect(name);
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let level = level(name);
        let pair =
            level.pair_gb_per_s.as_ref().map_or(String::new(), |pair| format!(", of a pair {}", pair.value));
        assert!(cells[2].starts_with(&level.units.value.to_string()), "{row}");
        assert_eq!(cells[3], format!("{}{pair}", level.gb_per_s.value), "{row}");
        assert_eq!(cells[4], level.latency_us.value.to_string(), "{row}");
        let lent = level.lent.as_ref().map(|loan| format!("lent by `{}`", loan.from));
        let whole = level.collectives.as_ref().is_some_and(|all| all.curves.len() > 1);
        let origin = match (lent, level.collectives.is_some()) {
            (Some(lent), _) => lent,
            (None, true) if whole => "measured".into(),
            (None, true) => "sends measured, else steps and bytes".into(),
            (None, false) => "steps and bytes".into(),
        };
        assert_eq!(cells[5], origin, "{row}");
    }
}

/// A fitted file is what `fit` writes: reading and writing it changes nothing.
#[test]
fn a_fabric_comes_back_from_its_text() {
    for name in Fabric::shipped_names() {
        let fabric = Fabric::shipped(name).expect("shipped");
        let again = Fabric::parse(&fabric.text(), "again.ron").expect("its own text");
        assert_eq!(fabric, again, "{name}");
    }
    let fitted = Fabric::shipped("nvidia-hgx-a100").expect("shipped");
    assert_eq!(fitted.text(), shipped_text("nvidia-hgx-a100.fitted"));
}

#[test]
fn fabrics_join_from_the_inside() {
    let two = Fabric::resolve("nvidia-hgx-h100+infiniband-ndr").expect("two levels");
    assert_eq!(two.name, "nvidia-hgx-h100+infiniband-ndr");
    assert_eq!(two.levels, [level("nvidia-hgx-h100"), level("infiniband-ndr")]);
    let lent = Fabric::resolve("nvidia-hgx-b200 + roce-400").expect("spaces do no harm");
    assert!(lent.levels.iter().all(|level| level.collectives.is_none() && level.lender.is_some()));
}

/// Each mistake is named with file, line, key, what was found and what was expected.
#[test]
fn mistakes_are_named() {
    let bare = shipped_text("nvidia-hgx-h100");
    let cases = [
        (
            "units: (value: 8,",
            "units: (value: 1,",
            "f.ron:8: levels[0].units: found 1, expected a whole number from 2 to 65536",
        ),
        ("units: (value: 8,", "units: (value: 8.5,", "f.ron:8: levels[0].units: found 8.5"),
        (
            "(value: 450,",
            "(value: -450,",
            "f.ron:9: levels[0].gb_per_s: found -450, expected a number above 0",
        ),
        ("(value: 450,", "(value: NaN,", "f.ron:9: levels[0].gb_per_s: found NaN"),
        (
            "(value: 0.6,",
            "(value: -0.6,",
            "f.ron:10: levels[0].latency_us: found -0.6, expected a number from 0",
        ),
        (
            "wiring: NvLink",
            "wiring: NVLink",
            "f.ron:7: levels.wiring: found NVLink, expected one of NvLink, Xgmi",
        ),
        ("capability: (9, 0)", "capabilty: (9, 0)", "did you mean capability?"),
        ("name: \"nvidia-hgx-h100\"", "name: \" \"", "f.ron:2: name: found \" \", expected some words"),
        (
            "            capability: (9, 0),",
            "            pair_gb_per_s: (value: 500, source: Assumed(\"a test\")),",
            "f.ron:11: levels[0].pair_gb_per_s: found 500, expected at most 450, which is gb_per_s",
        ),
        (
            "            capability: (9, 0),",
            "            lent: (from: \"nvidia-hgx-h1000\", error: (mean: 1, interval: 2), source: Assumed(\"a test\")),",
            "f.ron:11: levels[0].lent.from: found nvidia-hgx-h1000, expected one of nvidia-hgx-b200",
        ),
        (
            "            capability: (9, 0),",
            "            lent: (from: \"amd-xgmi-mi300x\", error: (mean: 1, interval: 2), source: Assumed(\"a test\")),",
            "expected a fabric whose collectives were measured",
        ),
    ];
    for (old, new, said) in cases {
        let broken = bare.replacen(old, new, 1);
        assert_ne!(broken, bare, "{old}");
        let error = Fabric::parse(&broken, "f.ron").expect_err(new).to_string();
        assert!(error.contains(said), "{new}: {error}");
    }
    // A source that says nothing, of the second level: its own line.
    let both = bare.replace(
        "    ],\n)",
        &shipped_text("infiniband-ndr")
            .split_once("levels: [\n")
            .expect("levels")
            .1
            .replace("NVIDIA DGX H100 datasheet: 8 single-port ConnectX-7 of 400 Gb/s for 8 GPUs", " "),
    );
    let error = Fabric::parse(&both, "f.ron").expect_err("an empty source").to_string();
    assert!(error.starts_with("f.ron:17: levels[1].gb_per_s: found"), "{error}");
}

#[test]
fn curves_that_no_fit_writes_are_refused() {
    let fitted = shipped_text("nvidia-hgx-h100.fitted");
    let first = "knots: [(256,4.23)";
    assert!(fitted.contains(first));
    let cases = [
        (first, "knots: [(256,9999)", "2 knots or more"),
        (first, "knots: [(256,4.23),(256,4.23)", "2 knots or more"),
        (first, "knots: [(0,1.0)", "2 knots or more"),
        ("devices: 2,", "devices: 9,", "from 2 devices to the units of the level"),
        ("devices: 2,", "devices: 4,", "each curve once"),
        ("switches: [8388608,", "switches: [88388608,", "rising switches"),
        ("mean: ", "mean: -", "none below 0"),
        (
            "gb_per_s: 450.0,\n            source: Fitted",
            "gb_per_s: 0,\n            source: Fitted",
            "collectives.gb_per_s",
        ),
    ];
    for (old, new, said) in cases {
        let broken = fitted.replacen(old, new, 1);
        assert_ne!(broken, fitted, "{old}");
        let error = Fabric::parse(&broken, "f.ron").expect_err(new).to_string();
        assert!(error.contains(said) && error.starts_with("f.ron:"), "{new}: {error}");
    }
}

/// The sizes at which engines change their way, as their sources have them.
#[test]
fn engines_go_their_ways_by_size() {
    use Way::{Custom, Nccl, Symmetric};
    let ways = |library: Library, name: &str, devices| library.ways(&level(name), devices);
    let vllm = |name, devices| ways(Library::Vllm, name, devices);
    // min(table, 8 MiB), then symmetric memory up to its own table, the limit included.
    assert_eq!(vllm("nvidia-hgx-h100", 2), [(0, Custom), (8 * MIB, Symmetric), (64 * MIB + 1, Nccl)]);
    assert_eq!(vllm("nvidia-hgx-h100", 4), [(0, Custom), (8 * MIB, Symmetric), (32 * MIB + 1, Nccl)]);
    assert_eq!(vllm("nvidia-hgx-h100", 6), [(0, Custom), (MIB / 2, Symmetric), (64 * MIB + 1, Nccl)]);
    assert_eq!(vllm("nvidia-hgx-h100", 8), [(0, Custom), (MIB / 4, Symmetric), (64 * MIB + 1, Nccl)]);
    assert_eq!(vllm("nvidia-hgx-b200", 2), [(0, Custom), (2 * MIB, Symmetric), (8 * MIB + 1, Nccl)]);
    assert_eq!(vllm("nvidia-hgx-b200", 8), [(0, Custom), (MIB, Symmetric), (128 * MIB + 1, Nccl)]);
    // No table for 8.0: the buffer alone. No kernel for three. Two devices need no links between all pairs, four do.
    assert_eq!(vllm("nvidia-hgx-a100", 8), [(0, Custom), (8 * MIB, Nccl)]);
    assert_eq!(vllm("nvidia-hgx-h100", 3), [(0, Nccl)]);
    assert_eq!(vllm("pcie4-l40s", 2), [(0, Custom), (8 * MIB, Nccl)]);
    assert_eq!(vllm("pcie4-l40s", 4), [(0, Nccl)]);
    assert_eq!(vllm("pcie4-rtx-4090", 2), [(0, Nccl)], "devices that do not reach each other's memory");
    assert_eq!(vllm("infiniband-ndr", 2), [(0, Nccl)]);
    let trtllm = |name, devices| ways(Library::Trtllm, name, devices);
    assert_eq!(trtllm("nvidia-hgx-h100", 2), [(0, Custom), (16_000_001, Nccl)]);
    assert_eq!(trtllm("nvidia-hgx-h100", 8), [(0, Custom), (8_000_001, Nccl)]);
    assert_eq!(trtllm("pcie4-l40s", 2), [(0, Nccl)], "without NVLink");
    assert_eq!(ways(Library::Nccl, "nvidia-hgx-h100", 8), [(0, Nccl)]);
    // Symmetric memory needs NVLink's switch, whatever the capability.
    let bus = Level { wiring: Wiring::Pcie, ..level("nvidia-hgx-h100") };
    assert_eq!(Library::Vllm.ways(&bus, 2), [(0, Custom), (8 * MIB, Nccl)]);
}

#[test]
fn the_program_shows_a_fabric() {
    let out = radialsim(&["inspect", "fabric", "nvidia-hgx-h100+infiniband-ndr"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let said = text(&out.stdout);
    for part in [
        "levels[1].gb_per_s",
        "NVIDIA DGX H100 datasheet",
        "all_reduce",
        "trtllm 1.3.0rc20",
        "low_latency",
        "256 MiB",
        "assumed",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let rows = said.lines().filter(|line| line.starts_with("vllm ") && line.contains("eager")).count();
    assert_eq!(rows, 4, "2, 4, 8 and 16 devices");
    refuses(
        &["inspect", "fabric", "nvidia-hgx-h100+infiniband-ndx"],
        &format!(
            "fabric: found infiniband-ndx, expected a fabric file (.ron), one of {}, or several with + between: did you mean infiniband-ndr?",
            Fabric::shipped_names().join(", ")
        ),
    );
}
