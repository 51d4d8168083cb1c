//! What a fit came to.

use super::sheet::Sheet;
use crate::calib::{ExpertFit, Fitted, MeasuredCall, MeasuredOperator, OperatorFit, PercentErrors, covered};
use crate::cost::{self, Price, PriceError};
use crate::units::SourceKind;

/// A table, a row for each operator.
pub fn fits(reports: &[OperatorFit]) -> String {
    let names: Vec<&str> = reports.iter().map(|report| report.name.as_str()).collect();
    let percent = |of: &dyn Fn(&OperatorFit) -> f64| -> Vec<String> {
        reports.iter().map(|report| format!("{:.2}", of(report))).collect()
    };
    let count = |of: &dyn Fn(&OperatorFit) -> usize| -> Vec<String> {
        reports.iter().map(|report| of(report).to_string()).collect()
    };
    let waves: Vec<String> = reports
        .iter()
        .map(|report| report.waved.map_or(String::from("-"), |errors| format!("{:.2}", errors.mean)))
        .collect();
    let spread = Sheet::new()
        .words("operator", &names)
        .numbers("interval\n± %", percent(&|report| report.corrected.interval))
        .numbers("covers\n%", percent(&|report| 100.0 * report.covered.unwrap_or(f64::NAN)))
        .numbers("explained\n%", percent(&|report| 100.0 * report.corrected.explained))
        .render();
    Sheet::new()
        .words("operator", names)
        .numbers("rows\nfitted", count(&|report| report.fitted.0))
        .numbers("rows\nheld", count(&|report| report.corrected.rows))
        .numbers("families\nheld", count(&|report| report.held_families))
        .numbers("constants\n%", percent(&|report| report.constants.mean))
        .numbers("waves\n%", waves)
        .numbers("corrected\n%", percent(&|report| report.corrected.mean))
        .numbers("bias\n%", percent(&|report| report.corrected.bias))
        .numbers("p90\n%", percent(&|report| report.corrected.p90))
        .numbers("fitted\n%", percent(&|report| report.seen.mean))
        .render()
        + &spread
        + "constants, waves, corrected: mean absolute error on the rows of families kept aside, by the four constants of the class,\n\
           by the waves of tiles that the correction of products begins with, and corrected;\n\
           bias, p90 and interval are of the corrected. interval: nominal 90 % of a family that was not seen; covers: share of the rows\n\
           of half of the families kept aside that an interval by the other half holds, each way. fitted: on the rows that were fitted.\n\
           explained: share of the variance of log time on the rows kept aside.\n"
        + &reports.iter().filter_map(hidden).collect::<String>()
}

/// What the host hides of a table that was measured without captured graphs.
fn hidden(report: &OperatorFit) -> Option<String> {
    let OperatorFit { name, corrected, in_table, .. } = report;
    let hidden = in_table.rows.checked_sub(corrected.rows).filter(|&rows| rows > 0)?;
    Some(format!(
        "{name} was measured without captured graphs: {hidden} of {} rows kept aside take what the host takes for a call, and say\n\
         nothing about the device. The line above is of the others; all of them, the host's time included: {:.2} %, bias {:.2} %,\n\
         p90 {:.2} %.\n",
        in_table.rows, in_table.mean, in_table.bias, in_table.p90
    ))
}

