//! Profiles of devices: every shipped one is sound, and what no device can have is refused with the key named.

use proptest::prelude::*;
use radialsim::hw::{Hardware, Source};
use std::collections::BTreeSet;

/// The text of one shipped profile, to be spoilt.
fn h100() -> String {
    std::fs::read_to_string("hw-profiles/nvidia-h100-sxm.ron").expect("shipped")
}

/// The H100 profile with `from` replaced by `to` once, and what is said about it.
fn spoilt(from: &str, to: &str) -> String {
    let text = h100();
    assert!(text.contains(from), "{from:?} is not in the profile");
    said(&text.replacen(from, to, 1))
}

fn said(text: &str) -> String {
    Hardware::parse(text, "x.ron").expect_err("refused").to_string()
}

fn all() -> Vec<Hardware> {
    let names = Hardware::shipped_names();
    names.into_iter().map(|name| Hardware::datasheet(name).expect(name)).collect()
}

#[test]
fn every_shipped_profile_is_sound() {
    for hardware in all() {
        assert_eq!(hardware.check(), Ok(()), "{}", hardware.name);
        for (key, number) in hardware.numbers() {
            let words = number.source.text();
            assert!(words.len() > 5, "{}: {key}: source {words:?} says nothing", hardware.name);
        }
    }
}

#[test]
fn files_and_table_agree() {
    let files: BTreeSet<String> = std::fs::read_dir("hw-profiles")
        .expect("hw-profiles")
        .map(|entry| entry.expect("entry").path())
        // What was measured and what joins devices lie in folders of their own.
        .filter(|path| !path.ends_with("records") && !path.ends_with("fabrics"))
        .map(|path| {
            assert_eq!(path.extension().and_then(|e| e.to_str()), Some("ron"), "{}", path.display());
            path.file_stem().expect("stem").to_str().expect("UTF-8").to_owned()
        })
        // Each fitted profile belongs to a datasheet one; `fit.rs` holds it to its errors.
        .map(|stem| stem.trim_end_matches(".fitted").to_owned())
        .collect();
    let table: BTreeSet<String> = Hardware::shipped_names().iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(files, table);
    for name in table {
        let shipped = Hardware::datasheet(&name).expect("shipped");
        assert_eq!(shipped.name, name);
        let loaded = Hardware::load(format!("hw-profiles/{name}.ron")).expect("loaded");
        assert_eq!(shipped, loaded);
    }
}

#[test]
fn numbers_walks_every_number_once() {
    let hardware = Hardware::datasheet("nvidia-b200-sxm").expect("shipped");
    let keys: Vec<String> = hardware.numbers().into_iter().map(|(key, _)| key).collect();
    let distinct: BTreeSet<&String> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
    // As many as the file has; B200 has every optional one.
    let text = std::fs::read_to_string("hw-profiles/nvidia-b200-sxm.ron").expect("shipped");
    assert_eq!(keys.len(), text.matches("(value: ").count());
    assert!(keys.contains(&"kernels.gather.fixed_us".to_owned()));
    assert!(keys.contains(&"links.peer_gb_per_s".to_owned()));
}

/// Flops for each byte at which arithmetic and memory take the same time. A peak with sparsity or a unit slip leaves the band.
#[test]
fn ridge_points_are_plausible() {
    for hardware in all().into_iter().filter(|h| h.name != "ideal") {
        let ridge = hardware.compute.matrix_f16_tflops.value * 1e3 / hardware.memory.dram_gb_per_s.value;
        let band = match hardware.name.as_str() {
            "generic-cpu-2core" => 4.0..20.0,
            // Reads through gather instructions are slow on some processors.
            "mesa-llvmpipe-1-thread" => 4.0..100.0,
            _ => 100.0..430.0,
        };
        assert!(band.contains(&ridge), "{}: ridge point {ridge:.0} flops per byte", hardware.name);
    }
}

/// Peak = units x flops a cycle x clock, with the flops a cycle that the generation is known for.
#[test]
fn matrix_peaks_follow_from_units_and_clock() {
    for (name, flops_per_cycle) in [
        ("nvidia-v100-sxm", 1024.0),
        ("nvidia-t4", 1024.0),
        ("nvidia-a100-sxm-80gb", 2048.0),
        ("nvidia-jetson-orin", 2048.0),
        ("nvidia-h100-sxm", 4096.0),
        ("nvidia-h100-pcie", 4096.0),
        ("nvidia-h200-sxm", 4096.0),
        ("nvidia-b200-sxm", 8192.0),
        ("nvidia-l4", 1024.0),
        ("nvidia-l40s", 1024.0),
        ("nvidia-rtx-4090", 512.0),
        ("nvidia-rtx-pro-6000", 1024.0),
        ("amd-mi210", 1024.0),
        ("amd-mi250", 1024.0),
        ("amd-mi300x", 2048.0),
        ("google-tpu-v5e", 32768.0),
    ] {
        let compute = Hardware::datasheet(name).expect(name).compute;
        let peak = compute.units.value * compute.boost_clock_mhz.value * flops_per_cycle / 1e6;
        let ratio = compute.matrix_f16_tflops.value / peak;
        assert!((0.97..1.03).contains(&ratio), "{name}: printed peak is {ratio:.3} of {peak:.1}");
    }
}

