//! Layers of further models on a device that knows those of one, and sums of whole passes.

use radialsim::calib::{PassKind, add_layers, fit_layers, layers, passes, passes_left_out};
use radialsim::cost::{Device, Limits};
use radialsim::hw::Hardware;
use radialsim::kernel::{Attention, Density, Kernel};
use radialsim::model::{Model, QkNorm};
use radialsim::units::{Dtype, SourceKind};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const B: Dtype = Dtype::Bf16;
const TOKENS: [u32; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048];
const BATCHES: [u32; 6] = [1, 4, 16, 32, 64, 128];
const SEEN: [u32; 5] = [16, 128, 512, 2048, 4096];
const CHUNKS: [u32; 6] = [16, 64, 128, 512, 1024, 2048];

fn device(hw: &Hardware) -> Device {
    Device::new(hw, Limits::default()).expect("no limits")
}

fn attention(model: &Model, rows: u32, decode: bool, beside: u32, pairs: u64, entries: u64) -> Kernel {
    let (heads, kv_heads, head_dim) = (model.heads as u16, model.kv_heads as u16, model.head_dim as u16);
    let (activations, kv, waits) = (B, B, 0);
    Kernel::Attention(Attention {
        rows,
        heads,
        kv_heads,
        head_dim,
        decode,
        beside,
        waits,
        pairs,
        entries,
        activations,
        kv,
    })
}

fn decode(model: &Model, rows: u32, seen: u32, beside: u32) -> Kernel {
    let pairs = u64::from(rows) * u64::from(seen);
    attention(model, rows, true, beside, pairs, pairs)
}

fn chunk(model: &Model, rows: u32, before: u32) -> Kernel {
    let (c, p) = (u64::from(rows), u64::from(before));
    attention(model, rows, false, 0, c * p + c * (c + 1) / 2, c + p)
}

/// Tables of a model, each kernel `bend` times what the data sheet says; `rows`: of qk_norm, half of what both norms take.
fn tables(folder: &Path, name: &str, model: &Model, bend: f64) {
    let truth = device(&Hardware::datasheet("nvidia-rtx-pro-6000").expect("shipped"));
    let us = |kernel: &Kernel| bend * truth.price(kernel).time.us();
    let (mut dense, mut sequences) =
        ("layer,tokens,time_us\n".to_owned(), "layer,sequences,time_us\n".to_owned());
    let mut attended = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n".to_owned();
    let (hidden, ffn, q_dim) = (model.hidden as u32, model.ffn as u32, model.q_dim() as u32);
    let heads = (model.heads + model.kv_heads) as u32;
    let product = |rows, inner, columns| Kernel::product(rows, [inner, columns], B, B, Density::Dense);
    let norm = |rows, width| Kernel::Norm { rows, width, groups: 1, layer_norm: false, activations: B };
    for rows in TOKENS {
        for (name, kernel, share) in [
            ("qkv_proj", product(rows, hidden, q_dim + 2 * model.kv_dim() as u32), 1.0),
            ("o_proj", product(rows, q_dim, hidden), 1.0),
            ("gate_up_proj", product(rows, hidden, 2 * ffn), 1.0),
            ("down_proj", product(rows, ffn, hidden), 1.0),
            ("layernorm", norm(rows, hidden), 1.0),
            ("qk_norm", norm(rows * heads, model.head_dim as u32), 0.5),
            (
                "rotary_emb",
                Kernel::Rope { rows, heads, head_dim: model.head_dim as u32, activations: B },
                1.0,
            ),
            ("act_fn", Kernel::Activation { rows, width: ffn, gated: true, activations: B }, 1.0),
            ("embedding", Kernel::Embed { rows, width: hidden, table: B, activations: B }, 1.0),
        ] {
            if name == "qk_norm" && model.qk_norm == QkNorm::None {
                continue;
            }
            writeln!(dense, "{name},{rows},{}", share * us(&kernel)).expect("a string");
        }
        let vocabulary = model.outputs as u32;
        let sampler = Kernel::Sample { rows, vocabulary, activations: B };
        let head = product(rows, hidden, model.own_outputs() as u32);
        writeln!(sequences, "lm_head,{rows},{}", us(&head)).expect("a string");
        writeln!(sequences, "sampler,{rows},{}", us(&sampler)).expect("a string");
    }
    for rows in BATCHES {
        for seen in SEEN {
            writeln!(attended, "0,0,{rows},{seen},{}", us(&decode(model, rows, seen, 0))).expect("a string");
            for rows_of_chunk in CHUNKS {
                let time = us(&chunk(model, rows_of_chunk, 0)) + us(&decode(model, rows, seen, 0));
                writeln!(attended, "{rows_of_chunk},0,{rows},{seen},{time}").expect("a string");
            }
        }
    }
    for rows in CHUNKS {
        for before in [0, 16, 256, 2048] {
            writeln!(attended, "{rows},{before},0,0,{}", us(&chunk(model, rows, before))).expect("a string");
        }
    }
    for (kind, text) in [("dense", dense), ("per_sequence", sequences), ("attention", attended)] {
        std::fs::write(folder.join(format!("{name}_{kind}.csv")), text).expect("written");
    }
}

