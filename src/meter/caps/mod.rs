//! Measured power caps and clock locks -> the clocks of a profile ([`crate::hw::Clocks`]), its idle and its static power, with errors on
//! devices left out.
//!
//! A row says how fast a workload ran under a cap or a lock, and what the board drew. One kernel stands for the workload: a product of as many
//! rows as ran together, a product of many, or a stream. The draw of the fastest row of a workload is taken from the table, everything below
//! it is predicted by the prices that runs have, under the same limits.

mod boards;
mod fit;
mod rows;
mod swing;

pub use boards::{Board, board};
pub use fit::{Caps, LeftOut, fit, left_out};
pub use rows::{CapRow, CapSeries, CapTable, Control, read};
pub use swing::{CapAnswer, Swing, answers, draw};
