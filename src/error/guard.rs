//! A border around work that may meet a defect: of a library on hostile input, or of this program. Its panic ends the work alone.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread is at work inside a border.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// What the last panic inside said, with its place.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Does some work. A panic in it becomes a text of one line with its message and place, and is not printed.
///
/// What the work changes must be whole or thrown away after a panic.
///
/// # Errors
/// That text.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    hear();
    let outside = INSIDE.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(outside);
    done.map_err(|payload| {
        let of_payload = || {
            let text = payload.downcast_ref::<String>().cloned();
            text.or_else(|| payload.downcast_ref::<&str>().map(|&said| said.into()))
        };
        // A panic of a thread that the work had started was printed, and is known by its message alone.
        Some(SAID.take()).filter(|said| !said.is_empty()).or_else(of_payload).unwrap_or_default()
    })
}

/// From the first call on, panics inside a border are noted rather than printed; all others go where they went before.
fn hear() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if INSIDE.get() {
                SAID.set(panic.to_string().split_whitespace().collect::<Vec<_>>().join(" "));
            } else {
                before(panic);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(guarded(|| 7), Ok(7));
        let said = guarded(|| -> u8 { panic!("boom\nof {}", 3) }).unwrap_err();
        assert!(said.contains("boom of 3") && said.contains("guard.rs:"), "{said}");
        assert_eq!(guarded(|| 8), Ok(8), "and the next one is as before");
        let inner = guarded(|| guarded(|| -> u8 { panic!("inner") })).expect("the inner border holds");
        assert!(inner.unwrap_err().contains("inner"));
    }
}