fn read(folder: &Path, name: &str) -> layers::Layers {
    let grids = ["dense", "per_sequence", "attention"].map(|kind| folder.join(format!("{name}_{kind}.csv")));
    layers::read(&layers::LayerTables { grids, uneven: None }).expect("tables")
}

/// A profile fitted to Llama's layers as the data sheet has them, and tables of Qwen3-32B that are slower, on one device and on each of two.
fn three(folder: &Path) -> (Hardware, layers::Layers, layers::Layers) {
    let (llama, qwen) = (Model::builtin("llama-3.1-8b"), Model::builtin("qwen3-32b").expect("built in"));
    tables(folder, "llama31_8b", &llama.expect("built in"), 1.0);
    tables(folder, "qwen3_32b_tp1", &qwen, 1.7);
    tables(folder, "qwen3_32b_tp2", &qwen.shard(2).expect("even"), 0.6);
    let mut hw = Hardware::datasheet("nvidia-rtx-pro-6000").expect("shipped");
    fit_layers(&mut hw, &read(folder, "llama31_8b")).expect("a fit");
    (hw, read(folder, "qwen3_32b_tp1"), read(folder, "qwen3_32b_tp2"))
}

/// Shapes that are added are learned, each on its own, and nothing else changes.
#[test]
fn shapes_are_added_and_others_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let (before, one, two) = three(folder.path());
    let mut hw = before.clone();
    add_layers(&mut hw, &one).expect("new shapes");
    let first = hw.clone();
    add_layers(&mut hw, &two).expect("new shapes");
    let hw = Hardware::parse(&hw.text(), "fitted.ron").expect("what is written is read");
    assert_eq!(hw.kernels, before.kernels, "constants stay");
    let truth = device(&Hardware::datasheet("nvidia-rtx-pro-6000").expect("shipped"));
    let (old, new, middle) = (device(&before), device(&hw), device(&first));
    let (llama, qwen) =
        (Model::builtin("llama-3.1-8b").expect("built in"), Model::builtin("qwen3-32b").expect("built in"));
    let half = qwen.shard(2).expect("even");
    let norm = |rows, width| Kernel::Norm { rows, width, groups: 1, layer_norm: false, activations: B };
    for (model, bend) in [(&qwen, 1.7), (&half, 0.6)] {
        for kernel in [
            decode(model, 32, 512, 0),
            decode(model, 32, 512, 128),
            chunk(model, 512, 256),
            Kernel::product(64, [model.hidden as u32, 2 * model.ffn as u32], B, B, Density::Dense),
            Kernel::Activation { rows: 64, width: model.ffn as u32, gated: true, activations: B },
            Kernel::Rope {
                rows: 64,
                heads: (model.heads + model.kv_heads) as u32,
                head_dim: 128,
                activations: B,
            },
        ] {
            let (said, was) = (new.price(&kernel), bend * truth.price(&kernel).time.s());
            let near =
                if matches!(kernel, Kernel::Attention(shape) if shape.beside > 0) { 0.3 } else { 0.03 };
            assert!((said.time.s() / was - 1.0).abs() < near, "{kernel:?}: {:e} for {was:e}", said.time.s());
            assert_eq!(said.source, SourceKind::Fitted, "{kernel:?}");
            assert_ne!(old.price(&kernel).source, SourceKind::Fitted, "the control: {kernel:?}");
        }
    }
    // Both norms of heads together: twice the row of the table of one device; that of two repeats it and is not read.
    let heads = norm(64 * 72, 128);
    assert!((new.price(&heads).time.s() / (1.7 * truth.price(&heads).time.s()) - 1.0).abs() < 0.03);
    assert_eq!(new.price(&heads), middle.price(&heads));
    for kernel in [decode(&llama, 32, 512, 0), chunk(&llama, 512, 256), norm(64, 4096)] {
        assert_eq!(new.price(&kernel), old.price(&kernel), "{kernel:?}");
    }
    let again = add_layers(&mut hw.clone(), &one).expect_err("it has them").to_string();
    assert!(again.contains("shapes that the profile does not have yet"), "{again}");
    let mut bare = Hardware::datasheet("nvidia-rtx-pro-6000").expect("shipped");
    let none = add_layers(&mut bare, &one).expect_err("no layers").to_string();
    assert!(none.contains("fitted to the layers of a model"), "{none}");
}

