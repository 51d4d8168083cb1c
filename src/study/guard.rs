//! A border around one point: a defect of the program that a point meets ends the point and not the study.

/// Does some work. A panic in it becomes a text with its message and place, and is not printed. What the work shares with other
/// points is behind locks that are whole whenever they are free.
///
/// # Errors
/// That text.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let point = |said| format!("a defect of the program, which was met at this point alone: {said}");
    crate::error::guarded(work).map_err(point)
}
