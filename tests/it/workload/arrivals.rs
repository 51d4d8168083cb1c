//! Drawn arrivals, lengths and priorities: do they follow their formulas, each from its own stream?

use radialsim::error::Error;
use radialsim::rng::Stream;
use radialsim::units::SimTime;
use radialsim::workload::*;
use statrs::distribution::{ContinuousCDF, Gamma, Weibull};

const COUNT: u32 = 40_000;
/// Standard errors that an estimate may be off. Seeds are fixed, so a failure is a change and no chance.
const Z: f64 = 4.0;

fn lengths(output: Length) -> Lengths {
    Lengths { prompt: Length::LogNormal { median: 300.0, sigma: 0.7, most: 9000 }, output }
}

/// Gaps between arrivals in seconds, the first one from 0.
fn gaps(arrivals: &Arrivals, seed: u64) -> Vec<f64> {
    let made = requests(COUNT, &lengths(Length::Fixed(1)), arrivals, seed).unwrap();
    let times: Vec<f64> = made.iter().map(|request| request.arrival.s()).collect();
    assert!(times.is_sorted());
    std::iter::once(times[0]).chain(times.windows(2).map(|pair| pair[1] - pair[0])).collect()
}

/// Mean and variance are within Z standard errors of those with this mean, standard deviation and fourth central moment.
fn has_moments(gaps: &[f64], mean: f64, sd: f64, fourth: f64) {
    let n = gaps.len() as f64;
    let found = gaps.iter().sum::<f64>() / n;
    let z = (found - mean) / (sd / n.sqrt());
    assert!(z.abs() <= Z, "mean {found}, not {mean}: z {z}");
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n;
    let z = (variance - sd * sd) / ((fourth - sd.powi(4)) / n).sqrt();
    assert!(z.abs() <= Z, "coefficient of variation {}, not {}: z {z}", variance.sqrt() / mean, sd / mean);
}

/// Largest distance of the empirical distribution from `cdf`, times the root of the count (Kolmogorov).
fn kolmogorov(gaps: &[f64], cdf: impl Fn(f64) -> f64) -> f64 {
    let mut sorted = gaps.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let distance = |(rank, &gap): (usize, &f64)| {
        let at = cdf(gap);
        (at - rank as f64 / n).abs().max((rank as f64 + 1.0) / n - at)
    };
    sorted.iter().enumerate().map(distance).fold(0.0, f64::max) * n.sqrt()
}

/// 99.99 % of samples of the right distribution stay below this: 2 exp(-2 x^2) = 1e-4.
const KOLMOGOROV: f64 = 2.23;

#[test]
fn gamma_gaps_have_their_mean_and_variation() {
    for (rate, cv) in [(5.0, 0.3), (5.0, 1.0), (0.2, 2.0), (100.0, 4.0)] {
        let gaps = gaps(&Arrivals::Gamma { rate_per_s: rate, cv }, 3);
        let (mean, sd) = (1.0 / rate, cv / rate);
        // Kurtosis of a gamma distribution of shape k = 1/cv^2: 3 + 6/k.
        has_moments(&gaps, mean, sd, sd.powi(4) * (3.0 + 6.0 * cv * cv));
        // Of the draws themselves: arrivals are whole picoseconds, which the shortest gaps are below.
        let mut stream = Stream::new(3, "arrivals");
        let shape = 1.0 / (cv * cv);
        let draws: Vec<f64> = (0..COUNT).map(|_| stream.gamma(shape)).collect();
        let gamma = Gamma::new(shape, 1.0).unwrap();
        let off = kolmogorov(&draws, |draw| gamma.cdf(draw));
        assert!(off < KOLMOGOROV, "{rate} {cv}: {off}");
    }
}

#[test]
fn weibull_gaps_have_their_mean_and_variation() {
    let g = |x: f64| statrs::function::gamma::gamma(x);
    for (rate, shape) in [(5.0, 0.5), (5.0, 1.0), (0.2, 3.0)] {
        let gaps = gaps(&Arrivals::Weibull { rate_per_s: rate, shape }, 4);
        let scale = 1.0 / (rate * g(1.0 + 1.0 / shape));
        // Raw moments: scale^n G(1 + n/k).
        let [m1, m2, m3, m4] = [1, 2, 3, 4].map(|n| scale.powi(n) * g(1.0 + f64::from(n) / shape));
        assert!((m1 - 1.0 / rate).abs() < 1e-9);
        let fourth = m4 - 4.0 * m1 * m3 + 6.0 * m1 * m1 * m2 - 3.0 * m1.powi(4);
        has_moments(&gaps, m1, (m2 - m1 * m1).sqrt(), fourth);
        let weibull = Weibull::new(shape, scale).unwrap();
        let off = kolmogorov(&gaps, |gap| weibull.cdf(gap));
        assert!(off < KOLMOGOROV, "{rate} {shape}: {off}");
    }
}

