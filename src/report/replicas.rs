//! How evenly several engines share the work, as a table.

use super::cells::{cells, named};
use super::sheet::digits;
use crate::metrics::{KvTransfer, Replica, ReplicaSummary};
use crate::scenario::{SeedRun, VariantOutcome};

/// A row for each variant; nothing where all have one engine.
pub(super) fn table(variants: &[VariantOutcome]) -> String {
    if variants.iter().all(|variant| variant.first().summary.replicas.is_none()) {
        return String::new();
    }
    let of = |run: &SeedRun, of: &dyn Fn(&ReplicaSummary) -> f64| {
        run.summary.replicas.as_ref().map_or(f64::NAN, of)
    };
    let shown = |number: f64| if number.is_nan() { "-".into() } else { digits(number, 3) };
    let requests = |most: bool| {
        let of_one = |one: &Replica| one.requests as f64;
        move |all: &ReplicaSummary| {
            let each = all.each.iter().map(of_one);
            if most { each.fold(0.0, f64::max) } else { each.fold(f64::INFINITY, f64::min) }
        }
    };
    let column = |which: &dyn Fn(&ReplicaSummary) -> f64| cells(variants, |run| of(run, which), shown);
    let sheet = named(variants)
        .numbers("engines", variants.iter().map(|variant| variant.first().ledger.engines().to_string()))
        .words("router", variants.iter().map(|variant| variant.router.unwrap_or("-")))
        .numbers("requests\nleast", column(&requests(false)))
        .numbers("most", column(&requests(true)))
        .numbers("most /\nmean", column(&|all| all.imbalance.requests))
        .numbers("tokens\nmost /\nmean", column(&|all| all.imbalance.tokens))
        .numbers("busy\nmost /\nmean", column(&|all| all.imbalance.busy));
    let waits = |run: &SeedRun| {
        let rounds =
            run.summary.replicas.as_ref()?.each.iter().filter_map(|one| Some((one.waited_s?, one.last_s)));
        let (waited, last) = rounds.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        (last > 0.0).then_some(100.0 * waited / last)
    };
    let sheet = match variants.iter().any(|variant| waits(variant.first()).is_some()) {
        true => sheet.numbers("waits\n%", cells(variants, |run| waits(run).unwrap_or(f64::NAN), shown)),
        false => sheet,
    };
    let apart = |variant: &VariantOutcome| moved(variant.first()).is_some();
    let (sheet, foot) = match variants.iter().any(apart) {
        false => (sheet, ""),
        true => {
            let of = |which: fn(&KvTransfer) -> f64| {
                cells(variants, |run| moved(run).map_or(f64::NAN, which), shown)
            };
            let sheet = sheet
                .numbers("KV\nGB\nsent", of(|moved| moved.bytes / 1e9))
                .numbers("ms on\nthe\nlink", of(|moved| moved.mean_s * 1e3))
                .numbers("ms\nbefore\nit", of(|moved| moved.mean_wait_s * 1e3));
            (sheet, APART)
        }
    };
    sheet.render() + EVEN + foot
}

fn moved(run: &SeedRun) -> Option<&KvTransfer> {
    run.summary.replicas.as_ref()?.kv_transfer.as_ref()
}

const EVEN: &str = "Requests, tokens and device time of the engine that had the most, over the mean of the engines: 1 where all had the same. Waits: share of\n\
                    the time in which an engine that shares experts was done with its pass and another was not.\n";
const APART: &str = "Where prefill and decode are apart, a request is one of both engines. KV: of one device of each engine; ms: mean of a request.\n";
