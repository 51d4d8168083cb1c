//! What the fit of an adapter came to.

use super::sheet::Sheet;
use crate::calib::FittedKernel;

/// A table, a row for each kernel; products in each format and tile.
pub fn adapter_fits(fitted: &[FittedKernel]) -> String {
    let name = |one: &FittedKernel| {
        let weights = one.weights.map_or(String::new(), |weights| format!(" {weights}"));
        let tile = one.tile.map_or(String::new(), |(rows, columns)| format!(" {rows}x{columns}"));
        format!("{}{weights}{tile}", one.name)
    };
    let percent = |of: &dyn Fn(&FittedKernel) -> f64| -> Vec<String> {
        fitted.iter().map(|one| format!("{:.2}", of(one))).collect()
    };
    let table = Sheet::new()
        .words("kernel", fitted.iter().map(name))
        .numbers("rows\nfitted", fitted.iter().map(|one| one.fitted.to_string()))
        .numbers("rows\nheld", fitted.iter().map(|one| one.held.rows.to_string()))
        .numbers("held\n%", percent(&|one| one.held.mean))
        .numbers("bias\n%", percent(&|one| one.held.bias))
        .numbers("p90\n%", percent(&|one| one.held.p90))
        .numbers("worst\n%", percent(&|one| one.held.worst))
        .render();
    let mean = |product: bool| {
        let some = fitted.iter().filter(|one| (one.name == "matmul") == product);
        let (sum, rows) = some.fold((0.0, 0), |(sum, rows), one| {
            (sum + one.held.mean * one.held.rows as f64, rows + one.held.rows)
        });
        if rows == 0 { "-".to_owned() } else { format!("{:.2} % over {rows} rows", sum / rows as f64) }
    };
    format!(
        "{table}held, bias, p90, worst: errors on shapes of families that no fit saw. Products: {}; other kernels: {}.\n",
        mean(true),
        mean(false)
    )
}
