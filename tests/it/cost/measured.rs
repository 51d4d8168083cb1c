//! Prices against measured rows of real devices. Nothing is fitted here: the profiles' constants were, on three quarters of
//! the shapes, with a rougher model of bytes; this holds the whole path, from profile to price, to what it reached.

use radialsim::cost::{Device, Limits};
use radialsim::hw::Hardware;
use radialsim::kernel::{Density, Kernel};
use radialsim::units::Dtype;

/// Mean absolute percentage error and signed bias over the rows of a GEMM table (m, n, k, latency in ms).
fn gemm_error(device: &Device, table: &str) -> (f64, f64) {
    let errors: Vec<f64> = table
        .lines()
        .skip(1)
        .map(|line| {
            let row: Vec<f64> = line.split(',').map(|field| field.parse().expect("a number")).collect();
            let [rows, columns, inner, measured_ms] = row[..] else { panic!("four columns: {line}") };
            let (weights, activations, density) = (Dtype::Bf16, Dtype::Bf16, Density::Dense);
            let (rows, inner, columns) = (rows as u32, inner as u32, columns as u32);
            let kernel =
                Kernel::MatMul { rows, inner, columns, weights, inputs: activations, activations, density };
            device.price(&kernel).time.s() * 1e3 / measured_ms - 1.0
        })
        .collect();
    let mean =
        |of: &dyn Fn(f64) -> f64| 100.0 * errors.iter().copied().map(of).sum::<f64>() / errors.len() as f64;
    (mean(&f64::abs), mean(&|error| error))
}

#[test]
fn matrix_products_are_priced_as_well_as_four_constants_can() {
    for (name, folder, most) in [
        ("nvidia-h100-sxm", "h100_sxm", 13.0),
        ("nvidia-a100-sxm-80gb", "a100_sxm", 17.0),
        ("nvidia-l40s", "l40s", 23.0),
    ] {
        let Some(path) = crate::data(&format!("timings/{folder}/gemm_bf16.csv")) else { return };
        let hardware = Hardware::datasheet(name).expect("a shipped device");
        let device = Device::new(&hardware, Limits::default()).expect("no limits");
        let table = std::fs::read_to_string(path).expect("a table");
        let (error, bias) = gemm_error(&device, &table);
        eprintln!("{name}: mean absolute error {error:.1} %, bias {bias:+.1} %");
        assert!(error <= most, "{name}: {error} %");
        // The datasheet's roofline alone is off by 39 to 55 %: the test can tell.
        let mut bare = hardware;
        for number in [&mut bare.kernels.matmul.flops, &mut bare.kernels.matmul.bytes] {
            number.value = 1.0;
        }
        bare.kernels.matmul.fixed_us.value = 0.0;
        bare.kernels.matmul.overlap.value = 1.0;
        let bare = Device::new(&bare, Limits::default()).expect("no limits");
        assert!(gemm_error(&bare, &table).0 > 1.3 * error, "{name}");
    }
}

/// Fused expert layers as vLLM runs them (`moe.csv`), few rows on many experts: two grouped products, what is between them, and the sum.
/// Experts of a row are not recorded there; in the balanced rows each new copy takes another expert until all are taken.
#[test]
fn few_rows_on_many_experts_cost_what_fused_layers_take() {
    for (name, folder, most) in [("nvidia-h100-sxm", "h100_sxm", 20.0), ("nvidia-l40s", "l40s", 20.0)] {
        let Some(path) = crate::data(&format!("timings/{folder}/moe.csv")) else { return };
        let device = Hardware::shipped(name).expect("a shipped device");
        let device = Device::new(&device, Limits::default()).expect("no limits");
        let table = std::fs::read_to_string(path).expect("a table");
        let mut errors: Vec<f64> = Vec::new();
        for line in table.lines().skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            let [dtype, tokens, hidden, inter, top, experts, tp, ep, distribution, ms] = cells[..] else {
                panic!("ten columns: {line}")
            };
            if (dtype, tp, ep, distribution) != ("bfloat16", "1", "1", "balanced") {
                continue;
            }
            let [tokens, hidden, width, top, experts] =
                [tokens, hidden, inter, top, experts].map(|cell| cell.parse::<u32>().expect("a number"));
            let rows = tokens * top;
            if tokens > 32 {
                continue;
            }
            let groups = experts.min(rows);
            let slices = groups * rows.div_ceil(groups).div_ceil(radialsim::kernel::GROUP_SLICE);
            let (weights, activations, density) = (Dtype::Bf16, Dtype::Bf16, Density::Dense);
            let inputs = activations;
            let product = |inner, columns| Kernel::GroupedMatMul {
                rows,
                groups,
                slices,
                inner,
                columns,
                weights,
                inputs,
                activations,
                density,
            };
            let all = [
                product(hidden, 2 * width),
                Kernel::Activation { rows, width, gated: true, activations },
                product(width, hidden),
                Kernel::ExpertSum { rows: tokens, width: hidden, top, activations },
            ];
            let time: f64 = all.iter().map(|kernel| device.price(kernel).time.s()).sum();
            errors.push(time * 1e3 / ms.parse::<f64>().expect("a number") - 1.0);
        }
        assert!(errors.len() > 40, "{name}: {} rows", errors.len());
        let mean = |of: &dyn Fn(f64) -> f64| {
            100.0 * errors.iter().copied().map(of).sum::<f64>() / errors.len() as f64
        };
        let (error, bias) = (mean(&f64::abs), mean(&|error| error));
        eprintln!("{name}: {} rows, mean absolute error {error:.1} %, bias {bias:+.1} %", errors.len());
        assert!(error <= most, "{name}: {error} %");
    }
}
