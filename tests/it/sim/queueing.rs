//! Closed forms of queueing theory on the bare engine: a wrong clock, lost work or a wrong discipline shifts the mean wait.

use radialsim::engine::{Engine, Occurrence, Plan, ResourceId, Task};
use radialsim::rng::Stream;
use radialsim::units::SimTime;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Mean service, microseconds; all waits below are in units of it.
const SERVICE_US: f64 = 1.0;

/// Independent replications of each system.
const REPLICATIONS: u64 = 24;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Service {
    Deterministic,
    Exponential,
}

/// Mean wait of `customers` Poisson arrivals, those of the warm-up left out: timers bring plans of one task.
fn mean_wait(seed: u64, service: Service, servers: u32, utilisation: f64, customers: u64) -> f64 {
    let (mut gaps, mut services) = (Stream::new(seed, "gaps"), Stream::new(seed, "services"));
    let mut engine = Engine::new();
    let resource = engine.add_resource("server", servers);
    let gap_us = SERVICE_US / (utilisation * f64::from(servers));
    let warm_up = customers / 5;
    let (mut arrived, mut started, mut wait, mut idle) = (0, 0, 0.0, Vec::new());
    engine.set_timer(SimTime::ZERO, 0);
    loop {
        let mut log = |ended: &radialsim::engine::Ended| {
            started += 1;
            if started > warm_up {
                wait += (ended.start - ended.ready).us();
            }
        };
        match engine.run(&mut log) {
            Occurrence::Timer(_) => {
                arrived += 1;
                let us = match service {
                    Service::Deterministic => SERVICE_US,
                    Service::Exponential => services.exponential(SERVICE_US),
                };
                engine.submit(one(idle.pop().unwrap_or_default(), resource, us));
                if arrived < customers {
                    engine.set_timer(engine.now() + SimTime::from_us(gaps.exponential(gap_us)), 0);
                }
            }
            Occurrence::PlanDone(plan) => idle.push(plan),
            Occurrence::Idle => return wait / (customers - warm_up) as f64,
        }
    }
}

fn one(mut plan: Plan, resource: ResourceId, us: f64) -> Plan {
    plan.clear();
    plan.push(Task { resource, duration: SimTime::from_us(us) }, &[]);
    plan
}

/// Mean wait in the steady state, in units of the mean service.
pub fn expected(service: Service, servers: u32, utilisation: f64) -> f64 {
    let load = utilisation * f64::from(servers);
    match service {
        // Pollaczek and Khinchine with no variance of the service.
        Service::Deterministic => {
            assert_eq!(servers, 1, "M/D/c has no closed form as short");
            utilisation / (2.0 * (1.0 - utilisation))
        }
        // Erlang's C formula: the chance of waiting, times the mean wait of those who wait.
        Service::Exponential => {
            let (mut term, mut sum) = (1.0, 0.0);
            for n in 0..servers {
                sum += term;
                term *= load / f64::from(n + 1);
            }
            let all_busy = term / (1.0 - utilisation);
            all_busy / (sum + all_busy) / (f64::from(servers) - load)
        }
    }
}

/// The closed form lies within the 99 % confidence interval of independent replications, and the interval is narrow
/// enough to tell it from the neighbours: at most 8 % to either side.
fn check(service: Service, servers: u32) {
    for (utilisation, customers) in [(0.5, 20_000), (0.8, 50_000), (0.95, 200_000)] {
        let waits: Vec<f64> = (1..=REPLICATIONS)
            .map(|seed| mean_wait(seed, service, servers, utilisation, customers))
            .collect();
        let count = waits.len() as f64;
        let mean = waits.iter().sum::<f64>() / count;
        let variance = waits.iter().map(|wait| (wait - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let student = StudentsT::new(0.0, 1.0, count - 1.0).expect("more than one replication");
        let half = student.inverse_cdf(0.995) * (variance / count).sqrt();
        let expected = expected(service, servers, utilisation);
        let said = format!("{service:?} x {servers} at {utilisation}: {mean} +- {half}, expected {expected}");
        assert!((mean - expected).abs() <= half, "{said}");
        assert!(half <= 0.08 * expected, "too wide to tell: {said}");
    }
}

#[test]
fn erlang_c_of_one_server_is_the_textbook_form() {
    // M/M/1: utilisation / (1 - utilisation). M/M/4 at load 2: C = 4/23, wait = C / (4 - 2) = 2/23.
    assert!((expected(Service::Exponential, 1, 0.8) - 4.0).abs() < 1e-12);
    assert!((expected(Service::Exponential, 4, 0.5) - 2.0 / 23.0).abs() < 1e-12);
}

#[test]
fn m_d_1_waits_as_pollaczek_and_khinchine_say() {
    check(Service::Deterministic, 1);
}

#[test]
fn m_m_1_waits_as_erlang_says() {
    check(Service::Exponential, 1);
}

#[test]
fn m_m_4_waits_as_erlang_says() {
    check(Service::Exponential, 4);
}