#[test]
fn known_relations_hold() {
    let get = |name: &str| Hardware::datasheet(name).expect(name);
    for name in [
        "nvidia-h100-sxm",
        "nvidia-h100-pcie",
        "nvidia-h200-sxm",
        "nvidia-b200-sxm",
        "nvidia-l4",
        "nvidia-l40s",
        "nvidia-rtx-4090",
        "nvidia-rtx-pro-6000",
        "amd-mi300x",
    ] {
        let compute = get(name).compute;
        let ratio = compute.matrix_fp8_tflops.expect(name).value / compute.matrix_f16_tflops.value;
        assert!((1.97..2.03).contains(&ratio), "{name}: fp8 is {ratio:.3} x f16");
    }
    for name in [
        "nvidia-a100-sxm-80gb",
        "nvidia-v100-sxm",
        "nvidia-t4",
        "nvidia-jetson-orin",
        "amd-mi210",
        "amd-mi250",
        "google-tpu-v5e",
    ] {
        assert!(get(name).compute.matrix_fp8_tflops.is_none(), "{name} has no 8-bit floats");
    }
    let (h100, h200) = (get("nvidia-h100-sxm"), get("nvidia-h200-sxm"));
    assert_eq!(h100.compute.units.value, h200.compute.units.value);
    assert_eq!(h100.compute.matrix_f16_tflops.value, h200.compute.matrix_f16_tflops.value);
    assert!(h200.memory.dram_gb_per_s.value > 1.4 * h100.memory.dram_gb_per_s.value);
    let (large, small) = (get("nvidia-a100-sxm-80gb"), get("nvidia-a100-sxm-40gb"));
    assert_eq!(large.compute, small.compute);
    assert!((large.memory.capacity_gb.value - 2.0 * small.memory.capacity_gb.value).abs() < 0.01);
    // The whole MI250 is two of these.
    assert_eq!(get("amd-mi250").compute.units.value, 104.0);
}

/// The table of `docs/HARDWARE.md` is what the profiles say; the failure message shows the table to put there.
#[test]
fn table_in_the_docs_is_current() {
    let mut table = String::from(
        "| name | 16-bit TFLOPS | 8-bit float TFLOPS | memory, GB | GB/s | power limit, W | numbers assumed |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for h in all() {
        let fp8 = h.compute.matrix_fp8_tflops.as_ref();
        let fp8 = fp8.map_or("none".to_owned(), |number| number.value.to_string());
        table += &format!(
            "| `{}` | {} | {fp8} | {:.1} | {} | {} | {} of {} |\n",
            h.name,
            h.compute.matrix_f16_tflops.value,
            h.memory.capacity_gb.value,
            h.memory.dram_gb_per_s.value,
            h.power.limit_w.value,
            h.assumed().iter().filter(|assumption| assumption.key != "compute.tiles").count(),
            h.numbers().len(),
        );
    }
    let docs = std::fs::read_to_string("docs/HARDWARE.md").expect("docs/HARDWARE.md");
    assert!(docs.contains(&table), "the table in docs/HARDWARE.md should be\n{table}");
}

/// What nobody publishes must not pass for a datasheet figure.
#[test]
fn no_datasheet_states_what_vendors_do_not_publish() {
    for hardware in all() {
        for (key, number) in hardware.numbers() {
            let unpublished = key.starts_with("kernels.")
                || key.starts_with("launch.")
                || key.starts_with("power.") && key != "power.limit_w";
            let datasheet = matches!(number.source, Source::Datasheet(_));
            assert!(!(unpublished && datasheet), "{}: {key} claims a datasheet", hardware.name);
        }
    }
}

#[test]
fn ideal_device_is_a_pure_roofline() {
    let ideal = Hardware::datasheet("ideal").expect("ideal");
    assert_eq!(ideal.memory.dram_gb_per_s.value, 1000.0);
    for (key, number) in ideal.numbers() {
        let want = match key.rsplit('.').next().expect("key") {
            "flops" | "bytes" | "overlap" => 1.0,
            last if last.ends_with("_us") => 0.0,
            _ => continue,
        };
        assert_eq!(number.value, want, "{key}");
    }
    assert_eq!(ideal.assumed().len(), ideal.numbers().len() + 1, "all of it is assumed, tiles too");
}

