//! Self-speculation: rounds of draft and verify.

use super::tokens::run;
use crate::rng::Stream;
use crate::trace::{Phase, Request, Role, Route, RouteIds, RouteTable, Run};

pub(super) struct Rounds {
    drafts: u32,
    /// Probability that a draft is accepted, given that the one before it was.
    p: f64,
    exit_layer: u32,
}

impl Rounds {
    pub(super) fn new(exit_layer: u32, drafts: u32, acceptance: f64) -> Self {
        Rounds { drafts, p: per_draft(drafts, acceptance), exit_layer }
    }

    pub(super) fn request(
        &self,
        request: &Request,
        layers: u32,
        table: &mut RouteTable,
        own: &mut Stream,
    ) -> Vec<Run> {
        let dense = table.intern(Route::dense(layers));
        let early = table.intern(Route::of_layers(0..self.exit_layer));
        let late = table.intern(Route::of_layers(self.exit_layer..layers));
        let prompt = request.prompt_tokens;
        let end = prompt + request.output_tokens - 1;
        let mut runs = vec![run(0, Phase::Prefill, Role::Plain)];
        runs[0].routes = RouteIds::same(dense, prompt);
        let mut at = prompt;
        while at < end {
            let drafts = self.drafts.min(end - at - 1);
            if drafts == 0 {
                runs.push(Run { routes: RouteIds::same(dense, 1), ..run(at, Phase::Decode, Role::Plain) });
                break;
            }
            let accepted = (0..drafts).take_while(|_| own.chance(self.p)).count() as u32;
            let routes = RouteIds::same(early, drafts);
            runs.push(Run { routes, ..run(at, Phase::Decode, Role::Draft) });
            let mut routes = vec![late; drafts as usize];
            routes.push(dense);
            let stays = (0..=drafts).map(|index| index <= accepted).collect();
            let routes = routes.into();
            runs.push(Run { routes, accepted: stays, ..run(at, Phase::Decode, Role::Verify) });
            at += 1 + accepted;
        }
        runs
    }
}

/// The p with `p + p^2 + ... + p^drafts = drafts * acceptance`, by bisection: the sum rises with p from 0 to `drafts`.
fn per_draft(drafts: u32, acceptance: f64) -> f64 {
    if acceptance == 0.0 || acceptance == 1.0 {
        return acceptance;
    }
    let mean = |p: f64| (0..drafts).fold(0.0, |sum, _| (sum + 1.0) * p);
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        let target = f64::from(drafts) * acceptance;
        *(if mean(middle) < target { &mut low } else { &mut high }) = middle;
    }
    0.5 * (low + high)
}
