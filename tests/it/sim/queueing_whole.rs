//! Closed forms of queueing theory through the whole simulator: trace, scheduler, lowering, prices, engine and ledger.
//!
//! With `max_sequences: 1` the device is one server, first come, first served. How long it serves a request is a fixed
//! function of what the request is, so each kind is run alone first, and the moments of the service are exact sums over the
//! kinds. Poisson arrivals then make an M/G/1 queue, whose mean wait is that of Pollaczek and Khinchine.

use crate::lab::Lab;
use radialsim::metrics::Ledger;
use radialsim::rng::Stream;
use radialsim::sim::fleet::{self, Fleet};
use radialsim::sim::{Fidelity, Setup, Silent, run};
use radialsim::trace::{Header, Phase, Request, Role, Route, RouteIds, RouteTable, Run, Trace};
use radialsim::units::SimTime;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Independent replications of each system.
const REPLICATIONS: u64 = 24;

/// One kind of request: its tokens and which route they take.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    prompt: u32,
    output: u32,
    route: u32,
}

impl Kind {
    fn request(self, id: u64, arrival: SimTime) -> Request {
        let routed = |start, phase, tokens| Run {
            start,
            phase,
            role: Role::Plain,
            routes: RouteIds::same(self.route, tokens),
            accepted: Vec::new(),
        };
        let mut runs = vec![routed(0, Phase::Prefill, self.prompt)];
        if self.output > 1 {
            runs.push(routed(self.prompt, Phase::Decode, self.output - 1));
        }
        let (prompt_tokens, output_tokens) = (self.prompt, self.output);
        Request { id, arrival, prompt_tokens, output_tokens, priority: 0, prefix: Vec::new(), runs }
    }
}

/// A server, and a distribution over kinds of requests with the time that each takes alone.
pub struct System {
    setup: Setup,
    kinds: Vec<(Kind, f64, SimTime)>,
}

fn setup() -> Setup {
    let mut lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 1);
    lab.setup.fidelity = Fidelity::Step;
    // The host's own time would put a floor below every service time.
    lab.setup.hardware.launch.step_us.value = 0.0;
    lab.setup.hardware.launch.kernel_us.value = 0.0;
    lab.setup
}

/// Routes 0: every layer, 1: the first half of them.
fn trace(setup: &Setup, requests: Vec<Request>) -> Trace {
    let layers = setup.model.layers;
    let mut routes = RouteTable::default();
    routes.intern(Route::dense(layers));
    routes.intern(Route::of_layers(0..layers / 2));
    Trace { header: Header::dense(&setup.model.name, layers), routes, requests }
}

fn alone(setup: &Setup, kind: Kind) -> SimTime {
    let ledger = run(setup, &trace(setup, vec![kind.request(0, SimTime::ZERO)]), &mut Silent);
    ledger.expect("one request fits").makespan
}

impl System {
    fn new(setup: Setup, kinds: &[(Kind, f64)]) -> Self {
        let kinds = kinds.iter().map(|&(kind, share)| (kind, share, alone(&setup, kind))).collect();
        System { setup, kinds }
    }

    pub fn moment(&self, power: i32) -> f64 {
        self.kinds.iter().map(|(_, share, time)| share * time.s().powi(power)).sum()
    }

    /// Mean wait over mean service: rho (1 + c^2) / (2 (1 - rho)), c the coefficient of variation of the service.
    fn expected(&self, utilisation: f64) -> f64 {
        let squared = self.moment(2) / self.moment(1).powi(2);
        utilisation * squared / (2.0 * (1.0 - utilisation))
    }

    /// Mean wait of `customers`, those of the warm-up left out, over the mean service; and the share who did not wait.
    fn measured(&self, seed: u64, utilisation: f64, customers: u32) -> (f64, f64) {
        self.measured_on(&Fleet::ALONE, seed, utilisation, customers)
    }

    /// The same on several servers, of which each has this utilisation.
    pub fn measured_on(&self, fleet: &Fleet, seed: u64, utilisation: f64, customers: u32) -> (f64, f64) {
        let (mut gaps, mut drawn) = (Stream::new(seed, "gaps"), Stream::new(seed, "kinds"));
        let (mean, mut at) = (self.moment(1), 0.0);
        let shares: Vec<f64> = self
            .kinds
            .iter()
            .scan(0.0, |sum, (_, share, _)| {
                *sum += share;
                Some(*sum)
            })
            .collect();
        let requests = (0..customers).map(|id| {
            at += gaps.exponential(mean / utilisation / f64::from(fleet.replicas));
            let point = drawn.uniform();
            let which = shares.partition_point(|&sum| sum <= point).min(shares.len() - 1);
            self.kinds[which].0.request(id.into(), SimTime::from_us(at * 1e6))
        });
        let trace = trace(&self.setup, requests.collect());
        let device = self.setup.device().expect("valid");
        let mut watchers = vec![Silent; fleet.replicas as usize];
        let ledgers = fleet::run(&device, &self.setup, (&trace, None), fleet, &mut watchers, false);
        let ledger = Ledger::of_replicas(ledgers.expect("a load that fits"));
        let mut waits: Vec<(u64, SimTime)> =
            ledger.requests.iter().map(|request| (request.id, request.scheduled - request.arrival)).collect();
        waits.sort_unstable();
        let steady = &waits[waits.len() / 5..];
        let sum: f64 = steady.iter().map(|(_, wait)| wait.s()).sum();
        let at_once = steady.iter().filter(|(_, wait)| *wait == SimTime::ZERO).count();
        (sum / steady.len() as f64 / mean, at_once as f64 / steady.len() as f64)
    }

