//! Fits of a model's layer tables: what is learned from them, what runs inside what, what is refused.

use crate::lab::Lab;
use radialsim::calib::{Fitted, add_layers, fit_layers, layers};
use radialsim::cost::{Device, Limits};
use radialsim::hw::Hardware;
use radialsim::kernel::{Attention, Density, Kernel};
use radialsim::units::{Dtype, SourceKind};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const B: Dtype = Dtype::Bf16;
const TOKENS: [u32; 14] = [1, 2, 4, 8, 16, 32, 64, 96, 128, 256, 512, 768, 1024, 2048];
const BATCHES: [u32; 6] = [1, 4, 16, 32, 64, 128];
const SEEN: [u32; 5] = [16, 128, 512, 2048, 4096];
const CHUNKS: [u32; 6] = [16, 64, 128, 512, 1024, 2048];

fn datasheet() -> Hardware {
    Hardware::datasheet("nvidia-rtx-4090").expect("a shipped profile")
}

fn device(hw: &Hardware) -> Device {
    Device::new(hw, Limits::default()).expect("no limits")
}

fn attention(rows: u32, decode: bool, beside: u32, pairs: u64, entries: u64) -> Kernel {
    let (heads, kv_heads, head_dim) = (32, 8, 128);
    Kernel::Attention(Attention {
        rows,
        heads,
        kv_heads,
        head_dim,
        decode,
        beside,
        waits: 0,
        pairs,
        entries,
        activations: B,
        kv: B,
    })
}

fn decode(rows: u32, seen: u32, beside: u32) -> Kernel {
    let pairs = u64::from(rows) * u64::from(seen);
    attention(rows, true, beside, pairs, pairs)
}

/// `count` chunks of `rows` behind `before` entries each.
fn chunks(count: u32, rows: u32, before: u32) -> Kernel {
    let (n, c, p) = (u64::from(count), u64::from(rows), u64::from(before));
    attention(count * rows, false, 0, n * (c * p + c * (c + 1) / 2), n * (c + p))
}

fn product(rows: u32, inner: u32, columns: u32) -> Kernel {
    Kernel::MatMul { rows, inner, columns, weights: B, inputs: B, activations: B, density: Density::Dense }
}

fn norm(rows: u32) -> Kernel {
    Kernel::Norm { rows, width: 4096, groups: 1, layer_norm: false, activations: B }
}

/// Tables of a device on which prompts beside generated tokens double what these take, and norms take three times what formulas say.
fn tables(folder: &Path) {
    let truth = device(&datasheet());
    let us = |kernel: &Kernel| truth.price(kernel).time.us();
    let (mut dense, mut sequences) =
        ("layer,tokens,time_us\n".to_owned(), "layer,sequences,time_us\n".to_owned());
    let mut attended = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n".to_owned();
    for rows in TOKENS {
        for (name, kernel, bend) in [
            ("qkv_proj", product(rows, 4096, 6144), 1.0),
            ("o_proj", product(rows, 4096, 4096), 1.2),
            ("gate_up_proj", product(rows, 4096, 28672), 1.1),
            ("down_proj", product(rows, 14336, 4096), 1.3),
            ("layernorm", norm(rows), 3.0),
            ("final_layernorm", norm(rows), 9.0),
            ("rotary_emb", Kernel::Rope { rows, heads: 40, head_dim: 128, activations: B }, 1.0),
            ("act_fn", Kernel::Activation { rows, width: 14336, gated: true, activations: B }, 1.0),
            ("embedding", Kernel::Embed { rows, width: 4096, table: B, activations: B }, 1.0),
        ] {
            writeln!(dense, "{name},{rows},{}", bend * us(&kernel)).expect("a string");
        }
        let sampler = Kernel::Sample { rows, vocabulary: 128_256, activations: B };
        writeln!(sequences, "lm_head,{rows},{}", us(&product(rows, 4096, 128_256))).expect("a string");
        writeln!(sequences, "sampler,{rows},{}", us(&sampler)).expect("a string");
    }
    for rows in BATCHES {
        for seen in SEEN {
            writeln!(attended, "0,0,{rows},{seen},{}", us(&decode(rows, seen, 0))).expect("a string");
            for chunk in CHUNKS {
                let time = us(&chunks(1, chunk, 0)) + 2.0 * us(&decode(rows, seen, 0));
                writeln!(attended, "{chunk},0,{rows},{seen},{time}").expect("a string");
            }
        }
    }
    for chunk in CHUNKS {
        for before in [0, 16, 256, 2048] {
            writeln!(attended, "{chunk},{before},0,0,{}", us(&chunks(1, chunk, before))).expect("a string");
        }
    }
    for (name, text) in [("dense", dense), ("per_sequence", sequences), ("attention", attended)] {
        std::fs::write(folder.join(format!("llama31_8b_{name}.csv")), text).expect("written");
    }
}

