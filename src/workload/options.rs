//! What is taken of the requests of a source: a window, a rate, a number, and lengths up to a bound.

use super::{Remark, RequestSet};
use crate::error::{Result, demand};
use crate::units::SimTime;

/// What is taken of a source. The window comes first, in the source's own time, then the count, then the scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// Arrivals are multiplied by this, above 0: 0.5 is twice the rate. Products are rounded as a 64-bit float.
    pub time_scale: f64,
    /// Start of the window, in seconds after the first request of the source; it becomes time 0.
    pub start_s: f64,
    /// Length of the window, in seconds; its end is outside. `None`: all that follows.
    pub duration_s: Option<f64>,
    /// The first so many requests of the window.
    pub most_requests: Option<u32>,
    /// Longer prompts are cut to this many tokens, and lose the prefix hashes of blocks that are cut off as a whole.
    pub most_prompt_tokens: Option<u32>,
    /// Longer outputs are cut to this many tokens.
    pub most_output_tokens: Option<u32>,
}

impl Default for Selection {
    /// Everything, as it is.
    fn default() -> Self {
        Selection {
            time_scale: 1.0,
            start_s: 0.0,
            duration_s: None,
            most_requests: None,
            most_prompt_tokens: None,
            most_output_tokens: None,
        }
    }
}

impl Selection {
    /// Takes it, and remarks what was scaled and cut.
    ///
    /// # Errors
    /// An option out of range, arrivals that go beyond simulated time (213 days), a window without requests, and a window or
    /// scale where clients decide about arrivals.
    pub fn apply(&self, load: &mut RequestSet) -> Result<()> {
        self.check()?;
        if load.clients.is_some() {
            let found = if self.time_scale != 1.0 {
                Some("time_scale")
            } else {
                (self.start_s > 0.0 || self.duration_s.is_some()).then_some("a window")
            };
            let what = "no time_scale and no window, as clients send each request when another has ended";
            demand(found.is_none(), "arrivals", format!("Clients and {}", found.unwrap_or_default()), what)?;
        }
        self.window(load)?;
        self.scale(load)?;
        self.cut(load);
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let scale = self.time_scale;
        demand(scale.is_finite() && scale > 0.0, "time_scale", scale, "a finite number above 0")?;
        let start = self.start_s;
        demand(
            start.is_finite() && start >= 0.0,
            "start_s",
            start,
            "a finite number of seconds, at least 0",
        )?;
        if let Some(s) = self.duration_s {
            demand(s.is_finite() && s > 0.0, "duration_s", s, "a finite number of seconds above 0")?;
        }
        for (key, most) in [
            ("most_requests", self.most_requests),
            ("most_prompt_tokens", self.most_prompt_tokens),
            ("most_output_tokens", self.most_output_tokens),
        ] {
            demand(most != Some(0), key, 0, "at least 1")?;
        }
        Ok(())
    }

    fn window(&self, load: &mut RequestSet) -> Result<()> {
        let start = SimTime::from_s(self.start_s);
        let length = self.duration_s.map(SimTime::from_s);
        let before = load.requests.len();
        load.requests.retain(|request| {
            let inside = |length: SimTime| request.arrival.saturating_sub(start) < length;
            request.arrival >= start && length.is_none_or(inside)
        });
        if let Some(most) = self.most_requests {
            load.requests.truncate(most as usize);
        }
        let key = if self.start_s > 0.0 { "start_s" } else { "duration_s" };
        let found = format!("none of {before} requests");
        demand(before == 0 || !load.requests.is_empty(), key, found, "a window with a request")?;
        for request in &mut load.requests {
            request.arrival = request.arrival.saturating_sub(start);
        }
        Ok(())
    }

    fn scale(&self, load: &mut RequestSet) -> Result<()> {
        if self.time_scale == 1.0 {
            return Ok(());
        }
        for request in &mut load.requests {
            let ps = request.arrival.ps() as f64 * self.time_scale;
            let what = "arrivals within the 213 days of simulated time";
            demand(ps < u64::MAX as f64, "time_scale", self.time_scale, what)?;
            request.arrival = SimTime::from_ps((ps + 0.5) as u64);
        }
        load.remarks.push(Remark::new("time_scale", self.time_scale, "arrivals are multiplied by this"));
        Ok(())
    }

    fn cut(&self, load: &mut RequestSet) {
        let (mut prompts, mut outputs) = (0_u64, 0_u64);
        for request in &mut load.requests {
            if let Some(most) = self.most_prompt_tokens.filter(|&most| request.prompt_tokens > most) {
                request.prompt_tokens = most;
                if let Some(block) = load.prefix_block {
                    request.prefix.truncate(most.div_ceil(block) as usize);
                }
                prompts += 1;
            }
            if let Some(most) = self.most_output_tokens.filter(|&most| request.output_tokens > most) {
                request.output_tokens = most;
                outputs += 1;
            }
        }
        let of = load.requests.len();
        let mut remark = |key, most: Option<u32>, cut: u64, what: &str| {
            if let Some(most) = most.filter(|_| cut > 0) {
                load.remarks.push(Remark::new(
                    key,
                    most,
                    format!("{cut} of {of} {what} are longer and were cut"),
                ));
            }
        };
        remark("most_prompt_tokens", self.most_prompt_tokens, prompts, "prompts");
        remark("most_output_tokens", self.most_output_tokens, outputs, "outputs");
    }
}