    /// The closed form lies in the 99 % interval of the mean wait over independent replications, which is narrow enough to
    /// tell; so does the share who do not wait, 1 - rho. `customers`: of a replication at each utilisation. `neighbour`: squared coefficient of variation of another service,
    /// whose closed form must lie outside.
    #[expect(clippy::print_stdout, reason = "the waits are what one runs it with --nocapture for")]
    fn check(&self, name: &str, customers: [u32; 3], neighbour: f64) {
        for (utilisation, customers) in [0.5, 0.8, 0.95].into_iter().zip(customers) {
            let runs = (1..=REPLICATIONS).map(|seed| self.measured(seed, utilisation, customers));
            let (waits, at_once): (Vec<f64>, Vec<f64>) = runs.unzip();
            let (mean, half) = interval(&waits);
            let expected = self.expected(utilisation);
            println!(
                "{name} at {utilisation}: wait {mean:.4} +- {half:.4} of the mean service, expected {expected:.4}"
            );
            assert!((mean - expected).abs() <= half, "{name} at {utilisation}");
            assert!(half <= 0.08 * expected, "too wide to tell: {name} at {utilisation}");
            let other = utilisation * (1.0 + neighbour) / (2.0 * (1.0 - utilisation));
            assert!((mean - other).abs() > half, "{name} at {utilisation} passes for another service");
            let (free, half) = interval(&at_once);
            assert!(
                (free - (1.0 - utilisation)).abs() <= half,
                "{name} at {utilisation}: {free} +- {half} do not wait"
            );
        }
    }
}

/// Mean and half width of its 99 % interval by Student's t.
pub fn interval(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let student = StudentsT::new(0.0, 1.0, count - 1.0).expect("more than one replication");
    (mean, student.inverse_cdf(0.995) * (variance / count).sqrt())
}

#[test]
fn m_d_1_waits_as_pollaczek_and_khinchine_say() {
    let system = System::new(setup(), &[(Kind { prompt: 64, output: 1, route: 0 }, 1.0)]);
    assert!((system.expected(0.5) - 0.5).abs() < 1e-12);
    system.check("M/D/1", [5_000, 20_000, 100_000], 1.0);
}

/// Prompts whose time is exponential: it grows with the length, so each length stands for the times nearest to its own.
/// The device is made up for it, without the floors that a real one puts below short prompts: products in tiles of one row
/// on one unit, no fixed time of a kernel, and memory so fast that weights cost nothing.
pub fn exponential() -> System {
    const LONGEST: u32 = 420;
    let mut setup = setup();
    let hardware = &mut setup.hardware;
    hardware.compute.units.value = 1.0;
    hardware.compute.tiles = vec![(1, 64)];
    hardware.memory.dram_gb_per_s.value *= 1e3;
    hardware.memory.l2_gb_per_s.value *= 1e3;
    let kernels = &mut hardware.kernels;
    for class in [
        &mut kernels.matmul,
        &mut kernels.prefill_attention,
        &mut kernels.decode_attention,
        &mut kernels.elementwise,
        &mut kernels.gather,
    ] {
        class.fixed_us.value = 0.0;
    }
    let kinds = (1..=LONGEST).map(|prompt| Kind { prompt, output: 1, route: 0 });
    let timed: Vec<(Kind, f64)> = kinds.map(|kind| (kind, alone(&setup, kind).s())).collect();
    assert!(timed.is_sorted_by(|(_, shorter), (_, longer)| shorter < longer), "time grows with the length");
    let mean = timed[LONGEST as usize - 1].1 / 14.0;
    let beyond = |time: f64| (-time / mean).exp();
    let borders = timed.windows(2).map(|pair| beyond((pair[0].1 + pair[1].1) / 2.0));
    let borders: Vec<f64> = std::iter::once(1.0).chain(borders).chain([0.0]).collect();
    let kinds: Vec<(Kind, f64)> =
        timed.iter().zip(borders.windows(2)).map(|(&(kind, _), pair)| (kind, pair[0] - pair[1])).collect();
    System::new(setup, &kinds)
}

#[test]
fn m_m_1_waits_as_erlang_says() {
    let system = exponential();
    for utilisation in [0.5, 0.8, 0.95] {
        let exponential = utilisation / (1.0 - utilisation);
        let off = system.expected(utilisation) / exponential - 1.0;
        assert!(off.abs() < 0.002, "the service is as good as exponential: {off}");
    }
    system.check("M/M/1", [10_000, 30_000, 200_000], 0.5);
}

/// Short and long answers, on all layers and on half of them: the routes shape the service, and it varies more than an
/// exponential one.
#[test]
fn m_g_1_waits_as_pollaczek_and_khinchine_say() {
    let kind = |prompt, output, route| Kind { prompt, output, route };
    let kinds =
        [(kind(16, 1, 0), 0.5), (kind(16, 1, 1), 0.4), (kind(512, 12, 0), 0.06), (kind(512, 12, 1), 0.04)];
    let system = System::new(setup(), &kinds);
    let squared = system.moment(2) / system.moment(1).powi(2) - 1.0;
    assert!(squared > 1.5, "a service that varies much: {squared}");
    system.check("M/G/1", [10_000, 30_000, 200_000], 1.0);
}
