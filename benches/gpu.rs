//! Kernels against probes of the same adapter, in one run: `cargo bench --bench gpu`. On software Vulkan set
//! `LP_NUM_THREADS=0`, so that shaders run on the calling thread. `MODEL=FILE.gguf` adds decoding of a real model.
#![allow(clippy::print_stdout, reason = "a bench prints")]

#[cfg(not(feature = "gpu"))]
fn main() {
    println!("SKIPPED: built without the feature gpu");
}

#[cfg(feature = "gpu")]
fn main() {
    with_gpu::main();
}

#[cfg(feature = "gpu")]
mod with_gpu {
    use radialsim::batch::Policy;
    use radialsim::gpu::{
        Binding, Buffer, Executor, ExecutorOptions, Form, GenerationSettings, GenerationWatch, Gpu,
        KernelDispatch, Overrides, Pass, PassOutcome, Precision, Prompt, Recording, RouterMlp, Routing,
        Shader, shaders as s,
    };
    use radialsim::rng::Stream;
    use radialsim::trace::RouterDevice;
    use radialsim::weights::Checkpoint;

    /// Larger than the last cache, and what a binding holds at most.
    const LARGE: u64 = 128 << 20;

    struct Bench {
        gpu: Gpu,
        lists: Buffer,
    }

