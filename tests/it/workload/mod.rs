//! Who arrives: drawn requests and request files.

pub mod arrivals;
pub mod load;
pub mod requests;
pub mod requests_bad;
pub mod requests_scenario;
pub mod requests_sessions;
pub mod requests_tools;
pub mod requests_written;
