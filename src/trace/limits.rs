//! How large a trace may be. A file beyond a limit is refused with an error; no number in a file allocates memory
//! by itself, and nothing is reserved before the bytes that fill it were read.

/// Longest line of a JSON Lines trace, in bytes (16 MiB: some two million tokens in one run).
pub const LINE_BYTES: usize = 16 << 20;

/// Longest route, in steps.
pub const ROUTE_STEPS: usize = 65_536;

/// Steps of all distinct routes together; each route counts four more for itself. In memory a step takes 12 bytes.
pub const ALL_STEPS: usize = 1 << 27;

/// Prompt and output tokens of one request together, so that a position fits 32 bits.
pub const REQUEST_TOKENS: u64 = 1 << 31;

/// Tokens of one run.
pub const RUN_TOKENS: usize = 1 << 23;

/// Memory for requests that are not complete yet, in words of four bytes (1 GiB).
pub const HELD_WORDS: usize = 1 << 28;

/// Requests that are complete but kept for a while, because their last token may still come on a line of its own.
pub const LINGERING_REQUESTS: usize = 1024;

/// Memory of those, in words of four bytes (4 MiB).
pub const LINGERING_WORDS: usize = 1 << 20;

/// Largest page of a Parquet file, compressed or not, in bytes. Writers make pages of 1 MiB.
pub const PAGE_BYTES: usize = 64 << 20;

/// Largest header of such a page, in bytes: two values of statistics may be in it.
pub const HEADER_BYTES: u64 = 1 << 18;

/// The footer of a Parquet file with its routes and requests, in bytes (1 GiB).
pub const FOOTER_BYTES: u64 = 1 << 30;
