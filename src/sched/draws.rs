//! Routes that are drawn when their request begins.

use super::Scheduler;
use crate::trace::Request;
use crate::trace::synth::Later;
use std::sync::Arc;

/// What draws routes, and what it drew for the request that was first in line and did not fit.
#[derive(Debug)]
pub(super) struct Draws {
    later: Later,
    kept: Option<(u32, Arc<[crate::trace::Taken]>)>,
}

impl Scheduler<'_> {
    /// What each token takes is drawn when its request begins.
    pub fn with_later(self, later: Option<Later>) -> Self {
        Scheduler { later: later.map(|later| Draws { later, kept: None }), ..self }
    }
}

impl Draws {
    /// What the tokens of request number `index` take.
    pub fn of(&mut self, index: u32, request: &Request) -> Arc<[crate::trace::Taken]> {
        match &self.kept {
            Some((known, taken)) if *known == index => taken.clone(),
            _ => {
                let mut taken = Vec::new();
                self.later.draw(request, &mut taken);
                let taken: Arc<[_]> = taken.into();
                self.kept = Some((index, taken.clone()));
                taken
            }
        }
    }
}
