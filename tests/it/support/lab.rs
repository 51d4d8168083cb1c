//! A bench for laws: a model, a device and routes in, a ledger out.

use radialsim::batch::{Decisions, Policy, Visibility};
use radialsim::cost::{Device, Limits};
use radialsim::hw::Hardware;
use radialsim::kernel::Density;
use radialsim::lower::{Dispatch, RouterPlan};
use radialsim::metrics::{Ledger, Summary};
use radialsim::model::Model;
use radialsim::sched::Serving;
use radialsim::sim::{Fidelity, Setup, Silent, run};
use radialsim::trace::synth::{Method, generate};
use radialsim::trace::{Order, RouterKind, Trace};
use radialsim::workload::{Arrivals, Length, Lengths, requests};

/// A run under construction; change what a law is about.
pub struct Lab {
    pub setup: Setup,
}

impl Lab {
    /// `model` on `hardware`, aligned, no graphs, `batch` sequences at once.
    pub fn new(model: &str, hardware: &str, batch: u32) -> Self {
        let model = Model::builtin(model).expect("a built-in model");
        let dispatch = Dispatch {
            policy: Policy::Aligned,
            capture: Vec::new(),
            visibility: Visibility::SameLayer,
            nested_width: false,
            density: Density::Dense,
            router: RouterPlan::FREE,
            monotone: true,
            decisions: Decisions::Known,
        };
        let serving = Serving { kv_block_tokens: 1, ..Serving::new(1 << 14, batch, true) };
        let hardware = Hardware::datasheet(hardware).expect("a shipped device");
        Lab {
            setup: Setup {
                ranks: None,
                placed: None,
                model,
                hardware,
                limits: Limits::default(),
                experts: radialsim::batch::ExpertUse::default(),
                clients: None,
                sessions: None,
                serving,
                dispatch,
                tiers: None,
                fidelity: Fidelity::Kernel,
                explain: false,
                against: None,
            },
        }
    }

    pub fn policy(mut self, policy: Policy) -> Self {
        self.setup.dispatch.policy = policy;
        self
    }

    /// Routes by this method for `count` requests that all come at once.
    pub fn trace(&self, method: &Method, count: u32, prompt: u32, output: u32, seed: u64) -> Trace {
        let lengths = Lengths { prompt: Length::Fixed(prompt), output: Length::Fixed(output) };
        let requests = requests(count, &lengths, &Arrivals::Closed, seed).expect("valid lengths");
        generate(method, self.setup.model.layers, requests, seed).expect("a valid method")
    }

    /// Runs the trace with the router that its header names.
    pub fn run(&self, trace: &Trace) -> Ledger {
        let mut setup = self.setup.clone();
        let marked = trace.routes.iter().any(|route| route.0.iter().any(|step| step.routed));
        setup.dispatch.router = RouterPlan::new(&trace.header.router, &trace.header, marked);
        setup.dispatch.nested_width = trace.header.router.kind == RouterKind::Fixed;
        setup.dispatch.monotone = trace.header.order == Order::Monotone;
        let ledger = run(&setup, trace, &mut Silent).expect("a scenario that fits");
        setup.fidelity = Fidelity::Step;
        let steps = run(&setup, trace, &mut Silent).expect("a scenario that fits");
        self.same(&ledger, &steps);
        ledger
    }

    /// Passes as single events come to what kernels as events come to: the digest, and all else that both add up.
    fn same(&self, kernels: &Ledger, steps: &Ledger) {
        let (one, other) = (self.summary(kernels), self.summary(steps));
        assert_eq!(one, other, "the two fidelities");
        assert_eq!(kernels.by_cause, steps.by_cause, "time by cause");
        assert_eq!(kernels.by_bound, steps.by_bound, "time by bound");
        assert_eq!(kernels.losses, steps.losses, "where the saving went");
    }

    pub fn summary(&self, ledger: &Ledger) -> Summary {
        let device = Device::new(&self.setup.hardware, self.setup.limits).expect("valid limits");
        Summary::new(ledger, &device, &self.setup.model)
    }

    /// Time with a pass in flight, milliseconds, for `batch` requests of one prompt token: every pass has `batch` tokens.
    pub fn pass_ms(&self, method: &Method, output: u32) -> f64 {
        let batch = self.setup.serving.max_sequences;
        let ledger = self.run(&self.trace(method, batch, 1, output, 7));
        ledger.pass_ps as f64 / 1e9 / ledger.passes as f64
    }
}

/// RON of a method, as in a scenario.
pub fn method(text: &str) -> Method {
    radialsim::ron_text::parse(text, "a method").unwrap_or_else(|error| panic!("{text}: {error}"))
}
