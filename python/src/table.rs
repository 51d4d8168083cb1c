//! `fit` and `predict`.

use crate::error::raised;
use crate::wait::waiting;
use pyo3::prelude::*;
use radialsim::calib::{self, Fit, FolderFit, Operator, OperatorFit, PercentErrors, TableFormat};
use radialsim::cost::{Device, Limits};
use radialsim::error::{Error, InputError};
use radialsim::hw::Hardware;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Fits the profile `base` to the tables in the folder `data`, or to a profile of PyTorch. Returns the fitted profile as a text, and the
/// errors on what was kept aside as JSON.
#[pyfunction]
pub fn fit(
    py: Python,
    base: String,
    data: Option<PathBuf>,
    kineto: Option<PathBuf>,
    name: Option<String>,
    hold_one_in: u64,
    seed: u64,
) -> PyResult<(String, String)> {
    let done = waiting(py, None, move |_| -> Result<(String, String), Error> {
        let mut hardware =
            if Path::new(&base).is_file() { Hardware::load(&base) } else { Hardware::datasheet(&base) }?;
        if let Some(name) = name {
            hardware.name = name;
        }
        let how = Fit { hold_one_in, seed, ..Fit::default() };
        let errors = match (data, kineto) {
            (Some(data), None) => match calib::fit_folder(&mut hardware, &data, &how)? {
                FolderFit::Operators(reports, _) => reports.iter().map(report).collect(),
                FolderFit::Layers(_) => {
                    let wrong = "tables of operators; `radialsim fit` takes those of layers";
                    return Err(InputError::expected(wrong).file(data).into());
                }
            },
            (None, Some(kineto)) => {
                let profile = calib::kineto::read(&kineto)?;
                let fitted = calib::kineto::fit(&mut hardware, &profile, &how)?;
                fitted.reports.iter().map(report).collect()
            }
            _ => return Err(InputError::expected("one of data and kineto").into()),
        };
        Ok((hardware.text(), Value::Array(errors).to_string()))
    })?;
    done.map_err(|error| raised(py, error))
}

fn report(report: &OperatorFit) -> Value {
    let PercentErrors { rows, mean, bias, p50, p90, worst, interval, .. } = report.corrected;
    json!({
        "operator": report.name,
        "fitted_rows": report.fitted.0,
        "fitted_families": report.fitted.1,
        "held_rows": rows,
        "held_families": report.held_families,
        "mean_percent": mean,
        "bias_percent": bias,
        "p50_percent": p50,
        "p90_percent": p90,
        "worst_percent": worst,
        "interval_percent": interval,
    })
}

/// What the profile `hardware` says of each row of the table at `path`: milliseconds, and who says so.
#[pyfunction]
pub fn predict(
    py: Python,
    hardware: &str,
    operator: &str,
    path: PathBuf,
    format: &str,
) -> PyResult<Vec<(f64, String)>> {
    let made = || -> Result<Vec<(f64, String)>, Error> {
        let known = Operator::ALL.into_iter().find(|(_, name)| *name == operator);
        let names = Operator::ALL.map(|(_, name)| name).join(", ");
        let wrong = || InputError::expected(format!("one of {names}")).key("operator").found(operator);
        let (operator, _) = known.ok_or_else(wrong)?;
        let format = match format {
            "" => TableFormat::Sixteen,
            "fp8" => TableFormat::Fp8,
            "fp8_block" => TableFormat::Fp8Block,
            "nvfp4" => TableFormat::Nvfp4,
            _ => {
                return Err(InputError::expected("fp8, fp8_block or nvfp4")
                    .key("format")
                    .found(format)
                    .into());
            }
        };
        let hardware = Hardware::resolve(hardware)?;
        let device = Device::new(&hardware, Limits::default())?;
        let table = calib::read(&path, operator, format, false)?;
        let rows = table.text.1.len();
        let prices = calib::predict(&device, &table);
        if prices.len() != rows {
            let expected = "rows of this format only, without windows and beams";
            return Err(InputError::expected(expected)
                .found(format!("{} others", rows - prices.len()))
                .into());
        }
        Ok(prices.iter().map(|price| (price.time.s() * 1e3, price.source.to_string())).collect())
    };
    py.detach(made).map_err(|error| raised(py, error))
}
