//! Least squares over the parts of simulated runs, and the errors on models left out.

use super::constants::{ComparedRun, PredictedRun, StackConstants, short};
use super::run_sums::held;
use super::run_table::{MeasuredRun, RunTable};
use crate::calib::{COVERAGE, PercentErrors};
use crate::error::{InputError, Result};
use crate::hw::{Hardware, Held, PowerEvidence, Sampler, Source, Sourced};
use statrs::distribution::{ContinuousCDF, StudentsT};
use std::collections::{BTreeMap, BTreeSet};

/// How wrong predictions of some rows are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wrong {
    /// Of the time between tokens.
    pub itl: PercentErrors,
    /// Of joules a token.
    pub joules: PercentErrors,
    /// Of watts.
    pub watts: PercentErrors,
}

/// Predictions of each row by constants fitted to the rows of the other models. Models of the same shapes are left out together.
/// Nothing where all are of one shape.
pub fn left_out(points: &[ComparedRun], hw: &Hardware) -> Option<Vec<PredictedRun>> {
    predicted(points, &without_each(points, hw))
}

/// Predictions of each row by the constants fitted without its shape.
fn predicted(points: &[ComparedRun], without: &BTreeMap<&str, StackConstants>) -> Option<Vec<PredictedRun>> {
    let predict = |point: &ComparedRun| Some(without.get(shape(point))?.predict(&point.parts));
    points.iter().map(predict).collect()
}

/// Constants fitted without the models of a shape, by that shape. None where all are of one shape.
fn without_each<'a>(points: &'a [ComparedRun], hw: &Hardware) -> BTreeMap<&'a str, StackConstants> {
    let shapes: BTreeSet<&str> = points.iter().map(shape).collect();
    if shapes.len() < 2 {
        return BTreeMap::new();
    }
    let without = |left: &'a str| {
        let others: Vec<&ComparedRun> = points.iter().filter(|point| shape(point) != left).collect();
        (left, StackConstants::fitted(&others, hw))
    };
    shapes.into_iter().map(without).collect()
}

/// How wrong a constant may be, from the fits that each leave one of k groups out: the jackknife's standard error, that is the root of
/// (k - 1) / k times the sum of squares about the mean (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 11.2), times the mean of
/// a standard normal without sign, and times Student's t of k - 1 degrees of freedom; in percent of the constant. None where it is 0, or
/// for fewer than two groups.
fn jackknife(constant: f64, without: impl Iterator<Item = f64>) -> Option<Held> {
    let without: Vec<f64> = without.collect();
    let count = without.len() as f64;
    if without.len() < 2 || constant <= 0.0 {
        return None;
    }
    let mean = without.iter().sum::<f64>() / count;
    let squares: f64 = without.iter().map(|value| (value - mean) * (value - mean)).sum();
    let percent = 100.0 * ((count - 1.0) / count * squares).sqrt() / constant;
    let t = StudentsT::new(0.0, 1.0, count - 1.0).ok()?.inverse_cdf(0.5 + COVERAGE / 2.0);
    let round = |value: f64| (value * 1e3).round() / 1e3;
    Some(Held { mean: round(percent * (2.0 / std::f64::consts::PI).sqrt()), interval: round(percent * t) })
}

fn shape(point: &ComparedRun) -> &str {
    &point.row.shape.model.name
}

/// How wrong these predictions are; nothing without rows.
pub fn wrong(pairs: &[(&ComparedRun, PredictedRun)]) -> Option<Wrong> {
    let errors = |said: fn(&PredictedRun) -> f64, was: fn(&MeasuredRun) -> f64| {
        PercentErrors::of(pairs.iter().map(|(point, predicted)| (said(predicted), was(&point.row))))
    };
    Some(Wrong {
        itl: errors(|said| said.itl_s, |was| was.itl_s)?,
        joules: errors(|said| said.joules, |was| was.joules)?,
        watts: errors(|said| said.watts, |was| was.watts)?,
    })
}