fn files(folder: &Path) -> layers::LayerTables {
    files_of(folder, "")
}

/// The tables among the files whose names begin so.
fn files_of(folder: &Path, prefix: &str) -> layers::LayerTables {
    let mut all: Vec<PathBuf> =
        folder.read_dir().expect("a folder").map(|entry| entry.expect("a file").path()).collect();
    all.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    all.sort();
    layers::find(folder, &all).expect("three tables").expect("they are there")
}

static LEARNED: LazyLock<(Hardware, Vec<Fitted>)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    tables(folder.path());
    let mut hw = datasheet();
    let fits = fit_layers(&mut hw, &layers::read(&files(folder.path())).expect("tables")).expect("a fit");
    (Hardware::parse(&hw.text(), "fitted.ron").expect("what is written is read"), fits)
});

#[test]
fn grids_learn_what_formulas_cannot() {
    let (hw, fits) = &*LEARNED;
    let (truth, learned) = (device(&datasheet()), device(hw));
    let near = |kernel: &Kernel, bend: f64| {
        let (was, said) = (bend * truth.price(kernel).time.s(), learned.price(kernel).time.s());
        assert!((said / was - 1.0).abs() < 0.02, "{kernel:?}: {said:e} for {was:e}");
        assert_eq!(learned.price(kernel).source, SourceKind::Fitted, "{kernel:?}");
    };
    near(&decode(32, 512, 0), 1.0);
    near(&decode(32, 512, 128), 2.0);
    near(&chunks(1, 512, 256), 1.0);
    near(&norm(512), 3.0);
    near(&product(512, 14336, 4096), 1.3);
    for fit in fits {
        let (seen, held) = (fit.seen.mean, fit.held.mean);
        // Constants cannot follow layers that are bent one by one.
        assert!(seen < if fit.name == "matmul" { 15.0 } else { 1.0 }, "{}: {seen}", fit.name);
        assert!(held < 40.0 && fit.kept.1 > 1, "{}: {held}", fit.name);
    }
    // Beyond the grid a price goes on as the formulas do, and says so.
    for kernel in [decode(32, 60_000, 0), decode(32, 512, 4096), norm(100_000), product(512, 4096, 11_008)] {
        assert_eq!(learned.price(&kernel).source, SourceKind::Extrapolated, "{kernel:?}");
    }
    let [near, far] =
        [decode(64, 4096, 0), decode(64, 8192, 0)].map(|kernel| learned.price(&kernel).time.s());
    assert!((1.5..2.5).contains(&(far / near)), "{}", far / near);
}

/// What the measured software runs inside other kernels takes no time of its own, and its energy no power beyond measure.
#[test]
fn fused_kernels_take_no_time() {
    let (hw, _) = &*LEARNED;
    let learned = device(hw);
    let add = Kernel::ResidualAdd { rows: 64, width: 4096, activations: B };
    assert_eq!(learned.price(&add).time.ps(), 0);
    let mut lab = Lab::new("llama-3.1-8b", "nvidia-rtx-4090", 4);
    lab.setup.hardware = hw.clone();
    let ledger = lab.run(&lab.trace(&crate::lab::method("Dense"), 4, 16, 4, 1));
    assert!(ledger.peak_w < 2000.0, "{} W", ledger.peak_w);
}

