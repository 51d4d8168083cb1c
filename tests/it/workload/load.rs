//! Generated requests: do lengths and arrivals follow the distributions asked for, each on its own?

use radialsim::error::Error;
use radialsim::units::SimTime;
use radialsim::workload::*;

#[test]
fn requests_have_the_lengths_and_arrivals_asked_for() {
    let prompt = Length::LogNormal { median: 500.0, sigma: 1.0, most: 4000 };
    let lengths = Lengths { prompt, output: Length::Uniform { low: 3, high: 7 } };
    let made = requests(20_000, &lengths, &Arrivals::Poisson { rate_per_s: 4.0 }, 1).unwrap();
    let mut prompts: Vec<u32> = made.iter().map(|r| r.prompt_tokens).collect();
    prompts.sort_unstable();
    assert!((480..520).contains(&prompts[10_000]), "median {}", prompts[10_000]);
    // One sigma above the median: the 84.13th percentile.
    assert!((1290..1430).contains(&prompts[16_827]), "84 % quantile {}", prompts[16_827]);
    assert!(prompts[0] >= 1 && *prompts.last().unwrap() == 4000);
    let outputs: Vec<u32> = made.iter().map(|r| r.output_tokens).collect();
    for length in 3..=7 {
        let share = outputs.iter().filter(|&&n| n == length).count() as f64 / 20_000.0;
        assert!((share - 0.2).abs() < 0.012, "{length}: {share}");
    }
    assert!(outputs.iter().all(|n| (3..=7).contains(n)));
    assert!(made.is_sorted_by_key(|r| r.arrival));
    assert!((made.last().unwrap().arrival.s() - 5000.0).abs() < 150.0);
    assert_eq!(made, requests(20_000, &lengths, &Arrivals::Poisson { rate_per_s: 4.0 }, 1).unwrap());
    assert_ne!(made, requests(20_000, &lengths, &Arrivals::Poisson { rate_per_s: 4.0 }, 2).unwrap());

    // Other arrivals leave the lengths as they were.
    let closed = requests(20_000, &lengths, &Arrivals::Closed, 1).unwrap();
    assert!(closed.iter().all(|r| r.arrival == SimTime::ZERO));
    assert!(closed.iter().zip(&made).all(|(a, b)| a.prompt_tokens == b.prompt_tokens));
    let every = requests(3, &lengths, &Arrivals::Every { gap_s: 0.5 }, 1).unwrap();
    assert_eq!(every.iter().map(|r| r.arrival.s()).collect::<Vec<_>>(), [0.0, 0.5, 1.0]);

    let fixed = |n| Lengths { prompt: Length::Fixed(n), output: Length::Fixed(1) };
    let far = Arrivals::Every { gap_s: 1e7 };
    for (lengths, arrivals, key) in [
        (fixed(0), Arrivals::Closed, "lengths.prompt"),
        (
            Lengths { prompt: Length::Uniform { low: 5, high: 4 }, ..fixed(1) },
            Arrivals::Closed,
            "lengths.prompt",
        ),
        (fixed(1), Arrivals::Poisson { rate_per_s: 0.0 }, "arrivals.rate_per_s"),
        (fixed(1), Arrivals::Poisson { rate_per_s: f64::NAN }, "arrivals.rate_per_s"),
        (fixed(1), Arrivals::Every { gap_s: f64::INFINITY }, "arrivals.gap_s"),
        (fixed(1), Arrivals::Poisson { rate_per_s: 1e-300 }, "arrivals"),
        (fixed(1), far, "arrivals"),
    ] {
        let Err(Error::Input(error)) = requests(3, &lengths, &arrivals, 1) else { panic!("{arrivals:?}") };
        assert_eq!(error.key.as_deref(), Some(key));
    }
}
