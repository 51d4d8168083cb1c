//! Measures what a profile needs to know of an adapter: probes, chains of small kernels, and every kernel of the plan.

use super::device::{Buffer, Gpu};
use super::energy::{Counter, POWERCAP};
use super::pipeline::{Overrides, Shader};
use super::recording::{Binding, KernelDispatch, Recording};
use super::rig::Rig;
use super::shaders as s;
use crate::calib::{Drawn, Environment, Record, Records, quartiles, shapes};
use crate::error::Result;
use crate::rng::Stream;
use crate::units::Dtype;
use std::path::Path;
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Clone, Debug)]
pub struct CalibrationPlan {
    /// Formats of weights.
    pub formats: Vec<Dtype>,
    /// How often each call is visited.
    pub visits: u32,
    /// Seconds of a visit, unless a kernel is slow.
    pub seconds: f64,
    /// One of so many calls is measured.
    pub one_in: usize,
    /// The day.
    pub date: String,
}

/// Seed of inputs and of the order of visits.
const SEED: u64 = 1;
/// Larger than last caches, and what a binding holds at most.
const LARGE: u64 = 120 << 20;
/// Lengths of chains of small kernels, and how often each is run.
const CHAINS: [u32; 6] = [20, 100, 200, 400, 800, 1600];
const CHAIN_RUNS: usize = 7;
/// Workgroups of the multiply-add probe, of 64 lanes each; a lane takes 1024 turns of 48 multiply-adds.
const FMA_GROUPS: u32 = 64;
const FMA_FLOPS: f64 = FMA_GROUPS as f64 * 64.0 * 1024.0 * 48.0 * 2.0;
/// Of them, what runs before and after every visit to tell how fast the machine is just then, and how often: some milliseconds.
const REFERENCE_GROUPS: u32 = 8;
const REFERENCE_RUNS: u32 = 3;
/// Seconds over which power is averaged: NVML's counter moves ten times a second.
const METERED: Duration = Duration::from_secs(4);
/// Dispatches of one submission meanwhile.
const METERED_RUNS: u32 = 8;

/// Measures. `watch` hears of every visit, and of how many there will be.
///
/// # Errors
/// A device that cannot time kernels, a kernel whose result is wrong, a device that fails.
pub fn measure(gpu: Gpu, plan: &CalibrationPlan, mut watch: impl FnMut(usize)) -> Result<Records> {
    let mut environment = probes(&gpu, &plan.date)?;
    let mut rig = Rig::new(gpu, SEED)?;
    environment.chains = chains(&mut rig)?;
    let probes: Vec<_> = shapes(&plan.formats).into_iter().step_by(plan.one_in.max(1)).collect();
    // The same arithmetic takes longer whenever the machine is slower: what runs beside it on a shared processor, or a lower clock.
    let scratch = rig.gpu.upload("a probe", &[0u32; 64 * 4 * REFERENCE_GROUPS as usize])?;
    let reference_us = |gpu: &Gpu| -> Result<f64> {
        Ok(timed(gpu, s::PROBE_FMA, &[], &[&scratch], [REFERENCE_GROUPS, 1, 1], REFERENCE_RUNS)? / 1e3)
    };
    let mut visits = Vec::new();
    let mut reference = vec![reference_us(&rig.gpu)?];
    let mut random = Stream::new(SEED, "order of visits");
    for _ in 0..plan.visits {
        // In an order of its own each time, so that a slow minute does not fall on one kernel alone.
        let mut order: Vec<usize> = (0..probes.len()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, random.below(last as u64 + 1) as usize);
        }
        for index in order {
            watch(probes.len() * plan.visits as usize);
            visits.push((index, rig.measure(&probes[index], plan.seconds)?));
            reference.push(reference_us(&rig.gpu)?);
        }
    }
    let spread = quartiles(&mut reference.clone());
    environment.reference_us = Some(spread);
    let mut times = vec![Vec::new(); probes.len()];
    for ((index, us), around) in visits.into_iter().zip(reference.windows(2)) {
        let speed = 2.0 * spread.1 / (around[0] + around[1]);
        times[index].push(us.into_iter().map(|us| us * speed).collect());
    }
    let row = |(probe, times): (_, &Vec<Vec<f64>>)| -> Result<Record> {
        Ok(Record::new(probe, rig.tile(&probe.kernel)?, times))
    };
    let rows = probes.iter().copied().zip(&times).map(row).collect::<Result<_>>()?;
    Ok(Records { environment, rows })
}

/// Median host time of each chain in microseconds.
fn chains(rig: &mut Rig) -> Result<Vec<(u32, f64)>> {
    let chain = |kernels: u32| {
        rig.chain(kernels)?;
        let mut us = (0..CHAIN_RUNS).map(|_| Ok(rig.chain(kernels)? * 1e6)).collect::<Result<Vec<f64>>>()?;
        us.sort_by(f64::total_cmp);
        Ok((kernels, thousandths(us[CHAIN_RUNS / 2])))
    };
    CHAINS.into_iter().map(chain).collect()
}

fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn probes(gpu: &Gpu, date: &str) -> Result<Environment> {
    // Values of the order of one: a half of 1.0 in each 16 bits.
    let ones = vec![0x3c00_3c00u32; (LARGE / 4) as usize];
    let (input, output) = (gpu.upload("a probe", &ones)?, gpu.upload("a probe", &ones)?);
    let drawn = match Counter::of(gpu.info(), Path::new(POWERCAP)) {
        Some(counter) => drawn(gpu, &counter, &input, &output)?,
        None => None,
    };
    let time = |shader, constants: Overrides, buffers: &[&Buffer], groups| {
        timed(gpu, shader, constants, buffers, [groups, 1, 1], 11)
    };
    let copy = time(s::PROBE_COPY, &[("WORKGROUP", 256.0)], &[&input, &output], (LARGE / 16 / 256) as u32)?;
    let read = |bytes: u64| -> Result<f64> {
        let part = gpu.upload("a probe", &ones[..(bytes / 4) as usize])?;
        let ns = time(s::PROBE_READ, &[], &[&part, &output], read_groups(bytes))?;
        Ok(thousandths(bytes as f64 / ns))
    };
    let fma = time(s::PROBE_FMA, &[], &[&output], FMA_GROUPS)?;
    let sizes = [64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20];
    let info = gpu.info();
    let settings = ["LP_NUM_THREADS"]
        .map(|name| format!("{name}={}", std::env::var(name).unwrap_or_else(|_| "unset".into())));
    Ok(Environment {
        adapter: format!("{} ({}), {}", info.name, info.kind, info.driver),
        processor: processor(),
        settings: settings.join(" "),
        version: env!("CARGO_PKG_VERSION").into(),
        date: date.into(),
        copy_gb_per_s: thousandths(2.0 * LARGE as f64 / copy),
        read_gb_per_s: read(LARGE)?,
        read_by_bytes: sizes.into_iter().map(|bytes| Ok((bytes, read(bytes)?))).collect::<Result<_>>()?,
        fma_gflops: thousandths(FMA_FLOPS / fma),
        empty_us: thousandths(time(s::PROBE_EMPTY, &[], &[&output], 1)? / 1e3),
        chains: Vec::new(),
        reference_us: None,
        drawn,
    })
}

/// Workgroups of the read probe for so many bytes: 512 lanes that take eight times 16 bytes.
fn read_groups(bytes: u64) -> u32 {
    (bytes / 16 / 512 / 8) as u32
}

/// Mean power while the device sleeps, does nothing, reads, and computes; nothing where the counter fails meanwhile.
fn drawn(gpu: &Gpu, counter: &Counter, input: &Buffer, output: &Buffer) -> Result<Option<Drawn>> {
    let metered = |mut work: Box<dyn FnMut() -> Result<f64> + '_>| -> Result<Option<(f64, f64)>> {
        work()?;
        let (before, begin, mut done) = (counter.joules(), Instant::now(), 0.0);
        while begin.elapsed() < METERED {
            done += work()?;
        }
        let seconds = begin.elapsed().as_secs_f64();
        let joules = before.zip(counter.joules()).map(|(before, after)| after - before);
        Ok(joules.map(|joules| (thousandths(joules / seconds), thousandths(done / seconds * 1e-9))))
    };
    let busy = |shader, buffers: &[&Buffer], workgroups, amount: f64| -> Result<Option<(f64, f64)>> {
        let recording = repeated(gpu, shader, &[], buffers, [workgroups, 1, 1], METERED_RUNS)?;
        metered(Box::new(move || {
            gpu.run_timed(&recording)?;
            Ok(amount * f64::from(METERED_RUNS))
        }))
    };
    let idle = metered(Box::new(|| {
        std::thread::sleep(METERED / 8);
        Ok(0.0)
    }))?;
    let empty = busy(s::PROBE_EMPTY, &[output], 1, 0.0)?;
    let read = busy(s::PROBE_READ, &[input, output], read_groups(LARGE), LARGE as f64)?;
    let fma = busy(s::PROBE_FMA, &[output], FMA_GROUPS, FMA_FLOPS)?;
    let (Some(idle), Some(empty), Some(read), Some(fma)) = (idle, empty, read, fma) else { return Ok(None) };
    Ok(Some(Drawn {
        counter: counter.name(),
        idle_w: idle.0,
        empty_w: empty.0,
        read_w: read.0,
        read_gb_per_s: read.1,
        fma_w: fma.0,
        fma_gflops: fma.1,
    }))
}

/// A recording of the same dispatch again and again.
fn repeated(
    gpu: &Gpu,
    shader: Shader,
    constants: Overrides,
    buffers: &[&Buffer],
    workgroups: [u32; 3],
    times: u32,
) -> Result<Recording> {
    let pipeline = gpu.pipeline(shader, constants)?;
    let mut recording = Recording::default();
    for _ in 0..times {
        let bindings = buffers.iter().map(|&buffer| Binding::from(buffer)).collect();
        recording.push(KernelDispatch {
            pipeline: pipeline.clone(),
            bindings,
            parameters: Vec::new(),
            workgroups,
        });
    }
    Ok(recording)
}

/// Median time in nanoseconds of some runs behind one that warms up.
fn timed(
    gpu: &Gpu,
    shader: Shader,
    constants: Overrides,
    buffers: &[&Buffer],
    workgroups: [u32; 3],
    runs: u32,
) -> Result<f64> {
    let recording = repeated(gpu, shader, constants, buffers, workgroups, runs + 1)?;
    let timing = gpu.run_timed(&recording)?;
    let mut times: Vec<u64> = timing.kernels_ns.iter().skip(1).map(|(begin, end)| end - begin).collect();
    times.sort_unstable();
    Ok(times.get(times.len() / 2).map_or(f64::NAN, |&ns| ns.max(1) as f64))
}

/// Model, family and stepping, as Linux says them; names alone do not tell generations of one vendor apart.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == key));
        line.and_then(|line| line.split(':').nth(1)).map_or("?", str::trim).to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let [model, family, number, cache] = ["model name", "cpu family", "model", "cache size"].map(value);
    format!("{model}, family {family} model {number}, cache {cache}, {cores} cores")
}