/// Fits the profile to the rows of a table that were simulated on it. What the board's limit takes from hot kernels depends on the
/// constants, and is found in turn with them.
///
/// # Errors
/// Rows of fewer than three shapes; latencies or energies that nothing explains.
pub fn fit(hw: &mut Hardware, table: &RunTable, points: &mut [ComparedRun]) -> Result<Wrong> {
    /// After which the constants stand still to three digits.
    const ROUNDS: usize = 2;
    let mut fitted = hw.clone();
    let mut errors = once(&mut fitted, table, points)?;
    for _ in 0..ROUNDS {
        for point in points.iter_mut() {
            point.parts.held = held(&fitted, &point.row, &point.parts)?;
        }
        errors = once(&mut fitted, table, points)?;
    }
    for point in points.iter_mut() {
        point.parts.held = held(&fitted, &point.row, &point.parts)?;
    }
    *hw = fitted;
    Ok(errors)
}

/// Fits the profile with what is held back as it is, and states the errors on models left out. Only
/// `launch.step_us`, `sampler` and the constants of `power` but its limit and `idle_w` are changed.
///
/// # Errors
/// Rows of fewer than three shapes; latencies or energies that nothing explains.
fn once(hw: &mut Hardware, table: &RunTable, points: &[ComparedRun]) -> Result<Wrong> {
    let models: BTreeSet<&str> = points.iter().map(|point| point.row.id.as_str()).collect();
    let shapes: BTreeSet<&str> = points.iter().map(shape).collect();
    if shapes.len() < 3 || points.len() < 12 {
        let expected = "at least 12 rows of 3 models of different shapes";
        let found = format!("{} rows of {} shapes", points.len(), shapes.len());
        return Err(InputError::expected(expected).found(found).into());
    }
    let without = without_each(points, hw);
    let predicted = predicted(points, &without).unwrap_or_default();
    let pairs: Vec<(&ComparedRun, PredictedRun)> = points.iter().zip(predicted).collect();
    let Some(errors) = wrong(&pairs) else { return Err(InputError::expected("rows").into()) };
    errors.itl.check_explained("median_itl_ms", "values that depend on the runs")?;
    errors.joules.check_explained("energy_per_token_joules", "values that depend on the runs")?;
    let all: Vec<&ComparedRun> = points.iter().collect();
    let constants = StackConstants::fitted(&all, hw);
    let round = |value: f64| (value * 1e3).round() / 1e3;
    let words = format!(
        "`radialsim fit --energy` on {} rows of {} models under vLLM (ML.ENERGY), table {}; an effective constant of this software \
         stack, fitted together with the others of it, not physics; models left out: {:.1} % of the time between tokens, {:.1} % \
         of joules a token",
        points.len(),
        models.len(),
        table.sha256.get(..16).unwrap_or_default(),
        errors.itl.mean,
        errors.joules.mean,
    );
    let fitted = |value: f64| Sourced { value, source: Source::Fitted(words.clone()) };
    hw.launch.step_us = fitted(short(constants.step_s * 1e6));
    hw.sampler = Some(Sampler {
        ps_per_logit: fitted(constants.ps_per_logit),
        pj_per_logit: fitted(constants.pj_per_logit),
        error: jackknife(constants.ps_per_logit, without.values().map(|others| others.ps_per_logit)),
    });
    hw.power.static_w = fitted(constants.static_w);
    hw.power.pj_per_byte = fitted(constants.pj_per_byte);
    hw.power.pj_per_flop = fitted(constants.pj_per_flop);
    hw.power.metered = Some(PowerEvidence {
        stack: "vLLM as the ML.ENERGY benchmark ran it".into(),
        sha256: table.sha256.clone(),
        rows: points.len() as u64,
        models: models.len() as u64,
        itl_error: round(errors.itl.mean),
        itl_bias: round(errors.itl.bias),
        joules_error: round(errors.joules.mean),
        joules_bias: round(errors.joules.bias),
        watts_error: round(errors.watts.mean),
        watts_bias: round(errors.watts.bias),
    });
    Ok(errors)
}