#[test]
fn assumptions_are_listed_with_their_reasons() {
    let hardware = Hardware::datasheet("nvidia-h100-sxm").expect("shipped");
    let assumed = hardware.assumed();
    let usable = assumed.iter().find(|a| a.key == "memory.usable_fraction").expect("assumed");
    assert_eq!((usable.value.as_str(), usable.text), ("0.9", "default gpu_memory_utilization of vLLM"));
    assert!(assumed.iter().all(|a| a.key != "memory.dram_gb_per_s"), "that one is published");
    assert!(assumed.iter().any(|a| a.key == "compute.tiles" && a.value.starts_with("64x64, ")));
}

#[test]
fn impossible_numbers_are_refused_by_key_and_line() {
    let bandwidth = "dram_gb_per_s: (value: 3350,";
    for (bad, found) in [
        ("NaN", "NaN"),
        ("inf", "inf"),
        ("-inf", "-inf"),
        ("-5", "-5"),
        ("0", "0"),
        ("1e300", "1000000000000"),
    ] {
        let said = spoilt(bandwidth, &format!("dram_gb_per_s: (value: {bad},"));
        assert!(said.starts_with("x.ron:23: memory.dram_gb_per_s: found "), "{said}");
        assert!(said.contains(found) && said.ends_with("expected a number above 0, at most 1e12"), "{said}");
    }
    for (from, to, want) in [
        (
            "units: (value: 132,",
            "units: (value: 131.5,",
            "x.ron:6: compute.units: found 131.5, expected a whole number from 1 to 65536",
        ),
        (
            "usable_fraction: (value: 0.9,",
            "usable_fraction: (value: 1.1,",
            "x.ron:22: memory.usable_fraction: found 1.1, expected a number above 0, at most 1",
        ),
        (
            "runtime_gb: (value: 0.65,",
            "runtime_gb: (value: -0.65,",
            "x.ron:21: memory.runtime_gb: found -0.65, expected a number from 0 to 1e12",
        ),
        (
            "overlap: (value: 0.706,",
            "overlap: (value: -0.1,",
            "x.ron:49: kernels.matmul.overlap: found -0.1, expected a number from 0 to 1",
        ),
        (
            "flops: (value: 0.866,",
            "flops: (value: 1.6,",
            "x.ron:46: kernels.matmul.flops: found 1.6, expected a number above 0, at most 1.5",
        ),
        (
            "static_w: (value: 215,",
            "static_w: (value: 60,",
            "x.ron:40: power.static_w: found 60, expected at least 70, which is power.idle_w",
        ),
        (
            "limit_w: (value: 700,",
            "limit_w: (value: 215,",
            "x.ron:38: power.limit_w: found 215, expected more than 215, which is power.static_w",
        ),
        (
            "matrix_fp8_tflops: (value: 1978.9,",
            "matrix_fp8_tflops: (value: 500,",
            "x.ron:13: compute.matrix_fp8_tflops: found 500, expected at least 989.4, which is compute.matrix_f16_tflops",
        ),
        (
            "l2_gb_per_s: (value: 5500,",
            "l2_gb_per_s: (value: 500,",
            "x.ron:25: memory.l2_gb_per_s: found 500, expected at least 3350, which is memory.dram_gb_per_s",
        ),
        (
            "tiles: [(64, 64), (64, 128), (128, 64), (128, 128), (128, 256), (256, 128)]",
            "tiles: []",
            "x.ron:15: compute.tiles: found 0 tiles, expected 1 to 64 tiles",
        ),
        (
            "(64, 64)",
            "(64, 0)",
            "x.ron:15: compute.tiles: found (64, 0), expected rows and columns from 1 to 1024",
        ),
        (
            "(64, 64)",
            "(1025, 64)",
            "x.ron:15: compute.tiles: found (1025, 64), expected rows and columns from 1 to 1024",
        ),
        (
            "\"default gpu_memory_utilization of vLLM\"",
            "\" \"",
            "x.ron:22: memory.usable_fraction: found \" \", expected a source that says who says so: a document, a table, or the reasoning",
        ),
        ("name: \"nvidia-h100-sxm\"", "name: \"\"", "x.ron:3: name: found \"\", expected some words"),
    ] {
        assert_eq!(spoilt(from, to), want);
    }
}