/// A table, a row for each format of expert layers, and one for each family.
pub fn expert_fits(fits: &[ExpertFit]) -> String {
    let percent = |of: &dyn Fn(&ExpertFit) -> f64| -> Vec<String> {
        fits.iter().map(|fit| format!("{:.2}", of(fit))).collect()
    };
    let rows = || fits.iter().map(|fit| fit.rows.0 as f64);
    let all = |of: &dyn Fn(&ExpertFit) -> f64| {
        fits.iter().zip(rows()).map(|(fit, rows)| of(fit) * rows).sum::<f64>() / rows().sum::<f64>()
    };
    let plain = |fit: &ExpertFit| fit.plain.map_or(f64::NAN, |errors| errors.mean);
    let families = fits.iter().flat_map(|fit| fit.families.iter().map(move |family| (&fit.name, family)));
    let families: Vec<(&String, &([u32; 4], PercentErrors))> = families.collect();
    let of_family = |of: &dyn Fn(&PercentErrors) -> f64| -> Vec<String> {
        families.iter().map(|(_, (_, errors))| format!("{:.2}", of(errors))).collect()
    };
    Sheet::new()
        .words("layers", fits.iter().map(|fit| &fit.name))
        .numbers("rows", fits.iter().map(|fit| fit.rows.0.to_string()))
        .numbers("families", fits.iter().map(|fit| fit.rows.1.to_string()))
        .numbers("formula\n%", percent(&|fit| fit.formula.mean))
        .numbers("left out\n%", percent(&|fit| fit.held.mean))
        .numbers("plain\n%", percent(&plain))
        .numbers("bias\n%", percent(&|fit| fit.held.bias))
        .numbers("p90\n%", percent(&|fit| fit.held.p90))
        .numbers("interval\n± %", percent(&|fit| fit.held.interval))
        .numbers("fitted\n%", percent(&|fit| fit.seen.mean))
        .render()
        + &Sheet::new()
            .words("layers", families.iter().map(|(name, _)| name))
            .words("hidden, inner, top, experts", families.iter().map(|(_, (f, _))| format!("{f:?}")))
            .numbers("rows", families.iter().map(|(_, (_, errors))| errors.rows.to_string()))
            .numbers("left out\n%", of_family(&|errors| errors.mean))
            .numbers("bias\n%", of_family(&|errors| errors.bias))
            .numbers("p50\n%", of_family(&|errors| errors.p50))
            .render()
        + &format!(
            "All rows: {:.2} % by the formula, {:.2} % with trees, on families left out in turn; {:.2} % on the rows that were fitted.\n\
             plain: of families with a SiLU gate or none.\n",
            all(&|fit| fit.formula.mean),
            all(&|fit| fit.held.mean),
            all(&|fit| fit.seen.mean)
        )
}

/// A table, a row for each kind of kernel of a model's layers.
pub fn layer_fits(fits: &[Fitted]) -> String {
    let percent = |of: &dyn Fn(&Fitted) -> f64| -> Vec<String> {
        fits.iter().map(|fit| format!("{:.2}", of(fit))).collect()
    };
    Sheet::new()
        .words("kernel", fits.iter().map(|fit| &fit.name))
        .numbers("rows", fits.iter().map(|fit| fit.rows.to_string()))
        .words("kept aside\nin turn", fits.iter().map(|fit| format!("{} {}s", fit.kept.1, fit.kept.0)))
        .numbers("constants\n%", percent(&|fit| fit.constants.mean))
        .numbers("corrected\n%", percent(&|fit| fit.held.mean))
        .numbers("bias\n%", percent(&|fit| fit.held.bias))
        .numbers("p90\n%", percent(&|fit| fit.held.p90))
        .numbers("interval\n± %", percent(&|fit| fit.held.interval))
        .numbers("fitted\n%", percent(&|fit| fit.seen.mean))
        .render()
        + "constants, corrected: mean absolute error on rows kept aside in turn, before and after the correction; bias, p90 and\n\
           interval (nominal 90 % of a number or layer that was not seen) are of the corrected. A number: one\n\
           of the rows, entries or rows beside of the grid. fitted: all rows, by the profile; of mixed_attention, whole calls with their\n\
           chunk. matmul: products of a layer that was not measured, by the constants alone.\n"
}

/// How far prices lie from measured rows: all of them, and by who says so.
pub fn scores(rows: &[MeasuredCall], prices: &[Price]) -> String {
    let of = |kind: Option<SourceKind>| {
        let chosen =
            rows.iter().zip(prices).filter(|(_, price)| kind.is_none_or(|kind| kind == price.source));
        PercentErrors::of(chosen.map(|(row, price)| (price.time.s(), row.seconds)))
    };
    let kinds = SourceKind::ALL.iter().map(|&kind| (kind.to_string(), of(Some(kind))));
    let all = std::iter::once(("all".to_owned(), of(None)));
    let lines: Vec<(String, PercentErrors)> =
        all.chain(kinds).filter_map(|(name, errors)| Some((name, errors?))).collect();
    let column = |of: &dyn Fn(&PercentErrors) -> f64| -> Vec<String> {
        lines.iter().map(|(_, errors)| format!("{:.2}", of(errors))).collect()
    };
    let within = lines.iter().map(|(name, _)| {
        let chosen =
            rows.iter().zip(prices).filter(|(_, price)| name == "all" || *name == price.source.to_string());
        share(held(chosen, |error| error.same_source, None))
    });
    Sheet::new()
        .words("source", lines.iter().map(|(name, _)| name))
        .numbers("rows", lines.iter().map(|(_, errors)| errors.rows.to_string()))
        .numbers("mean\n%", column(&|errors| errors.mean))
        .numbers("bias\n%", column(&|errors| errors.bias))
        .numbers("p50\n%", column(&|errors| errors.p50))
        .numbers("p90\n%", column(&|errors| errors.p90))
        .numbers("p99\n%", column(&|errors| errors.p99))
        .numbers("worst\n%", column(&|errors| errors.worst))
        .numbers("within\n%", within)
        .render()
        + "within: share of the rows that lie within the profile's nominal 90 % interval of the source of its tables.\n"
}

