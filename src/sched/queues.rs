//! The queues of the `queued` policy: one for each layer, one before the head.
//!
//! In this order: the head runs whenever somebody waits there (it puts tokens out and refills the front); then a queue
//! whose oldest token has waited for the bound, the oldest first; then the deepest queue that is full; then, where that is
//! asked for, the deepest that it does not pay to hold; then the shallowest, so that the others gather while it catches up.

use crate::batch::Path;
use crate::units::SimTime;

/// Tokens that wait, by the layer that they take next.
#[derive(Debug)]
pub(super) struct Queues {
    /// By layer; the head's last. (slot, hop, since).
    queues: Vec<Vec<(u32, u32, SimTime)>>,
    holds: Vec<bool>,
    /// Tokens that have come to each queue so far.
    came: Vec<u64>,
    count: u32,
}

impl Queues {
    pub fn new(layers: u32) -> Self {
        Queues {
            queues: vec![Vec::new(); layers as usize + 1],
            holds: Vec::new(),
            came: vec![0; layers as usize + 1],
            count: 0,
        }
    }

    /// Tokens that wait.
    pub fn len(&self) -> u32 {
        self.count
    }

    pub fn is_head(&self, queue: usize) -> bool {
        queue + 1 == self.queues.len()
    }

    /// Whether a token of this sequence waits or runs.
    pub fn holds(&self, slot: u32) -> bool {
        self.holds.get(slot as usize).copied().unwrap_or(false)
    }

    /// A token that has taken `hop` hops of its path waits for the next.
    pub fn enter(&mut self, slot: u32, path: &Path, hop: u32, now: SimTime) {
        let head = self.queues.len() - 1;
        let queue = path.hops.get(hop as usize).map_or(head, |hop| hop.layer as usize);
        self.queues[queue].push((slot, hop, now));
        self.came[queue] += 1;
        self.count += 1;
        if self.holds.len() <= slot as usize {
            self.holds.resize(slot as usize + 1, false);
        }
        self.holds[slot as usize] = true;
    }

    /// A sequence goes; its token waits no longer.
    pub fn leave(&mut self, slot: u32) {
        if self.holds(slot) {
            self.holds[slot as usize] = false;
            for queue in &mut self.queues {
                let before = queue.len();
                queue.retain(|&(other, ..)| other != slot);
                self.count -= (before - queue.len()) as u32;
            }
        }
    }

    /// The queue whose turn it is. `layer`: the time of a layer's run, where queues are held only if that pays.
    pub fn next(&self, now: SimTime, full: u32, wait: SimTime, layer: Option<SimTime>) -> Option<usize> {
        let (head, full_at) = (self.queues.len() - 1, full);
        if !self.queues[head].is_empty() {
            return Some(head);
        }
        let waiting = || self.queues.iter().enumerate().filter(|(_, queue)| !queue.is_empty());
        let overdue = waiting()
            .filter(|(_, queue)| now - queue[0].2 >= wait)
            .min_by_key(|(index, queue)| (queue[0].2, *index))
            .map(|(index, _)| index);
        let full = || {
            waiting().filter(|(_, queue)| queue.len() >= full as usize).map(|(index, _)| index).next_back()
        };
        let not_worth_holding = || {
            let layer = layer?;
            let pays = |(index, queue): &(usize, &Vec<_>)| {
                // Fills up in missing / (came / now); saves a run of each layer up to the head.
                let missing = (full_at as usize).saturating_sub(queue.len()) as u128;
                let saved = u128::from(layer.ps()) * (head - index) as u128;
                missing * u128::from(now.ps()) <= saved * u128::from(self.came[*index])
            };
            waiting().filter(|queue| !pays(queue)).map(|(index, _)| index).next_back()
        };
        overdue.or_else(full).or_else(not_worth_holding).or_else(|| waiting().map(|(index, _)| index).next())
    }

    /// Takes at most `most` tokens from the front of a queue: (slot, hop).
    pub fn take(&mut self, queue: usize, most: u32) -> Vec<(u32, u32)> {
        let count = self.queues[queue].len().min(most as usize);
        self.count -= count as u32;
        let head = self.is_head(queue);
        let taken: Vec<_> = self.queues[queue].drain(..count).map(|(slot, hop, _)| (slot, hop)).collect();
        if head {
            for &(slot, _) in &taken {
                self.holds[slot as usize] = false;
            }
        }
        taken
    }
}