/// Gamma with a coefficient of 1 and Weibull with a shape of 1 are Poisson, and those with others are told apart from it.
#[test]
fn special_cases_are_poisson() {
    let exponential = |gap: f64| 1.0 - (-3.0 * gap).exp();
    for (arrivals, poisson) in [
        (Arrivals::Poisson { rate_per_s: 3.0 }, true),
        (Arrivals::Gamma { rate_per_s: 3.0, cv: 1.0 }, true),
        (Arrivals::Weibull { rate_per_s: 3.0, shape: 1.0 }, true),
        (Arrivals::Gamma { rate_per_s: 3.0, cv: 1.1 }, false),
        (Arrivals::Weibull { rate_per_s: 3.0, shape: 0.9 }, false),
    ] {
        let off = kolmogorov(&gaps(&arrivals, 5), exponential);
        assert_eq!(off < KOLMOGOROV, poisson, "{arrivals:?}: {off}");
    }
}

/// What the first kinds of arrivals and lengths draw is fixed: these streams, in this order.
#[test]
fn the_old_kinds_draw_as_ever() {
    let made = requests(
        100,
        &lengths(Length::Uniform { low: 3, high: 70 }),
        &Arrivals::Poisson { rate_per_s: 4.0 },
        9,
    );
    let (mut of_lengths, mut of_arrivals) = (Stream::new(9, "lengths"), Stream::new(9, "arrivals"));
    let mut now = 0.0;
    for request in made.unwrap() {
        now += of_arrivals.exponential(0.25);
        assert_eq!(request.arrival, SimTime::from_s(now));
        assert_eq!(request.prompt_tokens, (of_lengths.log_normal(300.0, 0.7).round() as u32).clamp(1, 9000));
        assert_eq!(request.output_tokens, 3 + of_lengths.below(68) as u32);
        assert_eq!(request.priority, 0);
    }
}

#[test]
fn bursts_come_at_their_distance() {
    let bursts = Arrivals::Bursts { size: 3, gap_s: 2.0, within_s: 0.75 };
    let made = requests(7, &lengths(Length::Fixed(1)), &bursts, 1).unwrap();
    let times: Vec<f64> = made.iter().map(|request| request.arrival.s()).collect();
    assert_eq!(times, [0.0, 0.25, 0.5, 2.0, 2.25, 2.5, 4.0]);
}

#[test]
fn geometric_lengths_have_their_probabilities() {
    for mean in [1.0, 1.5, 20.0] {
        let length = Length::Geometric { mean, most: 1000 };
        let made = requests(COUNT, &lengths(length), &Arrivals::Closed, 2).unwrap();
        let p: f64 = 1.0 / mean;
        for n in 1..=4_u32 {
            let expected = p * (1.0 - p).powi(n as i32 - 1);
            let found = made.iter().filter(|r| r.output_tokens == n).count() as f64 / f64::from(COUNT);
            let error = (expected * (1.0 - expected) / f64::from(COUNT)).sqrt();
            assert!((found - expected).abs() <= Z * error, "mean {mean}, {n}: {found}, not {expected}");
        }
        let found = made.iter().map(|r| f64::from(r.output_tokens)).sum::<f64>() / f64::from(COUNT);
        let error = ((1.0 - p) / (p * p) / f64::from(COUNT)).sqrt();
        assert!((found - mean).abs() <= Z * error, "mean {found}, not {mean}");
    }
}

