//! Figures and gains with their errors: by hand, and by what must hold for all of them.

use proptest::prelude::*;
use radialsim::metrics::{ClassError, ErrorBar, ErrorKind, Estimate, FigureErrors, Gain, Ninety, Verdict};

/// A bar with two classes of these intervals and shares, which cover so much of the run.
fn bar(errors: [f64; 2], shares: [f64; 2]) -> ErrorBar {
    let covered = shares[0] + shares[1];
    let class = |place: usize| {
        let [error_percent, interval_percent] = [errors[place] / 2.0, errors[place]];
        Some(ClassError { error_percent, interval_percent, share: shares[place] })
    };
    let time = (errors[0] * shares[0] + errors[1] * shares[1]) / covered;
    let of = |times: f64| FigureErrors {
        time_percent: Some(times * time),
        makespan_percent: Some(times * time / 2.0),
        any_mix_percent: Some(times * errors[0].max(errors[1])),
        energy_percent: Some(times * (time + 3.0)),
    };
    ErrorBar {
        covered_share: covered,
        mean: of(0.5),
        interval90: Some(Ninety { any_source: of(1.0), same_source_time_percent: 0.7 * time }),
        by_class: [class(0), class(1), None, None, None, None],
        ..ErrorBar::default()
    }
}

#[test]
fn a_figure_by_hand() {
    let bar = bar([4.0, 8.0], [0.6, 0.3]);
    let time = (4.0 * 0.6 + 8.0 * 0.3) / 0.9;
    let figure = Estimate::new(&[9.0, 10.0, 11.0], ErrorKind::of("tpot_s.p50"), &bar, 0.95);
    // Student's quantile for two degrees of freedom is 4.3027 (tables); the deviation of the mean is 1 / sqrt(3).
    assert!((figure.seeds.unwrap() - 4.302_652_7 / 3.0_f64.sqrt()).abs() < 1e-6);
    assert!((figure.model.unwrap() - 10.0 * time / 100.0).abs() < 1e-12);
    assert!((figure.high() - figure.low() - 2.0 * figure.half_width()).abs() < 1e-12);
    let single = Estimate::new(&[10.0], ErrorKind::of("ttft_s.p99"), &bar, 0.95);
    assert_eq!((single.seeds, single.model), (None, Some(0.8)));
    assert_eq!(Estimate::new(&[5.0], ErrorKind::of("memory_bytes.total_peak"), &bar, 0.95).model, Some(0.0));
    assert_eq!(Estimate::new(&[5.0], ErrorKind::of("busy.compute"), &bar, 0.95).model, None);
}

#[test]
fn what_is_hardly_covered_has_no_error() {
    let thin = bar([4.0, 8.0], [0.2, 0.2]);
    assert_eq!(Estimate::new(&[10.0], Some(ErrorKind::Time), &thin, 0.95).model, None);
    let gain = Gain::of((&[5.0], &thin), (&[10.0], &thin), Some(ErrorKind::Time), true, 0.95).unwrap();
    assert_eq!((gain.percent, gain.verdict), (50.0, Verdict::Unknown));
}

/// Two runs of one mix err alike: what they share cancels, whatever it is, and only seeds are left.
#[test]
fn equal_mixes_cancel() {
    let bar = bar([9.0, 20.0], [0.5, 0.4]);
    let gain = |values: &[f64]| {
        Gain::of((values, &bar), (&[10.0, 12.0, 14.0], &bar), Some(ErrorKind::Time), true, 0.95).unwrap()
    };
    let sure = gain(&[9.9, 11.88, 13.86]);
    assert!((sure.percent - 1.0).abs() < 1e-9 && sure.shared_percent == Some(0.0));
    assert_eq!(sure.verdict, Verdict::IfShared, "{sure:?}");
    // The same mean gain, but the seeds do not agree on it.
    let unsure = gain(&[9.0, 11.9, 14.74]);
    assert!((unsure.percent - 1.0).abs() < 0.01, "{unsure:?}");
    assert_eq!(unsure.verdict, Verdict::No, "{unsure:?}");
}

fn share() -> impl Strategy<Value = f64> {
    0.3..0.5f64
}

proptest! {
    #[test]
    fn gains_keep_their_laws(
        errors in prop::array::uniform2(0.1..30.0f64), shares in prop::array::uniform2(share()), other_shares in prop::array::uniform2(share()),
        values in prop::collection::vec(1.0..100.0f64, 1..6), factor in 0.1..3.0f64,
    ) {
        let (one, two) = (bar(errors, shares), bar(errors, other_shares));
        let others: Vec<f64> = values.iter().map(|value| value * factor).collect();
        for kind in [ErrorKind::Time, ErrorKind::Makespan, ErrorKind::AnyMix, ErrorKind::Energy, ErrorKind::Exact] {
            let gain = |less: bool| Gain::of((&others, &one), (&values, &two), Some(kind), less, 0.95).unwrap();
            let (less, more) = (gain(true), gain(false));
            // Equal ratios at every seed: the gain is that ratio, and the seeds are sure of it.
            prop_assert!((less.percent - 100.0 * (1.0 - factor)).abs() < 1e-6);
            prop_assert!((less.percent + more.percent).abs() < 1e-9);
            prop_assert!(less.seeds_percent.unwrap_or(0.0) < 1e-6);
            prop_assert_eq!(less.verdict, more.verdict);
            let (shared, opposed) = (less.shared_percent.unwrap(), less.opposed_percent.unwrap());
            prop_assert!(shared <= opposed + 1e-9, "{:?} {} {}", kind, shared, opposed);
            let verdict = match less.percent.abs() {
                gain if gain > opposed + less.seeds_percent.unwrap_or(0.0) => Verdict::Yes,
                gain if gain > shared + less.seeds_percent.unwrap_or(0.0) => Verdict::IfShared,
                _ => Verdict::No,
            };
            prop_assert_eq!(less.verdict, verdict);
        }
    }

    #[test]
    fn intervals_hold_their_value_and_grow_with_the_error(
        error in 0.0..40.0f64, more in 0.0..40.0f64, values in prop::collection::vec(0.0..100.0f64, 1..6),
    ) {
        let figure = |error: f64| Estimate::new(&values, Some(ErrorKind::Time), &bar([error; 2], [0.5, 0.5]), 0.95);
        let (narrow, wide) = (figure(error), figure(error + more));
        prop_assert!(narrow.low() <= narrow.value && narrow.value <= narrow.high());
        prop_assert!(wide.low() <= narrow.low() + 1e-9 && narrow.high() <= wide.high() + 1e-9);
        prop_assert!(narrow.low() >= 0.0);
    }
}
