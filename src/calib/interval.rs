//! Nominal intervals of predictions of families that no fit has seen, from families kept aside.

use statrs::distribution::{ContinuousCDF, StudentsT};
use std::collections::BTreeMap;

/// Coverage of the intervals.
pub const COVERAGE: f64 = 0.9;

/// Fewer families than this say little of quantiles: (1 + 1 / 20) 0.9 leaves one row in twenty outside. Assumed.
const FEW: usize = 20;

/// Half width in percent of the interval that holds a call of a family that neither the fit nor these rows know, with a chance of [`COVERAGE`]; `None`
/// without rows. Rows are (family, predicted, measured), all times above 0. The interval of a prediction t goes from t / (1 + w) to t (1 + w).
///
/// Split conformal prediction in two layers (Dunn, Wasserman and Ramdas, J. Am. Stat. Assoc. 118, 2023, "pooling CDFs"): each of the k families counts
/// the same, each row of a family the same; the score is the logarithm of measured over predicted time without sign, and its quantile is
/// taken at (1 + 1 / k) times the coverage. Of few families that is all but the largest score of all rows, and below nine there is none: below
/// 20 families w comes from Student's t with k degrees of freedom, times the root of the mean square of the scores, as for families whose
/// logarithms are normal about 0.
pub fn interval<F: Ord>(rows: impl IntoIterator<Item = (F, f64, f64)>) -> Option<f64> {
    let mut families: BTreeMap<F, Vec<f64>> = BTreeMap::new();
    for (family, said, was) in rows {
        families.entry(family).or_default().push(libm::log(was / said).abs());
    }
    let count = families.len() as f64;
    let level = (1.0 + 1.0 / count) * COVERAGE;
    let half = match families.len() {
        0 => return None,
        FEW.. => quantile(&families, level),
        _ => {
            let squares = families
                .values()
                .map(|scores| scores.iter().map(|score| score * score).sum::<f64>() / scores.len() as f64);
            let t = StudentsT::new(0.0, 1.0, count).ok()?.inverse_cdf(0.5 + COVERAGE / 2.0);
            t * (squares.sum::<f64>() / count).sqrt()
        }
    };
    Some(100.0 * libm::expm1(half))
}

/// The least score of which this share of the weight lies at or below, a family's rows sharing its weight.
fn quantile<F>(families: &BTreeMap<F, Vec<f64>>, level: f64) -> f64 {
    let weighted = families.values().flat_map(|scores| {
        let weight = 1.0 / (families.len() * scores.len()) as f64;
        scores.iter().map(move |&score| (score, weight))
    });
    let mut weighted: Vec<(f64, f64)> = weighted.collect();
    weighted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut below = 0.0;
    let reached = weighted.iter().find(|(_, weight)| {
        below += weight;
        // Sums of shares like 1/3 stay a little below what they are.
        below >= level - 1e-9
    });
    reached.or(weighted.last()).map_or(0.0, |&(score, _)| score)
}

/// Share of the rows (predicted, measured, half width in percent) that lie within their intervals; `None` without rows.
pub fn covered(rows: impl IntoIterator<Item = (f64, f64, f64)>) -> Option<f64> {
    let (mut within, mut all) = (0, 0);
    for (said, was, percent) in rows {
        all += 1;
        // A row at the end of its interval is in it, whatever the rounding.
        within += u64::from(libm::log(was / said).abs() <= libm::log1p(percent / 100.0) + 1e-12);
    }
    (all > 0).then(|| within as f64 / f64::from(all as u32))
}

/// Coverage of intervals that half of the families teach, on the other half, each way; mean over the rows of both. `None` with fewer than two families.
/// The halves are those of even and odd places in the order of the families.
pub fn halves_covered<F: Ord + Clone>(rows: &[(F, f64, f64)]) -> Option<f64> {
    let mut families: Vec<&F> = rows.iter().map(|(family, ..)| family).collect();
    families.sort();
    families.dedup();
    let half = |family: &F| families.binary_search(&family).is_ok_and(|place| place % 2 == 0);
    let of = |wanted: bool| rows.iter().filter(move |(family, ..)| half(family) == wanted).cloned();
    let widths = [interval(of(true))?, interval(of(false))?];
    covered(rows.iter().map(|(family, said, was)| (*said, *was, widths[usize::from(half(family))])))
}

