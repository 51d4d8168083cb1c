//! What the fuzz targets share: the readers, and a bound on their memory.

pub mod readers;

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Bytes that a reader may take whatever it reads: buffers of files, tables of compiled patterns.
const FIXED: usize = 8 << 20;
/// The same for chat templates, which are programs: their fuel pays for some 13 MB of values (64 bytes each step), held in several forms.
const FIXED_TEMPLATE: usize = 128 << 20;
/// Bytes that it may take for each byte that it reads.
const EACH: usize = 64;

/// Feeds `bytes` to a reader and holds it to its bound of memory.
///
/// # Panics
/// A reader that breaks a rule.
pub fn run(name: &str, bytes: &[u8]) {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    readers::feed(name, bytes);
    let most = HEAP.peak_usage().saturating_sub(before);
    let fixed = if name == "template" { FIXED_TEMPLATE } else { FIXED };
    assert!(most <= fixed + EACH * bytes.len(), "{most} bytes of memory for {} bytes", bytes.len());
}

/// The program of a target.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::run($name, bytes));
    };
}
