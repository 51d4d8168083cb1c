//! Shorter traces: the beginnings of some requests, on the routes that their tokens took.

use super::{Phase, Request, Role, Run, Trace};
use crate::units::SimTime;

impl Request {
    /// A request that is there from the start: routes of its prompt's tokens, then of those generated, as far as they were fed.
    pub fn plain(id: u64, prompt: &[u32], output_tokens: u32, decode: &[u32]) -> Request {
        let run = |start, phase, ids: &[u32]| Run {
            start,
            phase,
            role: Role::Plain,
            routes: ids.iter().copied().collect(),
            accepted: Vec::new(),
        };
        let prompt_tokens = prompt.len() as u32;
        let mut runs = vec![run(0, Phase::Prefill, prompt)];
        if !decode.is_empty() {
            runs.push(run(prompt_tokens, Phase::Decode, decode));
        }
        let (arrival, priority, prefix) = (SimTime::ZERO, 0, Vec::new());
        Request { id, arrival, prompt_tokens, output_tokens, priority, prefix, runs }
    }
}

impl Trace {
    /// The first `requests` requests, all there from the start, with at most so many tokens of their prompts and so many generated
    /// ones (at least one each). Routes are those of the first tokens of either. Requests without routes, and those that are
    /// drafted or verified, are left out.
    pub fn cut(&self, requests: usize, prompt: u32, output: u32) -> Trace {
        let cut = |request: &Request| {
            if request.runs.is_empty() || request.runs.iter().any(|run| run.role != Role::Plain) {
                return None;
            }
            let all: Vec<u32> = request.runs.iter().flat_map(|run| run.routes.iter()).collect();
            let (prompt_ids, decode_ids) = all.split_at(request.prompt_tokens as usize);
            let output = request.output_tokens.min(output.max(1));
            let fed = decode_ids.len().min(output as usize - 1);
            let prompt = prompt_ids.len().min(prompt.max(1) as usize);
            Some(Request::plain(request.id, &prompt_ids[..prompt], output, &decode_ids[..fed]))
        };
        let requests = self.requests.iter().filter_map(cut).take(requests).collect();
        Trace { header: self.header.clone(), routes: self.routes.clone(), requests }
    }
}
