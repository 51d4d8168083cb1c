//! Who comes next: by the times of the trace, or by clients and conversations that wait for answers.

use crate::trace::Request;
use crate::units::SimTime;
use crate::workload::{Clients, Sessions};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// Requests that have not come yet, in the order of the trace.
#[derive(Debug)]
pub(super) struct Arrivals<'a> {
    requests: &'a [Request],
    clients: Option<&'a Clients>,
    /// By the id of a request: those that are sent when it is over, and the pauses before them.
    followers: HashMap<u64, Vec<(u32, SimTime)>>,
    /// Those by their places.
    waiting: HashSet<u32>,
    /// The first request that nobody has sent or is about to send.
    next: usize,
    /// Where each request goes, by its place, and where those go that count here.
    sent: Option<(&'a [u32], u32)>,
    /// What is about to be sent after an answer: when, and which.
    due: BinaryHeap<Reverse<(SimTime, u32)>>,
}

impl<'a> Arrivals<'a> {
    pub fn new(requests: &'a [Request], clients: Option<&'a Clients>, sessions: Option<&Sessions>) -> Self {
        let (mut followers, mut waiting) = (HashMap::<_, Vec<_>>::new(), HashSet::new());
        if let Some(sessions) = sessions {
            let there: HashSet<u64> = requests.iter().map(|request| request.id).collect();
            for (index, request) in (0..).zip(requests) {
                let turn = sessions.turns.get(&request.id).filter(|(after, _)| there.contains(after));
                if let Some(&(after, think)) = turn {
                    followers.entry(after).or_default().push((index, think));
                    waiting.insert(index);
                }
            }
        }
        let (next, due) = (0, BinaryHeap::new());
        let mut arrivals = Arrivals { requests, clients, followers, waiting, next, sent: None, due };
        for _ in 0..clients.map_or(0, |clients| clients.count) {
            arrivals.send(SimTime::ZERO, |_| SimTime::ZERO);
        }
        arrivals.skip_waiting();
        arrivals
    }

    /// Of the requests that come by times of their own, those that go to `own`: where each goes says `sent`, by its place.
    pub fn only(mut self, sent: &'a [u32], own: u32) -> Self {
        self.sent = Some((sent, own));
        self.skip_waiting();
        self
    }

    fn send(&mut self, now: SimTime, think: impl Fn(usize) -> SimTime) {
        if self.next < self.requests.len() {
            self.due.push(Reverse((now + think(self.next), self.next as u32)));
            self.next += 1;
        }
    }

    fn skip_waiting(&mut self) {
        let elsewhere =
            |next: usize| self.sent.is_some_and(|(sent, own)| sent.get(next).is_some_and(|&to| to != own));
        while self.waiting.contains(&(self.next as u32)) || elsewhere(self.next) {
            self.next += 1;
        }
    }

    /// The request of this id is over: the client who sent it thinks, and sends another; turns that follow it come after their pauses,
    /// and not before their own arrivals.
    pub fn answered(&mut self, now: SimTime, id: u64) {
        if let Some(clients) = self.clients {
            self.send(now, |index| clients.think[index]);
        }
        for (index, think) in self.followers.remove(&id).unwrap_or_default() {
            let own = self.requests[index as usize].arrival;
            self.due.push(Reverse((own.max(now + think), index)));
        }
    }

    /// When somebody comes next, and with which request.
    pub fn peek(&self) -> Option<(SimTime, u32)> {
        let due = self.due.peek().map(|Reverse(next)| *next);
        if self.clients.is_some() {
            return due;
        }
        let own = self.requests.get(self.next).map(|request| (request.arrival, self.next as u32));
        due.into_iter().chain(own).min()
    }

    /// They have come.
    pub fn pop(&mut self) {
        let next = self.peek();
        if next.is_some() && next == self.due.peek().map(|Reverse(next)| *next) {
            self.due.pop();
        } else {
            self.next += 1;
            self.skip_waiting();
        }
    }
}
