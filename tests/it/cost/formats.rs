//! Quantised products: bytes that are not those of their scales, quantise kernels that are forgotten, arithmetic that a device has not,
//! files that say one thing and are priced as another.

use crate::lab::Lab;
use proptest::prelude::*;
use radialsim::batch::{Batch, Context, Part, Paths};
use radialsim::cost::{Device, Limits};
use radialsim::hw::Hardware;
use radialsim::kernel::{Density, Kernel};
use radialsim::lower::{Graph, Lowering};
use radialsim::model::{Model, PRODUCTS};
use radialsim::trace::{Header, Route, RouteTable};
use radialsim::units::{Dtype, SourceKind};

const BF16: Dtype = Dtype::Bf16;

fn product(rows: u32, inner: u32, columns: u32, inputs: Dtype, weights: Dtype) -> Kernel {
    Kernel::MatMul { rows, inner, columns, weights, inputs, activations: BF16, density: Density::Dense }
}

fn device(name: &str) -> Device {
    Device::new(&Hardware::shipped(name).expect("a shipped profile"), Limits::default()).expect("no limits")
}

fn quantised(format: Dtype) -> Model {
    let model = Model::builtin("llama-3.1-8b").expect("a built-in model");
    Model { products: Some(format), ..model.with_formats(format, BF16, BF16) }
}

/// The kernels of one generated token behind 100 others.
fn kernels(model: &Model) -> Vec<Kernel> {
    let layers = model.layers;
    let mut routes = RouteTable::default();
    routes.intern(Route::dense(layers));
    let paths = Paths::new(&Header::dense("m", layers), &routes, false);
    let mut batch = Batch::default();
    batch.push(0, vec![0], true, 1, Part::WHOLE);
    let mut graph = Graph::default();
    let dispatch = Lab::new("smollm2-135m", "nvidia-h100-sxm", 1).setup.dispatch;
    Lowering::new(model, dispatch).lower(&batch, &[Context::dense(100, layers)], &paths, &mut graph);
    graph.kernels().map(|(_, kernel)| *kernel).collect()
}

/// By hand: 3 rows of 200 values are a byte each, with a scale of four for the first 128 and one for the other 72; or half a byte each,
/// with one byte for each 16. Results have two bytes.
#[test]
fn rows_count_with_their_scales() {
    let bytes = |format| product(3, 200, 5, format, format).work().activation_bytes - 2 * 3 * 5;
    assert_eq!(bytes(Dtype::Fp8), 3 * 200);
    assert_eq!(bytes(Dtype::Fp8Block), 3 * (200 + 2 * 4));
    // 12 whole blocks, and half a one.
    assert_eq!(bytes(Dtype::Fp4), 3 * (100 + 12 + 1));
    for to in PRODUCTS {
        let quantise = Kernel::Quantise { rows: 3, width: 200, activations: BF16, to }.work();
        assert_eq!(
            quantise.activation_bytes,
            2 * 3 * 200 + bytes(to),
            "what it writes is what the product reads"
        );
        assert_eq!((quantise.weight_bytes, quantise.kv_bytes), (0, 0));
    }
}

/// One before each product of a layer, as many rows and as wide as the product's; head, embedding and stream stay as they are.
#[test]
fn each_product_of_a_layer_quantises_its_rows() {
    for format in PRODUCTS {
        let model = quantised(format);
        let with = kernels(&model);
        let mut before: Option<Kernel> = None;
        let mut products = 0;
        for kernel in &with {
            if let Kernel::MatMul { rows, inner, weights, inputs, activations, .. } = *kernel {
                assert_eq!(activations, BF16);
                let is_head = weights == BF16;
                assert_eq!(inputs, if is_head { BF16 } else { format });
                let expected = Kernel::Quantise { rows, width: inner, activations: BF16, to: format };
                assert_eq!(before == Some(expected), !is_head, "{kernel:?} behind {before:?}");
                products += u32::from(!is_head);
            }
            before = Some(*kernel);
        }
        // Queries, keys and values; output; gate and up; down.
        assert_eq!(products, 4 * model.layers);
        let all = with.iter().filter(|kernel| matches!(kernel, Kernel::Quantise { .. })).count();
        assert_eq!(all as u32, products);
        // But for these, the same calls as without.
        let plain = kernels(&Model { products: None, ..model.clone() });
        let without: Vec<Kernel> = with
            .into_iter()
            .filter(|kernel| !matches!(kernel, Kernel::Quantise { .. }))
            .map(|kernel| match kernel {
                Kernel::MatMul { rows, inner, columns, weights, activations, density, .. } => {
                    let inputs = activations;
                    Kernel::MatMul { rows, inner, columns, weights, inputs, activations, density }
                }
                other => other,
            })
            .collect();
        assert_eq!(without, plain);
    }
}

