//! The house itself: rules of the tree, and readers on broken files.

pub mod book;
pub mod circles;
pub mod fuzzed;
pub mod names;
pub mod tidy;
pub mod tidy_rules;