/// Sums of passes: a profile that knows all rows is right about them, one that knows other shapes is off by what these are bent; with rows left out the
/// error lies between. The sums are those of a plain addition.
#[test]
fn whole_passes_add_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let (before, one, _) = three(folder.path());
    let mut hw = before.clone();
    add_layers(&mut hw, &one).expect("new shapes");
    let mean = |sums: &[radialsim::calib::PassSum], kind: PassKind| {
        let of: Vec<f64> =
            sums.iter().filter(|sum| sum.kind == kind).map(|sum| (sum.said / sum.was - 1.0).abs()).collect();
        assert!(!of.is_empty());
        of.iter().sum::<f64>() / of.len() as f64
    };
    let (knows, knew) = (passes(&hw, &one).expect("prices"), passes(&before, &one).expect("prices"));
    let left = passes_left_out(&hw, &one).expect("fits");
    for kind in [PassKind::Decode, PassKind::Prefill] {
        assert!(mean(&knows, kind) < 0.01, "{kind:?}: {}", mean(&knows, kind));
        assert!(mean(&knew, kind) > 0.3, "the control, {kind:?}: {}", mean(&knew, kind));
        assert!(
            mean(&left, kind) < 0.1 && mean(&left, kind) > mean(&knows, kind),
            "{kind:?}: {}",
            mean(&left, kind)
        );
    }
    // 32 sequences at 512 entries: 64 layers of two norms and one of each other kernel, a last norm, embedding, head, sampler.
    let truth = device(&Hardware::datasheet("nvidia-rtx-pro-6000").expect("shipped"));
    let model = Model::builtin("qwen3-32b").expect("built in");
    let s = |kernel: Kernel| 1.7 * truth.price(&kernel).time.s();
    let product = |inner, columns| Kernel::product(32, [inner, columns], B, B, Density::Dense);
    let norm = |rows, width| Kernel::Norm { rows, width, groups: 1, layer_norm: false, activations: B };
    let layer = s(product(5120, 10240))
        + s(product(8192, 5120))
        + s(product(5120, 51200))
        + s(product(25600, 5120))
        + 2.0 * s(norm(32, 5120))
        + s(norm(32 * 72, 128))
        + s(Kernel::Rope { rows: 32, heads: 72, head_dim: 128, activations: B })
        + s(Kernel::Activation { rows: 32, width: 25600, gated: true, activations: B })
        + s(decode(&model, 32, 512, 0));
    let naive = 64.0 * layer
        + s(norm(32, 5120))
        + s(Kernel::Embed { rows: 32, width: 5120, table: B, activations: B })
        + s(product(5120, 151_936))
        + s(Kernel::Sample { rows: 32, vocabulary: 151_936, activations: B });
    let one =
        knows.iter().find(|sum| sum.call.decode == (32, 512) && sum.call.chunk.0 == 0).expect("measured");
    assert!((one.was / naive - 1.0).abs() < 1e-4, "{} for {naive}", one.was);
}

/// The command, on the tables and on what is none.
#[test]
fn the_command_prints_whole_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    let _ = three(folder.path());
    let file = |name: &str| -> PathBuf { folder.path().join(name) };
    let run = |file: &Path, more: &[&str]| {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_radialsim"))
            .args(["validate", "operators", "--hw", "nvidia-rtx-pro-6000"])
            .arg(file)
            .args(more)
            .output()
            .expect("it runs");
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr),
        )
    };
    let (code, said) = run(&file("qwen3_32b_tp1_attention.csv"), &[]);
    assert!(
        code == Some(0) && said.contains("generated tokens") && said.contains("a chunk of a prompt"),
        "{said}"
    );
    let (code, said) = run(&file("qwen3_32b_tp1_attention.csv"), &["--gate", "0.001"]);
    assert!(code == Some(1) && said.contains("whole passes are off by"), "{said}");
    let (code, said) = run(&file("qwen3_32b_tp1_attention.csv"), &["--interval", "5"]);
    assert!(code == Some(2) && said.contains("interval"), "{said}");
    let (code, said) = run(&file("qwen3_32b_tp1_dense.csv"), &["--leave-out"]);
    assert!(code == Some(2) && said.contains("leave-out"), "{said}");
    std::fs::remove_file(file("qwen3_32b_tp1_per_sequence.csv")).expect("removed");
    let (code, said) = run(&file("qwen3_32b_tp1_attention.csv"), &[]);
    assert!(code == Some(2) && said.contains("per_sequence"), "{said}");
}