/// More rows, more entries, more prompts beside, more chunks: never faster.
#[test]
fn grids_are_monotone() {
    let learned = device(&LEARNED.0);
    let time = |kernel: Kernel| learned.price(&kernel).time;
    let rising = |times: Vec<radialsim::units::SimTime>| {
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{times:?}");
    };
    for beside in [0, 16, 300] {
        for other in [1, 7, 33, 100, 300] {
            rising((1..300).map(|rows| time(decode(rows, 16 * other, beside))).collect());
            rising((1..300).map(|seen| time(decode(other, 16 * seen, beside))).collect());
        }
    }
    for other in [0, 5, 100, 3000] {
        rising((1..2300).step_by(7).map(|rows| time(chunks(1, rows, other))).collect());
        rising((1..9).map(|count| time(chunks(count, 128, other))).collect());
    }
    rising((1..3000).step_by(3).map(|rows| time(norm(rows))).collect());
}

/// Numbers of blocks that fill the memory, put into a table of uneven calls, come out of it; without calls beside prompts nothing is fitted.
#[test]
fn what_fills_the_memory_is_found_again() {
    let folder = tempfile::tempdir().expect("a folder");
    tables(folder.path());
    let path = folder.path().join("llama31_8b_skew.csv");
    let learned = device(&LEARNED.0);
    let (alone, beside) = (0.55, 0.95);
    crate::sim::uneven::table(&path, &learned.filling_by((alone, beside), 32, 8), &learned);
    let fit = |hw: &mut Hardware| fit_layers(hw, &layers::read(&files(folder.path())).expect("tables"));
    let mut hw = datasheet();
    let fits = fit(&mut hw).expect("a fit");
    let found = hw.corrections.as_ref().and_then(|all| all.uneven.clone()).expect("fitted");
    // Numbers are tried a tenth apart.
    for (found, put) in [(found.alone, alone), (found.beside, beside)] {
        assert!((found / put - 1.0).abs() < 0.06, "{found} for {put}");
    }
    let uneven = fits.last().expect("fits");
    assert!(uneven.held.mean < 0.5 * uneven.constants.mean, "{uneven:?}");
    assert_eq!(Hardware::parse(&hw.text(), "fitted.ron").expect("what is written is read"), hw);
    let text = std::fs::read_to_string(&path).expect("written");
    let few: Vec<&str> =
        text.lines().filter(|line| !line.contains(",0,0,32,0") && !line.contains(",0,0,256,0")).collect();
    std::fs::write(&path, few.join("\n")).expect("written");
    let error = fit(&mut datasheet()).expect_err("no calls beside prompts").to_string();
    assert!(error.contains("calls with and without rows of prompts"), "{error}");
}

/// Two equal chunks take less than twice one and more than one; one chunk is what the table says.
#[test]
fn chunks_of_several_prompts_share_what_a_call_takes_anyway() {
    let learned = device(&LEARNED.0);
    let time = |count| learned.price(&chunks(count, 512, 100)).time.s();
    assert!(time(2) > 1.5 * time(1) && time(2) < 2.0 * time(1), "{} {}", time(1), time(2));
}

