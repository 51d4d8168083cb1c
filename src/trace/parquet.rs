//! The Parquet encoding: one row for each token; header, routes and requests as JSON Lines in the file's metadata.
//!
//! | column | type | |
//! |---|---|---|
//! | `request` | unsigned 64 bit | id |
//! | `position` | unsigned 32 bit | from 0 |
//! | `phase` | string | `prefill` or `decode` |
//! | `route` | unsigned 64 bit | id |
//! | `role` | string, optional | null: an ordinary token |
//! | `accepted` | boolean, optional | null: no such key in the run |
//! | `first` | boolean, optional | true where a run starts |
//!
//! The last three columns may be missing. A run goes on while request, phase and role stay and the position goes up by
//! one; `first` is there because two runs may follow each other like that. Metadata keys: `router-trace.header`,
//! `router-trace.routes`, `router-trace.requests`.

mod footer;
mod read;
mod source;
mod write;

pub(super) use read::Rows;
pub(super) use write::RowWriter;
pub(crate) use write::properties;

const HEADER: &str = "router-trace.header";
const ROUTES: &str = "router-trace.routes";
const REQUESTS: &str = "router-trace.requests";