#[test]
fn priorities_have_their_shares_and_their_own_stream() {
    let share = |priority, share| PriorityShare { priority, share };
    let spec = RequestsSpec {
        count: COUNT,
        lengths: lengths(Length::Fixed(5)),
        arrivals: Arrivals::Poisson { rate_per_s: 1.0 },
        priorities: vec![share(7, 0.1), share(2, 0.9)],
    };
    let with = spec.load(1).unwrap();
    let urgent = with.requests.iter().filter(|request| request.priority == 2).count() as f64;
    assert!((urgent / f64::from(COUNT) - 0.9).abs() <= Z * (0.09 / f64::from(COUNT)).sqrt(), "{urgent}");
    assert!(with.requests.iter().all(|request| matches!(request.priority, 2 | 7)));
    let mut plain = RequestsSpec { priorities: Vec::new(), ..spec.clone() }.load(1).unwrap();
    for (request, other) in plain.requests.iter_mut().zip(&with.requests) {
        assert_eq!(request.priority, 0);
        request.priority = other.priority;
    }
    assert_eq!(plain, with, "nothing else changes");
    for (wrong, key) in [
        (vec![share(0, 0.5)], "priorities"),
        (vec![share(0, 1.5), share(1, -0.5)], "priorities[0].share"),
        (vec![share(0, f64::NAN)], "priorities[0].share"),
    ] {
        let Err(Error::Input(error)) = (RequestsSpec { priorities: wrong, ..spec.clone() }).load(1) else {
            panic!("{key}")
        };
        assert_eq!(error.key.as_deref(), Some(key));
    }
}

#[test]
fn clients_think_as_long_as_asked() {
    let arrivals = |think_s| Arrivals::Clients { count: 8, think_s };
    let exponential = arrivals(Think::Exponential(2.5));
    let clients = exponential.clients(COUNT as usize, 6).unwrap().unwrap();
    assert_eq!((clients.count, clients.think.len()), (8, COUNT as usize));
    let think: Vec<f64> = clients.think.iter().map(|pause| pause.s()).collect();
    has_moments(&think, 2.5, 2.5, 9.0 * 2.5_f64.powi(4));
    // A pause depends on its place and the seed only.
    let fewer = exponential.clients(10, 6).unwrap().unwrap();
    assert_eq!(fewer.think, clients.think[..10]);
    assert_ne!(exponential.clients(10, 7).unwrap().unwrap(), fewer);
    let fixed = arrivals(Think::Fixed(0.0)).clients(3, 6).unwrap().unwrap();
    assert_eq!(fixed.think, [SimTime::ZERO; 3]);
    let made = requests(20, &lengths(Length::Fixed(1)), &exponential, 1).unwrap();
    assert!(made.iter().all(|request| request.arrival == SimTime::ZERO));
    assert_eq!(Arrivals::Closed.clients(3, 1).unwrap(), None);
}

#[test]
fn parameters_out_of_range_are_named() {
    let rate_per_s = 1.0;
    for (arrivals, key) in [
        (Arrivals::Gamma { rate_per_s: -1.0, cv: 1.0 }, "arrivals.rate_per_s"),
        (Arrivals::Gamma { rate_per_s, cv: 0.0 }, "arrivals.cv"),
        (Arrivals::Gamma { rate_per_s, cv: f64::NAN }, "arrivals.cv"),
        (Arrivals::Weibull { rate_per_s, shape: 0.01 }, "arrivals.shape"),
        (Arrivals::Weibull { rate_per_s: f64::INFINITY, shape: 1.0 }, "arrivals.rate_per_s"),
        (Arrivals::Bursts { size: 0, gap_s: 1.0, within_s: 0.0 }, "arrivals.size"),
        (Arrivals::Bursts { size: 1, gap_s: 1.0, within_s: 1.5 }, "arrivals.within_s"),
        (Arrivals::Bursts { size: 1, gap_s: 1e300, within_s: 0.0 }, "arrivals"),
        (Arrivals::Clients { count: 0, think_s: Think::Fixed(1.0) }, "arrivals.count"),
        (Arrivals::Clients { count: 1, think_s: Think::Exponential(-1.0) }, "arrivals.think_s"),
    ] {
        let Err(Error::Input(error)) = requests(3, &lengths(Length::Fixed(1)), &arrivals, 1) else {
            panic!("{arrivals:?}")
        };
        assert_eq!(error.key.as_deref(), Some(key), "{error}");
    }
    for (length, key) in [
        (Length::Geometric { mean: 0.5, most: 10 }, "lengths.output.mean"),
        (Length::Geometric { mean: 11.0, most: 10 }, "lengths.output.mean"),
        (Length::Geometric { mean: 5.0, most: 0 }, "lengths.output.most"),
    ] {
        let Err(Error::Input(error)) = requests(3, &lengths(length), &Arrivals::Closed, 1) else {
            panic!("{key}")
        };
        assert_eq!(error.key.as_deref(), Some(key), "{error}");
    }
    let Err(Error::Input(error)) = requests(u32::MAX, &lengths(Length::Fixed(1)), &Arrivals::Closed, 1)
    else {
        panic!("too many")
    };
    assert_eq!(error.key.as_deref(), Some("count"));
}