#[cfg(test)]
mod tests {
    use super::{covered, halves_covered, interval};
    use crate::rng::Stream;
    use proptest::prelude::*;

    /// By hand: twenty families of one row, scores 0.01 to 0.20. (1 + 1 / 20) 0.9 = 0.945, so the nineteenth.
    #[test]
    fn of_twenty_families_the_nineteenth_counts_and_of_few_their_mean_square() {
        let rows = |count: u32| (1..=count).map(|f| (f, 1.0, libm::exp(f64::from(f) / 100.0)));
        let half = |count: u32| libm::log1p(interval(rows(count)).expect("rows") / 100.0);
        // Tables of Student's t at 0.95 with ten degrees of freedom: 1.8125; the mean square of 1 to 10 is 38.5.
        assert!((half(10) - 1.812_461 * 0.01 * 38.5f64.sqrt()).abs() < 1e-6, "{}", half(10));
        assert!((half(20) - 0.19).abs() < 1e-9, "{}", half(20));
        // Student's t with one degree of freedom at 0.95: tan(0.45 pi).
        assert!((half(1) - 0.01 * (0.45 * std::f64::consts::PI).tan()).abs() < 1e-6);
        assert_eq!(interval(rows(0)), None);
    }

    #[test]
    fn a_family_of_many_rows_counts_as_one() {
        let many = (0..1000).map(|_| (0, 1.0, 1.5));
        let others = (1..40).map(|family| (family, 1.0, 1.01));
        let width = interval(many.chain(others)).expect("rows");
        assert!(
            (width - 1.0).abs() < 1e-6,
            "one family in forty is within the tenth that may lie outside: {width}"
        );
    }

    proptest! {
        /// Wider scores never give a narrower interval, and what an interval of all holds is at least its coverage.
        #[test]
        fn it_holds_what_it_says_of_its_own_rows(scores in prop::collection::vec(-0.5f64..0.5, 20..80), more in 1.0f64..2.0) {
            let rows = |by: f64| scores.iter().enumerate().map(move |(family, score)| (family, 1.0, libm::exp(score * by)));
            let width = interval(rows(1.0)).expect("rows");
            prop_assert!(interval(rows(more)).expect("rows") >= width);
            prop_assert!(covered(rows(1.0).map(|(_, said, was)| (said, was, width))).expect("rows") >= 0.9 - 1e-9);
        }
    }

    /// Families drawn with an offset of their own: the chance that a new family's row is within is at least nine in ten, and a narrower
    /// interval fails that (the control).
    #[test]
    fn new_families_are_covered() {
        let mut random = Stream::new(7, "interval");
        let mut draw = |families: u32| -> Vec<(u32, f64, f64)> {
            (0..families)
                .flat_map(|family| {
                    let offset = 0.1 * random.normal();
                    (0..5)
                        .map(|_| (family, 1.0, libm::exp(offset + 0.05 * random.normal())))
                        .collect::<Vec<_>>()
                })
                .collect()
        };
        let (mut within, mut narrow, mut rounds) = (0.0, 0.0, 0.0);
        for _ in 0..300 {
            let width = interval(draw(20)).expect("rows");
            let fresh = draw(10);
            let share =
                |width: f64| covered(fresh.iter().map(|&(_, said, was)| (said, was, width))).expect("rows");
            (within, narrow, rounds) = (within + share(width), narrow + share(width / 2.0), rounds + 1.0);
        }
        assert!(within / rounds >= 0.9, "{}", within / rounds);
        assert!(narrow / rounds < 0.85, "{}", narrow / rounds);
        let rows = draw(40);
        assert!(halves_covered(&rows).expect("families") > 0.8);
    }
}
