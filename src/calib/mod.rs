//! From measured rows to a fitted profile: which rows are kept aside, four constants for each kernel class, a correction
//! learned on what they leave, and the error on the rows that no fit has seen. No GPU in it.

mod boost;
mod constants;
mod error;
mod fit;
mod rows;
mod waves;

pub use boost::{Settings, grow};
pub use error::Errors;
pub use fit::{Fit, Report, fit, predict, transfer};
pub use rows::{Measured, Operator, Row, Table, read, read_layers};
