//! Published times with and without captured graphs, beside what is predicted.

use super::sheet::{Sheet, percent};
use crate::scenario::Predicted;

/// A row for each published pair.
pub fn launches(rows: &[Predicted]) -> String {
    let ms = |of: fn(&Predicted) -> Option<f64>| {
        rows.iter().map(move |row| of(row).map_or("-".into(), |ms| format!("{ms:.2}")))
    };
    let device = rows.iter().map(|row| match row.row.stand_in.as_str() {
        "" => row.row.hardware.clone(),
        measured => format!("{} for {measured}", row.row.hardware),
    });
    Sheet::new()
        .words("row", rows.iter().map(|row| &row.row.case))
        .words("use", rows.iter().map(|row| &row.row.used))
        .narrow("device", device)
        .numbers("eager,\nms a token", ms(|row| Some(row.eager_ms)))
        .numbers("\nmeasured", ms(|row| row.row.eager_ms))
        .numbers("graphs,\nms a token", ms(|row| Some(row.graph_ms)))
        .numbers("\nmeasured", ms(|row| row.row.graph_ms))
        .numbers("\nratio", ms(|row| Some(row.ratio())))
        .numbers("\nmeasured", ms(|row| Some(row.row.ratio())))
        .numbers("off by\n%", rows.iter().map(|row| percent(row.error())))
        .render()
        + "One sequence. fitted: a constant of the engine comes from the row; kept: none does. Sources: engine-profiles/published.csv.\n"
}
