//! A bar on standard error, only where somebody sits before it and the run is long.

use super::memory;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use radialsim::scenario::{Footprint, Progress};
use radialsim::study::SweepWatch;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Shorter runs show no bar.
const LONG: Duration = Duration::from_millis(800);

/// The bar of one scenario.
pub struct Bar {
    bar: Option<ProgressBar>,
    shown: AtomicBool,
    start: Instant,
}

impl Bar {
    /// A bar with this text before it; none where standard error is no terminal, or with `quiet`.
    pub fn new(text: &str, quiet: bool) -> Bar {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} %, {eta} left")
            .expect("a right template");
        let bar = || {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
            bar.with_style(style).with_message(radialsim::error::shorten(text))
        };
        let wanted = !quiet && std::io::stderr().is_terminal();
        Bar { bar: wanted.then(bar), shown: AtomicBool::new(false), start: Instant::now() }
    }
}

impl Bar {
    fn longer(&self, by: u64) {
        if let Some(bar) = &self.bar {
            bar.inc_length(by);
        }
    }

    fn further(&self, by: u64) {
        let Some(bar) = &self.bar else { return };
        bar.inc(by);
        if self.start.elapsed() >= LONG && !self.shown.swap(true, Ordering::Relaxed) {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

/// Of a scenario: by output tokens.
impl Progress for Bar {
    fn begin(&self, tokens: u64) {
        self.longer(tokens);
    }

    fn output(&self, tokens: u64) {
        self.further(tokens);
    }

    fn memory(&self, footprint: &dyn Fn() -> Footprint) {
        let Some(free) = memory::free() else { return };
        let footprint = footprint();
        if footprint.at_most() > free {
            super::say(&memory::too_much(&footprint, free));
        }
    }
}

/// Of a study: by its points, and the settings of its searches.
impl SweepWatch for Bar {
    fn more(&self, cases: u64) {
        self.longer(cases);
    }

    fn one(&self) {
        self.further(1);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
