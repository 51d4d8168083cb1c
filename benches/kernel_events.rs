//! Kernel events a second, one thread: the engine alone, a single price, and the whole way from tokens to the ledger.
//!
//! `cargo bench --bench kernel_events`

#![allow(clippy::print_stdout, reason = "a bench prints")]

use radialsim::batch::Policy;
use radialsim::cost::{Device, Limits};
use radialsim::engine::{Engine, Occurrence, Plan, Task};
use radialsim::hw::Hardware;
use radialsim::kernel::{Attention, Density, Kernel};
use radialsim::lower::{Dispatch, RouterPlan};
use radialsim::model::Model;
use radialsim::sched::Serving;
use radialsim::sim::{Fidelity, Setup, Silent, run};
use radialsim::trace::Trace;
use radialsim::trace::synth::{Method, generate};
use radialsim::units::{Dtype, SimTime};
use radialsim::workload::{Arrivals, Length, Lengths, requests};
use std::time::Instant;

fn main() {
    engine_alone();
    prices();
    let skips = "IndependentSkips(skip: 0.25, branches: Jointly, kv: project_only)";
    let correlated = "CorrelatedSkips(skip: 0.25, correlation: 1, share: Step, branches: Jointly, kv: none)";
    println!(
        "{:44} {:>12} {:>10} {:>14}",
        "whole simulation, Llama-2-7B on H100", "kernels", "seconds", "kernels/s"
    );
    for (name, text, batch, captured) in [
        ("dense, batch 1, graphs", "Dense", 1, true),
        ("dense, batch 16, graphs", "Dense", 16, true),
        ("dense, batch 64, graphs", "Dense", 64, true),
        ("dense, batch 16, each kernel launched", "Dense", 16, false),
        ("correlated skips, batch 16, graphs", correlated, 16, true),
        ("independent skips, batch 16, graphs", skips, 16, true),
        ("independent skips, batch 16, each launched", skips, 16, false),
    ] {
        whole(name, text, batch, captured);
    }
}

/// A chain of 1,000 tasks on one resource, again and again.
fn engine_alone() {
    let mut engine = Engine::new();
    let queue = engine.add_resource("queue", 1);
    let mut plan = Plan::default();
    let begin = Instant::now();
    for _ in 0..20_000 {
        plan.clear();
        for index in 0..1000u32 {
            let before = index.wrapping_sub(1);
            let task = Task { resource: queue, duration: SimTime::from_ps(1000) };
            if index == 0 {
                plan.push(task, &[])
            } else {
                plan.push(task, &[before])
            };
        }
        engine.submit(plan);
        let Occurrence::PlanDone(done) = engine.run(&mut |_| {}) else {
            unreachable!("only the plan can end")
        };
        plan = done;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let events = engine.tasks_ended();
    println!(
        "engine alone: {events} task ends in {seconds:.2} s, {:.1} million a second",
        events as f64 / seconds / 1e6
    );
}

/// Kernels of growing shapes, each priced once and never looked up: as they come to a price cache for the first time. The table of a
/// family is made by a call before.
fn prices() {
    let activations = Dtype::F16;
    let product = |i: u32| Kernel::MatMul {
        rows: 1 + i % 4096,
        inner: 4096,
        columns: 4096 * (1 + i % 7),
        weights: activations,
        inputs: activations,
        activations,
        density: Density::Dense,
    };
    let attention = |decode: bool, i: u32| {
        let (rows, entries) = (1 + i % 256, u64::from(1 + i % 256) * u64::from(64 + i % 8192));
        let shape = Attention {
            rows,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            decode,
            beside: 0,
            waits: 0,
            pairs: entries,
            entries,
            activations,
            kv: activations,
        };
        Kernel::Attention(shape)
    };
    let norm =
        |i: u32| Kernel::Norm { rows: 1 + i % 4096, width: 4096, groups: 1, layer_norm: false, activations };
    let kinds: [(&str, &dyn Fn(u32) -> Kernel); 4] = [
        ("products", &product),
        ("decode attention", &|i| attention(true, i)),
        ("prefill attention", &|i| attention(false, i)),
        ("norms", &norm),
    ];
    for name in ["nvidia-h100-sxm", "mesa-llvmpipe-1-thread"] {
        let hardware = Hardware::shipped(name).expect("shipped");
        let device = Device::new(&hardware, Limits::default()).expect("a sound profile");
        let nanoseconds = kinds.map(|(kind, kernel)| {
            let kernels: Vec<Kernel> = (0..100_000).map(kernel).collect();
            kernels.iter().take(7).for_each(|kernel| _ = device.price(kernel));
            let begin = Instant::now();
            let sum: u64 = kernels.iter().map(|kernel| device.price(kernel).time.ps()).sum();
            let ns = begin.elapsed().as_secs_f64() * 1e9 / kernels.len() as f64;
            std::hint::black_box(sum);
            format!("{kind} {ns:.0} ns")
        });
        println!("a price that nobody asked for before, {name}: {}", nanoseconds.join(", "));
    }
}

fn trace(method: &Method, layers: u32, count: u32) -> Trace {
    let lengths = Lengths { prompt: Length::Fixed(64), output: Length::Fixed(512) };
    let requests = requests(count, &lengths, &Arrivals::Closed, 1).expect("valid lengths");
    generate(method, layers, requests, 1).expect("a valid method")
}

fn whole(name: &str, text: &str, batch: u32, captured: bool) {
    let model = Model::builtin("llama-2-7b").expect("built in");
    let method = radialsim::ron_text::parse(text, "a method").expect("a valid method");
    let trace = trace(&method, model.layers, batch * 4);
    let setup = Setup {
        ranks: None,
        placed: None,
        experts: radialsim::batch::ExpertUse::default(),
        hardware: Hardware::shipped("nvidia-h100-sxm").expect("shipped"),
        limits: Limits::default(),
        clients: None,
        sessions: None,
        serving: Serving::new(2048, batch, true),
        dispatch: Dispatch {
            capture: if captured { vec![1, 2, 4, 8, 16, 32, 64] } else { vec![] },
            router: RouterPlan::FREE,
            ..Dispatch::of_trace(Policy::Aligned, &trace)
        },
        model,
        tiers: None,
        fidelity: Fidelity::Kernel,
        explain: false,
        against: None,
    };
    let begin = Instant::now();
    let ledger = run(&setup, &trace, &mut Silent).expect("a scenario that fits");
    let seconds = begin.elapsed().as_secs_f64();
    let kernels = ledger.done.kernels;
    println!("{name:44} {kernels:>12} {seconds:>10.3} {:>14.0}", kernels as f64 / seconds);
}
