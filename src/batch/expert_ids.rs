//! Which experts each token of a trace took, layer by layer: what a pass asks of each expert is then counted, not expected.

use crate::error::{Error, InputError, Result};
use crate::kernel::ExpertLoad;
use crate::trace::{Reader, Role};
use std::collections::HashMap;
use std::path::Path;

/// No expert.
const NONE: u16 = u16::MAX;

/// Ids of the experts of every token of some requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExpertIds {
    layers: usize,
    /// Experts of a layer, and the most that a token takes there.
    count: usize,
    top: usize,
    /// By the request's id, for each position and layer `top` ids.
    of: HashMap<u64, Box<[u16]>>,
}

impl ExpertIds {
    /// Those of the trace in a file, of a pool of `layers` with `count` experts each.
    ///
    /// # Errors
    /// A file that cannot be read; tokens without experts, or with more than `top` at a layer; experts beyond `count`; runs whose tokens are not a
    /// sequence's own, one after the other.
    pub fn read(path: &Path, layers: u32, [count, top]: [u32; 2]) -> Result<ExpertIds> {
        let (layers, count, top) = (layers as usize, count as usize, top as usize);
        let mut ids = ExpertIds { layers, count, top, of: HashMap::new() };
        let mut reader = Reader::open(path)?;
        reader.keep_experts();
        while let Some(request) = reader.next().transpose()? {
            let wrong = |found: String, expected: &str| -> Error {
                InputError::expected(expected)
                    .key("experts")
                    .found(format!("{found} of request {}", request.id))
                    .into()
            };
            let mut own: Vec<u16> = Vec::new();
            for (run, said) in request.runs.iter().zip(reader.experts()) {
                if run.role != Role::Plain || run.start as usize * layers * top != own.len() {
                    let found = format!("a run at {} that drafts, verifies or recomputes", run.start);
                    return Err(wrong(found, "runs of tokens one after the other"));
                }
                let Some(said) = said else {
                    return Err(wrong(format!("no experts at {}", run.start), "experts of every token"));
                };
                let tokens: Vec<Vec<Vec<u32>>> = serde_json::from_str(said)
                    .map_err(|error| wrong(error.to_string(), "lists of expert ids"))?;
                for (route, steps) in run.routes.iter().zip(&tokens) {
                    let begin = own.len();
                    own.resize(begin + layers * top, NONE);
                    for (step, experts) in reader.routes().get(route).0.iter().zip(steps) {
                        let at = begin + step.layer as usize * top;
                        let free = own[at..at + top].iter().position(|&id| id == NONE).unwrap_or(top);
                        if free + experts.len() > top {
                            let found = format!("{} experts at layer {}", free + experts.len(), step.layer);
                            return Err(wrong(found, &format!("at most {top} a token and layer")));
                        }
                        for (place, &expert) in own[at + free..].iter_mut().zip(experts) {
                            if expert as usize >= count {
                                return Err(wrong(
                                    format!("expert {expert}"),
                                    &format!("experts below {count}"),
                                ));
                            }
                            *place = expert as u16;
                        }
                    }
                }
            }
            ids.of.insert(request.id, own.into());
        }
        Ok(ids)
    }

    /// Rows of each expert of each layer, of these tokens: requests with first positions and numbers of tokens.
    ///
    /// # Panics
    /// Of tokens that the trace does not have.
    pub fn rows(&self, tokens: impl Iterator<Item = (u64, u32, u32)>) -> Vec<Vec<u32>> {
        let mut rows = vec![vec![0; self.count]; self.layers];
        let width = self.layers * self.top;
        for (request, first, count) in tokens {
            let own = &self.of[&request];
            let (begin, end) = (first as usize * width, (first + count) as usize * width);
            for token in own[begin..end].chunks(width) {
                for (rows, experts) in rows.iter_mut().zip(token.chunks(self.top)) {
                    experts.iter().filter(|&&id| id != NONE).for_each(|&id| rows[usize::from(id)] += 1);
                }
            }
        }
        rows
    }

    /// The same as loads of the device with most rows, among those that share the experts evenly.
    pub fn loads(&self, tokens: impl Iterator<Item = (u64, u32, u32)>, devices: u32) -> Vec<ExpertLoad> {
        let own = self.count / devices as usize;
        let sum = |device: &&[u32]| device.iter().copied().map(u64::from).sum::<u64>();
        let of = |rows: Vec<u32>| ExpertLoad::of(rows.chunks(own).max_by_key(sum).unwrap_or(&[]));
        self.rows(tokens).into_iter().map(of).collect()
    }
}