/// Parts that a file leaves out are multiplied as the activations are.
#[test]
fn parts_that_are_left_out_are_not_quantised() {
    let mut model = quantised(Dtype::Fp8);
    model.kinds[0].attention_kept = true;
    let quantises = kernels(&model).iter().filter(|kernel| matches!(kernel, Kernel::Quantise { .. })).count();
    assert_eq!(quantises as u32, 2 * model.layers);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Fitted or not, no product is much faster than its format's peak and the bandwidth allow. Boards run above the clock of the peak.
    #[test]
    fn quantised_products_are_no_faster_than_peaks(
        rows in 1u32..20_000, inner in 1u32..512, columns in 1u32..512, format in 0usize..3,
    ) {
        let (inner, columns, format) = (32 * inner, 32 * columns, PRODUCTS[format]);
        for name in ["nvidia-h100-sxm", "nvidia-b200-sxm", "nvidia-l40s", "nvidia-h200-sxm"] {
            let hw = Hardware::shipped(name).expect("a shipped profile");
            let peak = match format {
                Dtype::Fp4 => &hw.compute.matrix_fp4_tflops,
                _ => &hw.compute.matrix_fp8_tflops,
            };
            let Some(peak) = peak else { continue };
            let kernel = product(rows, inner, columns, format, format);
            let price = device(name).price(&kernel);
            let least = kernel.work().flops as f64 / (peak.value * 1e12);
            prop_assert!(price.time.s() > 0.85 * least, "{name} {kernel:?}: {} < {least}", price.time.s());
        }
    }

    /// More rows never cost less, fitted formats too.
    #[test]
    fn quantised_products_are_monotone_in_rows(
        rows in 1u32..6000, more in 1u32..200, inner in 1u32..80, columns in 1u32..80, format in 0usize..3,
    ) {
        let format = PRODUCTS[format];
        for name in ["nvidia-h100-sxm", "nvidia-b200-sxm"] {
            let device = device(name);
            let time = |rows| device.price(&product(rows, 128 * inner, 128 * columns, format, format)).time;
            prop_assert!(time(rows) <= time(rows + more), "{name}");
        }
    }

    /// Weights that are widened cost arithmetic, which a device with slow vector units shows; weights of 16 bits do not.
    #[test]
    fn widening_costs_vector_arithmetic(rows in 1u32..4000, inner in 1u32..64, columns in 1u32..64) {
        let mut slow = Hardware::datasheet("nvidia-h100-sxm").expect("a shipped profile");
        let fast = Device::new(&slow, Limits::default()).expect("no limits");
        slow.compute.vector_f32_tflops.value /= 1000.0;
        let slow = Device::new(&slow, Limits::default()).expect("no limits");
        let time = |device: &Device, weights| {
            device.price(&product(rows, 128 * inner, 128 * columns, BF16, weights)).time
        };
        for weights in [Dtype::Int4G128, Dtype::Int8, Dtype::Fp8, Dtype::Nf4] {
            prop_assert!(time(&slow, weights) > time(&fast, weights), "{weights}");
        }
        prop_assert_eq!(time(&slow, BF16), time(&fast, BF16));
    }
}

/// Tables of quantised products hold the quantise kernel, so it takes no time where products are priced by them; its bytes count. A device
/// without such a table prices it.
#[test]
fn quantising_is_in_the_products_that_were_measured() {
    let kernel = Kernel::Quantise { rows: 100, width: 4096, activations: BF16, to: Dtype::Fp8 };
    let fitted = device("nvidia-h100-sxm").price(&kernel);
    assert_eq!((fitted.time.ps(), fitted.source), (0, SourceKind::Fitted));
    assert_eq!(kernel.work().activation_bytes, 100 * 4096 * 3);
    let plain = Hardware::datasheet("nvidia-h100-sxm").expect("a shipped profile");
    let plain = Device::new(&plain, Limits::default()).expect("no limits").price(&kernel);
    assert!(plain.time.ps() > 0);
}