#[test]
fn malformed_profiles_are_refused_by_line() {
    for (from, to, want) in [
        (
            ", source: Assumed(\"default gpu_memory_utilization of vLLM\")",
            "",
            "x.ron:22: memory.usable_fraction: expected the key `source`, which is missing",
        ),
        (
            "l2_mb:",
            "l3_mb:",
            "x.ron:24: memory.l3_mb: found an unknown key, expected one of capacity_gb, runtime_gb, usable_fraction, dram_gb_per_s, l2_mb, l2_gb_per_s, l2_peak_gb_per_s, l2_parts: did you mean l2_mb?",
        ),
        (
            "source: Assumed(\"default",
            "source: Guessed(\"default",
            "x.ron:22: memory.usable_fraction: found Guessed, expected one of Measured, Fitted, Datasheet, Assumed",
        ),
        (
            "dram_gb_per_s: (value: 3350,",
            "dram_gb_per_s: (value: \"3350\",",
            "x.ron:23: memory.dram_gb_per_s: expected float",
        ),
    ] {
        assert_eq!(spoilt(from, to), want);
    }
    let text = h100();
    let kernels = text.find("    kernels").expect("kernels");
    assert_eq!(said(&text[..kernels]), "x.ron:43: found Unexpected end of RON, expected a profile in RON");
    assert_eq!(said(""), "x.ron:1: expected opening `(` for struct `Hardware`");
    assert_eq!(
        said(&format!("{text}1")),
        "x.ron:81: found Non-whitespace trailing characters, expected a profile in RON"
    );
}

#[test]
fn hostile_nesting_is_refused() {
    for (open, count) in [
        ("(", 200_000),
        ("[", 200_000),
        ("/*", 200_000),
        ("Some(", 100_000),
        ("(name:", 100_000),
        ("r####\"", 100_000),
    ] {
        said(&open.repeat(count));
        said(&format!("(name: {}", open.repeat(count)));
    }
}

#[test]
fn large_odd_and_absent_files_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("large.ron");
    std::fs::write(&path, vec![b' '; (1 << 20) + 1]).expect("written");
    let said = Hardware::load(&path).expect_err("too large").to_string();
    assert!(
        said.ends_with("large.ron: found 1048577 bytes, expected a profile of at most 1048576 bytes"),
        "{said}"
    );
    std::fs::write(&path, b"(\n\xff").expect("written");
    let said = Hardware::load(&path).expect_err("not text").to_string();
    assert!(said.ends_with("large.ron:2: found other bytes, expected UTF-8 text"), "{said}");
    for odd in [folder.path().join("absent.ron"), folder.path().to_owned()] {
        let error = Hardware::load(&odd).expect_err("refused");
        assert!(error.to_string().contains(": cannot "), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[cfg(unix)]
#[test]
fn endless_files_are_refused() {
    let said = Hardware::load("/dev/zero").expect_err("endless").to_string();
    assert_eq!(said, "/dev/zero: found more, expected a profile of at most 1048576 bytes");
}

#[test]
fn names_and_paths_resolve() {
    assert_eq!(Hardware::resolve("nvidia-l4").expect("name").name, "nvidia-l4");
    let said = Hardware::resolve("nvidia-l5").expect_err("unknown").to_string();
    let names = Hardware::shipped_names().join(", ");
    assert_eq!(
        said,
        format!(
            "hardware: found nvidia-l5, expected a profile file (.ron) or one of {names}: did you mean nvidia-l4?"
        )
    );
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("mine.ron");
    let fitted = folder.path().join("mine.fitted.ron");
    let resolve = |path: &std::path::Path| Hardware::resolve(path.to_str().expect("UTF-8"));
    assert!(resolve(&path).is_err(), "an absent file is not a name");
    std::fs::write(&path, h100()).expect("written");
    assert_eq!(resolve(&path).expect("file").memory.dram_gb_per_s.value, 3350.0);
    std::fs::write(&fitted, h100().replace("(value: 3350,", "(value: 3000,")).expect("written");
    assert_eq!(resolve(&path).expect("fitted wins").memory.dram_gb_per_s.value, 3000.0);
    assert_eq!(resolve(&fitted).expect("itself").memory.dram_gb_per_s.value, 3000.0);
    assert_eq!(Hardware::load(&path).expect("as named").memory.dram_gb_per_s.value, 3350.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Spoilt text is read or refused; it never panics, and what is read has passed every check.
    #[test]
    fn spoilt_text_never_panics(cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), "[(){}\\[\\]:,\"/*\\\\#!-9a-zA-Zé\\n]{0,6}"), 1..4)) {
        let mut text = h100();
        for (at, length, new) in cuts {
            let mut start = at.index(text.len());
            while !text.is_char_boundary(start) { start -= 1; }
            let mut end = (start + length.index(40)).min(text.len());
            while !text.is_char_boundary(end) { end += 1; }
            text.replace_range(start..end, &new);
        }
        match Hardware::parse(&text, "x.ron") {
            Ok(hardware) => prop_assert_eq!(hardware.check(), Ok(())),
            Err(error) => prop_assert!(error.to_string().starts_with("x.ron:")),
        }
    }
}