/// Share of the rows that lie within the interval of their price, or within one of so many percent; none where no price has one.
fn held<'a>(
    rows: impl Iterator<Item = (&'a MeasuredCall, &'a Price)>,
    of: fn(&PriceError) -> u32,
    percent: Option<f64>,
) -> Option<f64> {
    covered(rows.filter_map(|(row, price)| {
        let own = price.error.as_ref().map(|error| cost::percent(of(error)));
        Some((price.time.s(), row.seconds, percent.or(own)?))
    }))
}

fn share(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.1}", 100.0 * share))
}

/// How far prices lie from the measured operators of a layer: matrix products, then the others.
/// `interval`: half width in percent of the interval whose coverage is shown, in place of the profile's own.
pub fn layers(measured: &[MeasuredOperator], prices: &[Vec<Price>], interval: Option<f64>) -> String {
    let part = |projection: bool| {
        let chosen: Vec<(&MeasuredOperator, &Vec<Price>)> =
            measured.iter().zip(prices).filter(|(operator, _)| operator.projection == projection).collect();
        if chosen.is_empty() {
            return String::new();
        }
        let mut lines: Vec<(&str, Vec<(&MeasuredCall, &Price)>)> = chosen
            .iter()
            .map(|(operator, prices)| (operator.operator, operator.rows.iter().zip(*prices).collect()))
            .collect();
        lines.push(("all", lines.iter().flat_map(|(_, pairs)| pairs.clone()).collect()));
        let errors: Vec<Option<PercentErrors>> = lines
            .iter()
            .map(|(_, pairs)| {
                PercentErrors::of(pairs.iter().map(|(row, price)| (price.time.s(), row.seconds)))
            })
            .collect();
        let column = |of: &dyn Fn(&PercentErrors) -> f64| -> Vec<String> {
            errors
                .iter()
                .map(|errors| errors.as_ref().map_or("-".into(), |errors| format!("{:.2}", of(errors))))
                .collect()
        };
        let within = |of: fn(&PriceError) -> u32| -> Vec<String> {
            lines.iter().map(|(_, pairs)| share(held(pairs.iter().copied(), of, interval))).collect()
        };
        let beyond = |pairs: &Vec<(&MeasuredCall, &Price)>| {
            let count = pairs.iter().filter(|(_, price)| price.source == SourceKind::Extrapolated).count();
            format!("{:.1}", 100.0 * count as f64 / pairs.len().max(1) as f64)
        };
        Sheet::new()
            .words(
                if projection { "matrix product" } else { "small operator" },
                lines.iter().map(|(name, _)| *name),
            )
            .numbers("rows", lines.iter().map(|(_, pairs)| pairs.len().to_string()))
            .numbers("mean\n%", column(&|errors| errors.mean))
            .numbers("bias\n%", column(&|errors| errors.bias))
            .numbers("p90\n%", column(&|errors| errors.p90))
            .numbers("worst\n%", column(&|errors| errors.worst))
            .numbers("extrapolated\n%", lines.iter().map(|(_, pairs)| beyond(pairs)))
            .numbers("same\nsource %", within(|error| error.same_source))
            .numbers("any\nsource %", within(|error| error.any_source))
            .render()
    };
    part(true)
        + &part(false)
        + "same source, any source: share of the rows within the profile's nominal 90 % interval of the source of its tables, and of\n\
           any source; -: prices without an error.\n"
}