    /// What one run of a kernel is.
    struct Run<'a> {
        shader: Shader,
        constants: Overrides<'a>,
        buffers: &'a [&'a Buffer],
        parameters: Vec<u8>,
        workgroups: [u32; 3],
    }

    impl Bench {
        /// Median time in nanoseconds of eleven runs behind two that warm up.
        fn time(&self, run: Run) -> f64 {
            let pipeline = self.gpu.pipeline(run.shader, run.constants).expect("a valid shader");
            let mut recording = Recording::default();
            for _ in 0..13 {
                recording.push(KernelDispatch {
                    pipeline: pipeline.clone(),
                    bindings: run.buffers.iter().map(|&buffer| Binding::from(buffer)).collect(),
                    parameters: run.parameters.clone(),
                    workgroups: run.workgroups,
                });
            }
            let timing = self.gpu.run_timed(&recording).expect("a run");
            let mut times: Vec<u64> = timing.kernels_ns[2..].iter().map(|(begin, end)| end - begin).collect();
            times.sort_unstable();
            times[times.len() / 2] as f64
        }

        fn buffer(&self, bytes: u64) -> Buffer {
            // Values in the order of one, in every form: a half of 1.0 in each 16 bits.
            let words = vec![0x3c00_3c00u32; (bytes / 4) as usize];
            self.gpu.upload("a bench", &words).expect("memory")
        }

        fn product(&self, form: Form, tile: u32, [rows, inner, columns]: [u32; 3]) -> f64 {
            let row_words = form.row_words(inner);
            let weights = self.buffer(u64::from(row_words) * u64::from(columns) * 4);
            let (input, output) =
                (self.buffer(u64::from(rows * inner) * 4), self.buffer(u64::from(rows * columns) * 4));
            let bias = self.buffer(16);
            let subgroup = self.gpu.subgroup().expect("subgroups");
            let run = if tile == 1 && self.gpu.info().kind == "CPU" { 4 } else { 1 };
            let parameters = s::MatMul {
                inner4: inner / 4,
                columns,
                input_stride4: inner / 4,
                output_stride: columns,
                row_words,
                layer_words: 0,
                rows_at: 0,
                columns_at: 0,
                first_row: 0,
                layer_rows: columns,
                from_row: 0,
                first_layer: 0,
                layers: 1,
                run,
            };
            let tiles: Vec<u32> =
                (0..rows).step_by(tile as usize).flat_map(|row| [row, tile.min(rows - row), 0]).collect();
            self.gpu.write(&self.lists, 0, &if tile == 1 { vec![0; rows as usize] } else { tiles });
            let parameters = bytemuck::bytes_of(&parameters).to_vec();
            let workgroups = [columns.div_ceil(4 * subgroup * run), rows.div_ceil(tile), 1];
            let common = ("WORKGROUP", f64::from(subgroup));
            if tile == 1 {
                let shader = match form {
                    Form::F32 => s::MATVEC_F32,
                    Form::F16 => s::MATVEC_F16,
                    Form::Q8 => s::MATVEC_Q8,
                    Form::Q4 => s::MATVEC_Q4,
                };
                let buffers = [&input, &weights, &bias, &self.lists, &output];
                return self.time(Run {
                    shader,
                    constants: &[common],
                    buffers: &buffers,
                    parameters,
                    workgroups,
                });
            }
            let shader = s::MATMUL_TILES;
            let constants = [common, ("ROWS", f64::from(tile)), ("FORMAT", form as u32 as f64)];
            let buffers = [&input, &weights, &weights, &bias, &self.lists, &output];
            self.time(Run { shader, constants: &constants, buffers: &buffers, parameters, workgroups })
        }
    }

    pub fn main() {
        let wanted = std::env::var("RADIALSIM_ADAPTER").ok();
        let gpu = match Gpu::open(wanted.as_deref()) {
            Ok(gpu) => gpu,
            Err(error) => return println!("SKIPPED: {error}"),
        };
        println!("{} ({}), {}", gpu.info().name, gpu.info().kind, gpu.info().driver);
        let lists = gpu.buffer("lists", 1 << 16).expect("memory");
        let bench = Bench { gpu, lists };
        let (bandwidth, flops) = probes(&bench);
        products(&bench, bandwidth, flops);
        if let Ok(model) = std::env::var("MODEL") {
            for precision in [Precision::F32, Precision::F16, Precision::Kept] {
                decode(&model, precision, wanted.as_deref(), bandwidth);
            }
        }
    }

    /// Prints what the probes reach; returns bytes and flops a nanosecond.
    fn probes(bench: &Bench) -> (f64, f64) {
        let (input, output) = (bench.buffer(LARGE), bench.buffer(LARGE));
        let run = |shader, constants: Overrides, buffers: &[&Buffer], groups| {
            bench.time(Run { shader, constants, buffers, parameters: Vec::new(), workgroups: [groups, 1, 1] })
        };
        let empty = run(s::PROBE_EMPTY, &[], &[&output], 1);
        let copy = 2.0 * LARGE as f64
            / run(s::PROBE_COPY, &[("WORKGROUP", 256.0)], &[&input, &output], (LARGE / 16 / 256) as u32);
        let read = LARGE as f64 / run(s::PROBE_READ, &[], &[&input, &output], (LARGE / 16 / 512 / 8) as u32);
        let fma = (64 * 64 * 1024 * 48 * 2) as f64 / run(s::PROBE_FMA, &[], &[&output], 64);
        println!("empty dispatch {:.2} us", empty / 1e3);
        println!(
            "copy {copy:.2} GB/s (read and written), read {read:.2} GB/s, multiply-add {fma:.1} GFLOP/s"
        );
        (copy.max(read), fma)
    }

    fn products(bench: &Bench, bandwidth: f64, flops: f64) {
        println!("\none row, 4096 x 8192: GB/s of weights, share of the best probe, times as fast as f32");
        let forms = [(Form::F32, "f32"), (Form::F16, "f16"), (Form::Q8, "q8"), (Form::Q4, "q4")];
        let mut single = 0.0;
        for (form, name) in forms {
            let ns = bench.product(form, 1, [1, 4096, 8192]);
            let rate = f64::from(form.row_words(4096)) * 8192.0 * 4.0 / ns;
            single = if form == Form::F32 { ns } else { single };
            println!("{name:>4} {rate:6.2} GB/s {:5.1} % {:5.2} x", 100.0 * rate / bandwidth, single / ns);
        }
        println!("\n256 x 2048 x 2048 in tiles of 32 rows: GFLOP/s, share of the multiply-add probe");
        for (form, name) in forms {
            let rate = 2.0 * 256.0 * 2048.0 * 2048.0 / bench.product(form, 32, [256, 2048, 2048]);
            println!("{name:>4} {rate:6.2} GFLOP/s {:5.1} %", 100.0 * rate / flops);
        }
        let ns: Vec<f64> = (1..=64).map(|rows| bench.product(Form::F32, 32, [rows, 2048, 2048])).collect();
        let tiles = |rows: usize| rows.div_ceil(32) as f64;
        let of_tile: Vec<f64> = (1..=64).map(|rows| ns[rows - 1] / tiles(rows)).collect();
        let worst = (0..64_usize).map(|at| {
            let near = [at.saturating_sub(1), (at + 1).min(63)];
            of_tile[at] / near.into_iter().map(|at| of_tile[at]).fold(f64::INFINITY, f64::min)
        });
        println!(
            "rows 1 to 64, f32: time of a tile at most {:.2} x that of the better neighbour",
            worst.fold(0.0, f64::max)
        );
        println!("\n576 x 1536: us as single rows, in tiles of 8, of 16, of 32");
        for (form, name) in forms {
            for rows in [1, 2, 4, 8, 12, 32] {
                let times = [1, 8, 16, 32].map(|tile| bench.product(form, tile, [rows, 576, 1536]) / 1e3);
                let times = times.map(|us| format!("{us:9.1}")).join(" ");
                println!("{name:>4} {rows:3} rows {times}");
            }
        }
    }

    /// Adds up the passes of a run.
    #[derive(Default)]
    struct Sum {
        passes: Vec<f64>,
        dispatches: u32,
    }

    impl GenerationWatch for Sum {
        fn pass(
            &mut self,
            _: &Pass,
            outcome: &PassOutcome,
            rows: &[(usize, u32, bool)],
        ) -> radialsim::error::Result<()> {
            if rows.iter().all(|row| !row.2) {
                self.passes.push(outcome.timing.host_s);
                self.dispatches += outcome.dispatches;
            }
            Ok(())
        }
    }

    fn decode(model: &str, precision: Precision, adapter: Option<&str>, bandwidth: f64) {
        let checkpoint = Checkpoint::open(model).expect("a model");
        let gpu = Gpu::open(adapter).expect("the same adapter");
        let options = ExecutorOptions { precision, top: 1, positions: 1024, ..ExecutorOptions::default() };
        let mut executor = Executor::new(gpu, &checkpoint, options).expect("a model that fits");
        let model = executor.model();
        // Every weight but the embedding's rows is read once a token; a tied head is the embedding.
        let bytes = executor.weight_bytes_of_a_token();
        println!("\n{} with {precision:?} weights: {:.1} MB a token", model.name, bytes as f64 / 1e6);
        let settings = GenerationSettings {
            routing: Routing::dense(model.layers),
            policy: Policy::Aligned,
            visibility: Default::default(),
            sampling: None,
            end_ids: Vec::new(),
            prompt_logits: false,
            timed: false,
        };
        for batch in [1, 12] {
            let prompts = vec![Prompt { ids: (100..140).collect(), most: 40 }; batch];
            let mut sum = Sum::default();
            executor.generate(&prompts, &settings, &mut sum).expect("a run");
            sum.passes.sort_by(f64::total_cmp);
            let s = sum.passes[sum.passes.len() / 2];
            let bound = bandwidth * 1e9 / bytes as f64;
            let (rate, share) = (batch as f64 / s, 100.0 / s / bound);
            println!(
                "batch {batch}: {rate:.1} tokens/s, a pass {:.1} ms; weights allow {bound:.1} passes/s: {share:.0} %",
                s * 1e3
            );
        }
        if precision == Precision::Kept {
            routed(&mut executor);
        }
    }

    /// A router of random weights that visits twelve layers at most, decided with and without read-back.
    fn routed(executor: &mut Executor) {
        let (layers, width) = (executor.model().layers, executor.model().hidden as u32);
        let mut random = Stream::new(1, "a router");
        let mut values =
            |count: u32| -> Vec<f32> { (0..count).map(|_| (random.uniform() - 0.5) as f32).collect() };
        let hidden = 32;
        let (first, second) = (values(hidden * width), values((layers + 1) * hidden));
        println!(
            "a router of {width} x {hidden} x {}, 12 hops, grouped: ms a pass, dispatches a pass",
            layers + 1
        );
        for batch in [1, 8] {
            for device in [RouterDevice::Gpu, RouterDevice::Host] {
                let (first, second) = (first.clone(), second.clone());
                let router = RouterMlp { hidden, first, second, most_hops: 12, device };
                let settings = GenerationSettings {
                    routing: Routing::Router(Box::new(router)),
                    policy: Policy::Grouped,
                    visibility: Default::default(),
                    sampling: None,
                    end_ids: Vec::new(),
                    prompt_logits: false,
                    timed: false,
                };
                let prompts: Vec<Prompt> =
                    (0..batch).map(|at| Prompt { ids: vec![100 + at; 2], most: 20 }).collect();
                let mut sum = Sum::default();
                executor.generate(&prompts, &settings, &mut sum).expect("a run");
                sum.passes.sort_by(f64::total_cmp);
                let ms = sum.passes[sum.passes.len() / 2] * 1e3;
                println!(
                    "batch {batch:2}, {device:?} decides: {ms:6.2} ms, {}",
                    sum.dispatches / sum.passes.len() as u32
                );
            }
        }
    }
}
