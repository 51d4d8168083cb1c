//! Columns as an Arrow stream, by the PyCapsule interface: what pandas, Polars, DuckDB and PyArrow take without a copy of their own.

use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, NullArray, RecordBatch, RecordBatchIterator,
    StringArray,
};
use arrow_schema::{DataType, Field, Schema};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use std::sync::Arc;

/// A cell: what JSON holds, but no lists and objects.
#[derive(FromPyObject)]
enum Cell {
    Bool(bool),
    Whole(i64),
    Number(f64),
    Text(String),
}

/// A capsule `arrow_array_stream` with one batch: these columns, which all have one length.
#[pyfunction]
pub fn arrow_stream<'py>(
    py: Python<'py>,
    columns: Vec<(String, Vec<Bound<'py, PyAny>>)>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let wrong = |error: arrow_schema::ArrowError| PyValueError::new_err(error.to_string());
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (name, cells) in columns {
        let cells = cells.iter().map(|cell| cell.extract::<Option<Cell>>()).collect::<PyResult<Vec<_>>>()?;
        let array = array(cells);
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(array);
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), arrays).map_err(wrong)?;
    let stream = FFI_ArrowArrayStream::new(Box::new(RecordBatchIterator::new([Ok(batch)], schema)));
    PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
}

/// The narrowest type that holds all cells; texts where they are mixed.
fn array(cells: Vec<Option<Cell>>) -> ArrayRef {
    let all = |fits: fn(&Cell) -> bool| cells.iter().flatten().all(fits);
    let kind = if cells.iter().flatten().next().is_none() {
        DataType::Null
    } else if all(|cell| matches!(cell, Cell::Bool(_))) {
        DataType::Boolean
    } else if all(|cell| matches!(cell, Cell::Whole(_))) {
        DataType::Int64
    } else if all(|cell| matches!(cell, Cell::Whole(_) | Cell::Number(_))) {
        DataType::Float64
    } else {
        DataType::Utf8
    };
    let cells = cells.into_iter();
    match kind {
        DataType::Null => Arc::new(NullArray::new(cells.len())),
        DataType::Boolean => {
            let bool = |cell| if let Cell::Bool(bool) = cell { bool } else { false };
            Arc::new(cells.map(|cell| cell.map(bool)).collect::<BooleanArray>())
        }
        DataType::Int64 => {
            let whole = |cell| if let Cell::Whole(whole) = cell { whole } else { 0 };
            Arc::new(cells.map(|cell| cell.map(whole)).collect::<Int64Array>())
        }
        DataType::Float64 => Arc::new(cells.map(|cell| cell.map(number)).collect::<Float64Array>()),
        _ => Arc::new(cells.map(|cell| cell.map(text)).collect::<StringArray>()),
    }
}

fn number(cell: Cell) -> f64 {
    match cell {
        Cell::Whole(whole) => whole as f64,
        Cell::Number(number) => number,
        Cell::Bool(_) | Cell::Text(_) => f64::NAN,
    }
}

fn text(cell: Cell) -> String {
    match cell {
        Cell::Bool(bool) => bool.to_string(),
        Cell::Whole(whole) => whole.to_string(),
        Cell::Number(number) => number.to_string(),
        Cell::Text(text) => text,
    }
}