#[test]
fn what_cannot_belong_together_is_refused() {
    let model = quantised(Dtype::Fp8);
    model.check().expect("as it should be");
    for (broken, key) in [
        (Model { products: Some(Dtype::Int8), ..model.clone() }, "products"),
        (Model { weights: Dtype::Fp4, ..model.clone() }, "products"),
        (Model { activations: Dtype::Fp8, ..model.clone() }, "activations"),
    ] {
        let error = broken.check().expect_err(key);
        assert!(error.to_string().contains(key), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}

/// A scenario's words on formats, and what the device makes of them.
#[test]
fn scenarios_say_formats_that_fit() {
    let build = |hardware: &str, formats: &str| {
        let settings =
            ["model=llama-3.1-8b", &format!("hardware={hardware}"), &format!("formats={{{formats}}}")]
                .map(String::from);
        let path = std::path::Path::new("examples/batch-union.ron");
        let scenario = radialsim::scenario::Scenario::load(path, &settings)?;
        scenario.build().map(|(built, notes)| (built[0].setup.model.clone(), notes.len()))
    };
    let (model, _) = build("nvidia-h100-sxm", "\"products\":\"fp8\"").expect("weights follow");
    assert_eq!(
        (model.weights, model.products, model.embedding_weights),
        (Dtype::Fp8, Some(Dtype::Fp8), BF16)
    );
    let (model, _) = build("nvidia-b200-sxm", "\"products\":\"nvfp4\", \"kv\":\"fp8\"").expect("NVFP4");
    assert_eq!((model.weights, model.products, model.kv), (Dtype::Fp4, Some(Dtype::Fp4), Dtype::Fp8));
    let (model, _) = build("nvidia-h100-sxm", "\"weights\":\"fp8\"").expect("weights alone");
    assert_eq!((model.weights, model.products), (Dtype::Fp8, None));
    for (hardware, formats, say) in [
        ("nvidia-a100-sxm-80gb", "\"products\":\"fp8\"", "matrix_fp8_tflops"),
        ("nvidia-h100-sxm", "\"products\":\"nvfp4\"", "matrix_fp4_tflops"),
        ("nvidia-h100-sxm", "\"weights\":\"int4\", \"products\":\"fp8\"", "the format of the weights, int4"),
        ("nvidia-h100-sxm", "\"activations\":\"fp8\", \"products\":\"fp8\"", "activations"),
    ] {
        let error = build(hardware, formats).expect_err(formats);
        assert!(error.to_string().contains(say), "{formats}: {error}");
        assert_eq!(error.exit_code(), 2);
    }
}

/// What published files say of products.
#[test]
fn files_say_how_products_are_multiplied() {
    let read = |quantised: &str| {
        let config = format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
                "torch_dtype": "bfloat16", "quantization_config": {quantised}}}"#
        );
        crate::model::models::read("quantised", config).expect(quantised)
    };
    let group = |weights: &str, inputs: &str| {
        format!(
            r#"{{"quant_method": "compressed-tensors",
                "config_groups": {{"group_0": {{"weights": {weights}, "input_activations": {inputs}, "targets": ["Linear"]}}}}}}"#
        )
    };
    let (float8, float4) =
        (r#"{"num_bits": 8, "type": "float"}"#, r#"{"num_bits": 4, "type": "float", "group_size": 16}"#);
    let int8 = r#"{"num_bits": 8, "type": "int"}"#;
    for (config, weights, products, remarks) in [
        (
            r#"{"quant_method": "fp8", "activation_scheme": "static"}"#.to_owned(),
            Dtype::Fp8,
            Some(Dtype::Fp8),
            0,
        ),
        (
            r#"{"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}"#
                .to_owned(),
            Dtype::Fp8Block,
            Some(Dtype::Fp8Block),
            0,
        ),
        (r#"{"quant_method": "modelopt", "quant_algo": "FP8"}"#.to_owned(), Dtype::Fp8, Some(Dtype::Fp8), 0),
        (
            r#"{"quant_method": "modelopt", "quant_algo": "NVFP4"}"#.to_owned(),
            Dtype::Fp4,
            Some(Dtype::Fp4),
            0,
        ),
        (r#"{"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"}"#.to_owned(), Dtype::Fp4, None, 0),
        (group(float8, float8), Dtype::Fp8, Some(Dtype::Fp8), 0),
        (group(float8, "null"), Dtype::Fp8, None, 0),
        (group(float4, float4), Dtype::Fp4, Some(Dtype::Fp4), 0),
        (group(int8, int8), Dtype::Int8Channel, None, 1),
        (r#"{"quant_method": "gptq", "bits": 4, "group_size": 128}"#.to_owned(), Dtype::Int4G128, None, 0),
    ] {
        let model = read(&config);
        let inputs = model.remarks.iter().filter(|remark| remark.contains("inputs of products")).count();
        assert_eq!((model.weights, model.products, inputs), (weights, products, remarks), "{config}");
    }
}
