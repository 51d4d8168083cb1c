//! How wrong the numbers of a run may be, as a table and as JSON: the errors of its kernels, and whether savings exceed them.

use super::cells::{means, named};
use super::sheet::percent;
use crate::metrics::{ErrorBar, FigureErrors, Ninety, Saving, Verdict};
use crate::scenario::{SeedRun, VariantOutcome};
use serde_json::{Value, json};

/// What the run saves against the run of the first variant with the same seed; nothing where one has more engines, whose pass time is no
/// saving.
fn saving(first: &SeedRun, run: &SeedRun) -> Option<Saving> {
    if first.ledger.engines() != run.ledger.engines() {
        return None;
    }
    Saving::of((first.ledger.pass_ps, &first.summary.error), (run.ledger.pass_ps, &run.summary.error))
}

/// The mean over the seeds; nothing where one of them has none.
pub(super) fn mean_saving(first: &VariantOutcome, variant: &VariantOutcome) -> Option<Saving> {
    let pairs = first.runs.iter().zip(&variant.runs);
    let all = pairs.map(|(first, run)| saving(first, run)).collect::<Option<Vec<_>>>()?;
    let mean = |of: fn(&Saving) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
    Some(Saving {
        saved_percent: mean(|saving| saving.saved_percent),
        shared_error_percent: mean(|saving| saving.shared_error_percent),
        opposed_error_percent: mean(|saving| saving.opposed_error_percent),
        covered_share: mean(|saving| saving.covered_share),
    })
}

/// A saving with its verdict, as JSON.
pub(super) fn json(saving: &Saving) -> Value {
    let mut object = json!(saving);
    object["verdict"] = json!(saving.verdict());
    object
}

/// The table; one line where no kernel of any run has an error.
pub(super) fn table(variants: &[VariantOutcome]) -> String {
    let error = |variant: &VariantOutcome, of: fn(&ErrorBar) -> Option<f64>| -> Option<f64> {
        let all = variant.runs.iter().map(|run| of(&run.summary.error)).collect::<Option<Vec<f64>>>()?;
        Some(all.iter().sum::<f64>() / all.len() as f64)
    };
    if variants.iter().all(|variant| error(variant, |bar| bar.mean.time_percent).is_none()) {
        return "unknown: the profile has no errors on measured rows for the kernels of these runs\n".into();
    }
    let column = |of: fn(&ErrorBar) -> Option<f64>| -> Vec<String> {
        variants.iter().map(|variant| plus_minus(error(variant, of))).collect()
    };
    let share = |of: fn(&ErrorBar) -> f64| -> Vec<String> {
        means(variants, |run| of(&run.summary.error)).into_iter().map(percent).collect()
    };
    let first = variants.first();
    let savings: Vec<Option<Saving>> = variants
        .iter()
        .enumerate()
        .map(|(index, variant)| mean_saving(first.filter(|_| index > 0)?, variant))
        .collect();
    let of_saving = |of: fn(&Saving) -> f64| -> Vec<String> {
        savings
            .iter()
            .map(|saving| saving.map_or("-".into(), |saving| percent(of(&saving) / 100.0)))
            .collect()
    };
    let verdicts = savings.iter().map(|saving| match saving.map(|saving| saving.verdict()) {
        None => "-",
        Some(Verdict::Yes) => "yes",
        Some(Verdict::IfShared) => "if shared",
        Some(Verdict::No) => "no",
        Some(Verdict::Unknown) => "unknown",
    });
    fn any_source(bar: &ErrorBar) -> Option<FigureErrors> {
        Some(bar.interval90?.any_source)
    }
    fn same_source(Ninety { same_source_time_percent, .. }: Ninety) -> f64 {
        same_source_time_percent
    }
    named(variants)
        .numbers("mean\n%", column(|bar| bar.mean.time_percent))
        .numbers("same\nsource", column(|bar| bar.interval90.map(same_source)))
        .numbers("any\nsource", column(|bar| any_source(bar)?.time_percent))
        .numbers("on % of\nit", share(|bar| bar.covered_share))
        .numbers("extra-\npolated", share(|bar| bar.extrapolated_share))
        .numbers("any\nmix", column(|bar| any_source(bar)?.any_mix_percent))
        .numbers("energy\n%", column(|bar| any_source(bar)?.energy_percent))
        .numbers("saved\n%", of_saving(|saving| saving.saved_percent))
        .numbers("error if\nshared", of_saving(|saving| saving.shared_error_percent))
        .numbers("if\nopposed", of_saving(|saving| saving.opposed_error_percent))
        .words("saving\nabove", verdicts)
        .render()
        + "mean: mean error of the kernels on measured rows kept aside, joined by time, for the part of the pass time that has one.\n\
           The rest: nominal 90 % intervals; of the pass time, as the source of the fitted tables measures, and as any source does\n\
           (other card, build, way to take times); of times of other kernel mixes, as TTFT (any mix); of the energy. Queues\n\
           magnify them. saving above: whether the saving lies beyond its interval: if kernels of a class err alike in both runs\n\
           (shared), and if they err in opposite directions (opposed).\n"
}

fn plus_minus(percent: Option<f64>) -> String {
    percent.map_or("-".into(), |percent| format!("± {percent:.1}"))
}
