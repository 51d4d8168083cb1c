//! Measured operators of a layer: which call each column is, what a bad table is told, and how far shipped profiles lie from another
//! source than the one they were fitted to.

use crate::cli::{folder, radialsim, text};
use radialsim::calib::{MeasuredOperator, PercentErrors, read_layers};
use radialsim::cost::{Device, Limits};
use radialsim::hw::Hardware;
use radialsim::kernel::Kernel;
use std::path::{Path, PathBuf};

const HEADER: &str = "time_stats.attn_pre_proj.median,time_stats.attn_post_proj.median,time_stats.mlp_up_proj.median,\
    time_stats.mlp_down_proj.median,time_stats.attn_rope.median,time_stats.add.median,n_head,n_kv_head,n_embd,n_expanded_embd,\
    vocab_size,use_gated_mlp,num_tokens,num_tensor_parallel_workers";

/// Mistral-7B on two workers: 32 heads of 128 over 8 KV heads, inner width 14336.
const ROW: &str = "0.1,0.2,0.3,0.4,0.5,0.6,32,8,4096,14336,32000,True,24,2";

fn written(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("mlp.csv");
    std::fs::write(&path, text).expect("written");
    path
}

#[test]
fn each_operator_is_the_call_of_one_worker() {
    let folder = folder();
    let path = written(folder.path(), &format!("{HEADER}\n{ROW}\n"));
    let measured = read_layers(&path).expect("a table");
    let said: Vec<(&str, f64, [u32; 3])> = measured
        .iter()
        .map(|operator| {
            let Kernel::MatMul { rows, inner, columns, .. } = operator.rows[0].kernel else {
                return (operator.operator, operator.rows[0].seconds, [0; 3]);
            };
            (operator.operator, operator.rows[0].seconds, [rows, inner, columns])
        })
        .collect();
    // By hand: queries, keys and values of 16 heads and 2 x 4 KV heads; gate and up of half the inner width.
    let expected = [
        ("attn_pre_proj", 1e-4, [24, 4096, 16 * 128 + 2 * 4 * 128]),
        ("attn_post_proj", 2e-4, [24, 2048, 4096]),
        ("mlp_up_proj", 3e-4, [24, 4096, 14336]),
        ("mlp_down_proj", 4e-4, [24, 7168, 4096]),
        ("attn_rope", 5e-4, [0; 3]),
        ("add", 6e-4, [0; 3]),
    ];
    for ((name, seconds, shape), (other, time, by_hand)) in said.iter().zip(expected) {
        assert_eq!((*name, *shape), (other, by_hand));
        assert!((seconds - time).abs() < 1e-12, "{name}: {seconds}");
    }
    assert_eq!(said.len(), expected.len());
    let Kernel::Rope { rows: 24, heads: 20, head_dim: 128, .. } = measured[4].rows[0].kernel else {
        panic!("{:?}", measured[4].rows[0].kernel);
    };
    let products: Vec<bool> = measured.iter().map(|operator| operator.projection).collect();
    assert_eq!(products, [true, true, true, true, false, false]);
}

#[test]
fn broken_tables_are_refused_with_line_and_column() {
    let folder = folder();
    let row = |old: &str, new: &str| format!("{HEADER}\n{}\n", ROW.replace(old, new));
    for (text, say) in [
        (String::new(), "num_tokens"),
        ("num_tokens,n_head\n1,1\n".to_owned(), "num_tensor_parallel_workers"),
        (
            row("0.3", "-0.3"),
            "mlp.csv:2: time_stats.mlp_up_proj.median: found -0.3, expected milliseconds above 0",
        ),
        (row("True", "maybe"), "mlp.csv:2: use_gated_mlp: found maybe, expected True or False"),
        (row("24,2", "0,2"), "mlp.csv:2: num_tokens: found 0, expected a whole number above 0"),
        (row("24,2", "24,5"), "workers that divide heads"),
        (format!("{}\n", HEADER.replace("time_stats", "times")), "time_stats.NAME.median"),
    ] {
        let path = written(folder.path(), &text);
        let error = read_layers(&path).expect_err(say);
        assert!(error.to_string().contains(say), "{say}: {error}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn a_gate_that_is_not_met_is_exit_code_one() {
    let folder = folder();
    let hw = Hardware::shipped("nvidia-a100-sxm-80gb").expect("shipped");
    let device = Device::new(&hw, Limits::default()).expect("no limits");
    let path = written(folder.path(), &format!("{HEADER}\n{ROW}\n"));
    // A measurement that is 5 % above what the profile says: predictions are 4.76 % too short.
    let times: Vec<String> = read_layers(&path)
        .expect("a table")
        .iter()
        .map(|operator| format!("{:.9}", device.price(&operator.rows[0].kernel).time.s() * 1e3 * 1.05))
        .collect();
    let rest = ROW.splitn(7, ',').nth(6).expect("columns");
    let path = written(folder.path(), &format!("{HEADER}\n{},{rest}\n", times.join(",")));
    let file = path.to_str().expect("UTF-8");
    let run = |gate: &str| {
        let out = radialsim(&["validate", "operators", "--hw", "nvidia-a100-sxm-80gb", "--gate", gate, file]);
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    let (code, table, said) = run("4.8");
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(table.contains("matrix product") && table.contains("-4.76"), "{table}");
    let (code, _, said) = run("4.7");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("gate not met: matrix products are off by 4.76 % on average"), "{said}");
    assert_eq!(run("-1").0, Some(2));
}

/// Mean error of the products under a profile.
fn off(hw: &Hardware, measured: &[MeasuredOperator]) -> f64 {
    let device = Device::new(hw, Limits::default()).expect("no limits");
    let products = measured.iter().filter(|operator| operator.projection).flat_map(|operator| &operator.rows);
    let pairs = products.map(|row| (device.price(&row.kernel).time.s(), row.seconds));
    PercentErrors::of(pairs).expect("rows").mean
}

/// What was reached, rounded up; the two sources themselves are 8.7 and 14.4 % apart where they measured the same shapes
/// (`docs/VALIDATION.md`). The control: a device 30 % slower on A100, and 30 % faster on H100, where predictions are too short already,
/// does not pass.
#[test]
fn shipped_profiles_hold_for_another_source() {
    for (name, file, most, speed) in [
        ("nvidia-a100-sxm-80gb", "a100_llama2_7b_mlp.csv", 11.0, 0.7),
        ("nvidia-h100-sxm", "h100_llama2_7b_mlp.csv", 20.5, 1.3),
    ] {
        let Some(path) = crate::data(&format!("timings/vidur/{file}")) else { return };
        let measured = read_layers(&path).expect("a table");
        let hw = Hardware::shipped(name).expect("shipped");
        let good = off(&hw, &measured);
        assert!(good < most, "{name}: {good:.2} %");
        let mut other = hw.clone();
        other.compute.matrix_f16_tflops.value *= speed;
        other.memory.dram_gb_per_s.value *= speed;
        assert!(off(&other, &measured) > most, "{name}: a device of {speed} times the speed passes");
    }
}
