//! Who comes next: by the times of the trace, or by clients who wait for answers.

use crate::trace::Request;
use crate::units::SimTime;
use crate::workload::Clients;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Requests that have not come yet, in the order of the trace.
#[derive(Debug)]
pub(super) struct Arrivals<'a> {
    requests: &'a [Request],
    clients: Option<&'a Clients>,
    /// The first request that nobody has sent or is about to send.
    next: usize,
    /// What clients are about to send: when, and which.
    due: BinaryHeap<Reverse<(SimTime, u32)>>,
}

impl<'a> Arrivals<'a> {
    pub fn new(requests: &'a [Request], clients: Option<&'a Clients>) -> Self {
        let mut arrivals = Arrivals { requests, clients, next: 0, due: BinaryHeap::new() };
        for _ in 0..clients.map_or(0, |clients| clients.count) {
            arrivals.send(SimTime::ZERO, |_| SimTime::ZERO);
        }
        arrivals
    }

    fn send(&mut self, now: SimTime, think: impl Fn(usize) -> SimTime) {
        if self.next < self.requests.len() {
            self.due.push(Reverse((now + think(self.next), self.next as u32)));
            self.next += 1;
        }
    }

    /// A request is over; the client who sent it thinks, and sends another.
    pub fn answered(&mut self, now: SimTime) {
        if let Some(clients) = self.clients {
            self.send(now, |index| clients.think[index]);
        }
    }

    /// When somebody comes next, and with which request.
    pub fn peek(&self) -> Option<(SimTime, u32)> {
        if self.clients.is_some() {
            return self.due.peek().map(|Reverse(next)| *next);
        }
        self.requests.get(self.next).map(|request| (request.arrival, self.next as u32))
    }

    /// They have come.
    pub fn pop(&mut self) {
        if self.due.pop().is_none() {
            self.next += 1;
        }
    }
}
