//! Measured runs of a serving engine -> the time of a scheduler step and the power constants of a profile, with errors on
//! models left out. What is fitted are effective constants of one software stack on one device, not physics.
//!
//! A row is simulated as it ran: so many clients, each sending its next request when the last one is answered, lengths around
//! the row's mean, continuous batching with chunked prompts. Batches do not depend on the constants that are fitted, so one
//! simulation of a row gives the sums in which its latency and energy are linear ([`Parts`]).

pub mod caps;
mod columns;
mod constants;
mod fit;
mod measured_ends;
mod parts;
mod rows;
mod shape;

pub use constants::{Constants, Parts, Point, Predicted};
pub use fit::{Wrong, fit, left_out, wrong};
pub use measured_ends::{MeasuredEnd, MeasuredEnds, read_ends};
pub use parts::{assumed, parts, points};
pub use rows::{Measured, Table, read};
pub use shape::{Shape, shape_of};
