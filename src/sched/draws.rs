//! What each token of a request takes of its path, known when the request begins.

use super::Scheduler;
use crate::trace::synth::Later;
use crate::trace::{Request, Taken};
use std::sync::Arc;

/// Who says which branches tokens take.
#[derive(Clone, Debug)]
pub enum Takes {
    /// They are drawn.
    Drawn(Box<Later>),
    /// What each route takes, by its number.
    OfRoutes(Vec<Taken>),
}

/// The same, with what it said of the request that was first in line and did not fit.
#[derive(Debug)]
pub(super) struct Draws {
    takes: Takes,
    kept: Option<(u32, Arc<[Taken]>)>,
}

impl Scheduler<'_> {
    /// Tokens take branches of their paths, as `takes` says when their request begins; every path must leave the same at every layer.
    pub fn with_takes(self, takes: Option<Takes>) -> Self {
        Scheduler { draws: takes.map(|takes| Draws { takes, kept: None }), ..self }
    }
}

impl Draws {
    /// What the tokens of request number `index` take.
    pub fn of(&mut self, index: u32, request: &Request) -> Arc<[Taken]> {
        match &self.kept {
            Some((known, taken)) if *known == index => taken.clone(),
            _ => {
                let taken = self.takes.of(request);
                self.kept = Some((index, taken.clone()));
                taken
            }
        }
    }
}

impl Takes {
    fn of(&mut self, request: &Request) -> Arc<[Taken]> {
        match self {
            Takes::Drawn(later) => {
                let mut taken = Vec::new();
                later.draw(request, &mut taken);
                taken.into()
            }
            Takes::OfRoutes(routes) => {
                let ids = request.runs.iter().flat_map(|run| &run.routes);
                ids.map(|id| routes[id as usize]).collect()
            }
        }
    }
}
