//! Long work on a thread of its own, while this one listens to Ctrl-C.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use radialsim::scenario::Progress;
use radialsim::study::SweepWatch;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::Builder;
use std::time::Duration;

/// How often the waiting thread looks whether somebody pressed Ctrl-C.
const LOOK: Duration = Duration::from_millis(50);

/// The stack of the thread that works: as large as that of a main thread.
const STACK_BYTES: usize = 8 << 20;

/// How far the work is, and whether it is to stop.
#[derive(Default)]
pub struct Pace {
    total: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
}

/// What unwinds the stack of work that is to stop.
struct Stopped;

impl Pace {
    fn further(&self, by: u64) {
        self.done.fetch_add(by, Relaxed);
        if self.stop.load(Relaxed) {
            // No defect: the hook that prints panics is not called.
            resume_unwind(Box::new(Stopped));
        }
    }
}

/// Of a scenario: by output tokens.
impl Progress for Pace {
    fn begin(&self, tokens: u64) {
        self.total.fetch_add(tokens, Relaxed);
    }

    fn output(&self, tokens: u64) {
        self.further(tokens);
    }
}

/// Of a study: by its points, and the settings of its searches.
impl SweepWatch for Pace {
    fn more(&self, cases: u64) {
        self.total.fetch_add(cases, Relaxed);
    }

    fn one(&self) {
        self.further(1);
    }
}

/// Does the work without holding the interpreter. `tick(done, total)` is called about twenty times a second. What a signal handler or
/// `tick` raises is raised at once; the work then ends at its next token, its results unseen.
pub fn waiting<T: Send + 'static>(
    py: Python,
    tick: Option<&Bound<PyAny>>,
    work: impl FnOnce(&Pace) -> T + Send + 'static,
) -> PyResult<T> {
    let pace = Arc::new(Pace::default());
    let (send, mut receive) = channel();
    let own = pace.clone();
    Builder::new().stack_size(STACK_BYTES).spawn(move || {
        let done = catch_unwind(AssertUnwindSafe(|| work(&own)));
        // Nobody listens any more where it was stopped.
        let _ = send.send(done);
    })?;
    let told = || {
        tick.map_or(Ok(()), |tick| tick.call1((pace.done.load(Relaxed), pace.total.load(Relaxed))).map(drop))
    };
    loop {
        let receive = &mut receive;
        match py.detach(move || receive.recv_timeout(LOOK)) {
            Ok(Ok(done)) => return told().map(|()| done),
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => {
                return Err(PyRuntimeError::new_err(
                    "a defect of radialsim: see what it printed on standard error",
                ));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Err(error) = py.check_signals().and_then(|()| told()) {
            pace.stop.store(true, Relaxed);
            return Err(error);
        }
    }
}