#[test]
fn broken_layer_tables_are_refused_with_line_and_column() {
    let folder = tempfile::tempdir().expect("a folder");
    tables(folder.path());
    let path = folder.path().join("llama31_8b_attention.csv");
    let whole = std::fs::read_to_string(&path).expect("written");
    for (old, new, say) in [
        ("kv_decode", "kv", "kv_decode: found prefill_chunk,kv_prefill,n_decode,kv,time_us"),
        ("\n0,0,1,16,", "\n0,0,-1,16,", ":2: n_decode: found -1, expected a whole number"),
        ("\n0,0,1,16,", "\n0,0,1,16,-", "expected microseconds above 0"),
        ("\n0,0,1,16,", "\n0,0,1,16,3,", "CSV with a header"),
    ] {
        std::fs::write(&path, whole.replacen(old, new, 1)).expect("written");
        let error = layers::read(&files(folder.path())).expect_err(new);
        assert!(error.to_string().contains(say), "{new}: {error}");
        assert!(error.to_string().contains("llama31_8b_attention.csv"), "{new}: {error}");
        assert_eq!(error.exit_code(), 2);
    }
    std::fs::write(&path, &whole).expect("written");
    let other = folder.path().join("nobody_dense.csv");
    std::fs::rename(folder.path().join("llama31_8b_dense.csv"), &other).expect("moved");
    assert!(layers::read(&files(folder.path())).expect_err("no model").to_string().contains("llama-3.1-8b"));
    std::fs::remove_file(&path).expect("removed");
    let error = layers::find(folder.path(), &[other]).expect_err("two tables are missing");
    assert!(error.to_string().contains("_per_sequence.csv"), "{error}");
}

/// The shipped fits say which tables they rest on, and how wrong they were on what was kept aside: fitted anew, they are the same.
#[test]
fn shipped_layer_fits_come_from_their_tables() {
    for (name, folder) in [("nvidia-rtx-4090", "rtx4090"), ("nvidia-rtx-pro-6000", "rtxpro6000")] {
        let shipped = Hardware::shipped(name).expect("a shipped profile");
        assert!(shipped.text().len() <= 256 * 1024, "{name}: {} bytes", shipped.text().len());
        let Some(folder) = crate::data(&format!("timings/{folder}")) else { return };
        let mut hw = Hardware::datasheet(name).expect("a shipped profile");
        // Tables of other models may lie beside those that were fitted.
        let tables = files_of(&folder, "llama31_8b_");
        fit_layers(&mut hw, &layers::read(&tables).expect("tables")).expect("a fit");
        let added: &[&str] =
            if name == "nvidia-rtx-pro-6000" { &["qwen3_32b_tp1_", "qwen3_32b_tp2_"] } else { &[] };
        for prefix in added {
            let tables = layers::read(&files_of(&folder, prefix)).expect("tables");
            add_layers(&mut hw, &tables).expect("new shapes");
        }
        assert!(hw.text() == shipped.text(), "{name} is another fit: run scripts/validation/serving");
    }
}

/// Times that belong to other shapes, and grids with too few numbers.
#[test]
fn tables_that_explain_nothing_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    tables(folder.path());
    let path = folder.path().join("llama31_8b_attention.csv");
    let whole = std::fs::read_to_string(&path).expect("written");
    let refuse = |text: String, say: &str| {
        std::fs::write(&path, text).expect("written");
        let read = layers::read(&files(folder.path())).expect("tables");
        let error = fit_layers(&mut datasheet(), &read).expect_err(say).to_string();
        assert!(error.contains(say), "{error}");
    };
    let (header, rows) = whole.split_once('\n').expect("a header");
    let rows: Vec<(&str, &str)> = rows.lines().map(|row| row.rsplit_once(',').expect("a time")).collect();
    let shuffled =
        (0..).zip(&rows).map(|(row, (shape, _))| format!("\n{shape},{}", rows[row * 101 % rows.len()].1));
    refuse(header.to_owned() + &shuffled.collect::<String>(), "of the variance of its logarithm explained");
    let few = whole
        .lines()
        .filter(|row| !row.starts_with("0,") || row.starts_with("0,0,1,") || row.starts_with("0,0,4,"));
    refuse(few.collect::<Vec<_>>().join("\n"), "2 of rows");
}

#[test]
fn broken_grids_are_refused() {
    let text = LEARNED.0.text();
    for (old, new) in
        [("grid: [", "grid: [1,"), ("beside: [16, 64,", "beside: [64, 16,"), ("grid: [", "grid: [999999999,")]
    {
        let broken = text.replacen(old, new, 1);
        assert_ne!(broken, text, "{old} is in the text");
        assert!(Hardware::parse(&broken, "broken.ron").is_err(), "{new}");
    }
}
