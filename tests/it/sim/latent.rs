//! Latent attention: what is cached, and which kernels a layer becomes, against sums worked by hand.

use crate::lab::Lab;
use radialsim::batch::{Batch, Context, Part, Paths};
use radialsim::kernel::Kernel;
use radialsim::lower::{Graph, Lowering};
use radialsim::model::Model;
use radialsim::trace::synth::Method;
use radialsim::trace::{Header, Route, RouteTable};
use serde_json::json;

/// A small model of DeepSeek's shapes: two layers, no experts.
fn small() -> Model {
    let config = json!({
        "architectures": ["DeepseekV3ForCausalLM"], "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
        "num_attention_heads": 4, "kv_lora_rank": 64, "q_lora_rank": 96, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16,
        "v_head_dim": 24, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "first_k_dense_replace": 2, "max_position_embeddings": 4096, "vocab_size": 1000, "dtype": "bfloat16"
    });
    crate::model::models::read("small", config.to_string()).expect("a good config")
}

#[test]
fn one_vector_a_token_is_cached() {
    let mut lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 1);
    lab.setup.model = small();
    assert_eq!(lab.setup.model.kv_entry_bytes(), 2 * (64 + 16));
    let ledger = lab.run(&lab.trace(&Method::Dense, 1, 100, 9, 1));
    assert_eq!(ledger.memory.kv_peak, 108 * 2 * 2 * (64 + 16));
}

/// Flops and weight bytes of the products of one generated token, and what attention reads, over 100 entries.
#[test]
fn a_generated_token_attends_to_the_vectors_themselves() {
    let model = small();
    let mut routes = RouteTable::default();
    routes.intern(Route::dense(2));
    let paths = Paths::new(&Header::dense("m", 2), &routes, false);
    let work = |before: u32, tokens: u32| {
        let mut batch = Batch::default();
        batch.push(0, vec![0; tokens as usize], tokens == 1, 1, Part::WHOLE);
        let mut graph = Graph::default();
        let dispatch = Lab::new("smollm2-135m", "nvidia-h100-sxm", 1).setup.dispatch;
        Lowering::new(&model, dispatch).lower(&batch, &[Context::dense(before, 2)], &paths, &mut graph);
        let first = graph.kernels().filter(|(call, _)| call.layer == 0);
        let (mut products, mut attention) = ((0, 0), (0, 0));
        for (_, kernel) in first {
            let work = kernel.work();
            match kernel {
                Kernel::MatMul { .. } | Kernel::GroupedMatMul { .. } => {
                    products = (products.0 + work.flops, products.1 + work.weight_bytes);
                }
                Kernel::LatentAttention(_) => attention = (work.flops, work.kv_bytes),
                _ => {}
            }
        }
        (products, attention)
    };
    // All matrices of the layer are read once, those of keys and values too, and each weight is a multiplication and an addition.
    let kind = model.kind(0);
    let matrices = model.attention_params() + model.ffn_params(kind);
    let (products, attention) = work(99, 1);
    assert_eq!(products, (2 * matrices, 2 * matrices));
    // Four heads score 100 entries 80 wide and sum values 64 wide; two flops a value of a query and of a result, as the oracle counts.
    assert_eq!(attention, (100 * 4 * (2 * (80 + 64) + 4) + 4 * (80 + 64), 100 * 80 * 2));
    // A prompt makes keys and values of all heads: 10 rows, so ten times the products, and scores 48 wide, values 24.
    let (products, attention) = work(0, 10);
    assert_eq!(products, (10 * 2 * matrices, 2 * matrices));
    assert_eq!(attention, (55 * 4 * (2 * (48 + 24) + 4) + 10 * 4 * (48 + 24), 10 * 4 * (48 + 24) * 2));
}
