//! The event queue: at one instant, events run by (class, order of insertion).

use crate::units::SimTime;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What happens first at one instant. A server that becomes free at the instant of a timer is free when the timer's
/// listener looks, and everything that becomes ready by an end has been enqueued before anybody decides anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventClass {
    /// A task ends; servers are freed and successors become ready.
    TaskEnd,
    /// A timer: arrivals, samples, bounds on waiting.
    Timer,
}

/// Events to come, in the order (time, class, insertion).
#[derive(Debug)]
pub struct EventQueue<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    inserted: u64,
}

#[derive(Debug)]
struct Entry<T> {
    time: SimTime,
    /// Class in the top bit, insertion number below.
    order: u64,
    payload: T,
}

impl<T> Entry<T> {
    fn key(&self) -> u128 {
        u128::from(self.time.ps()) << 64 | u128::from(self.order)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl<T> Default for EventQueue<T> {
    fn default() -> Self {
        EventQueue { heap: BinaryHeap::new(), inserted: 0 }
    }
}

impl<T> EventQueue<T> {
    /// Adds an event.
    #[inline]
    pub fn push(&mut self, time: SimTime, class: EventClass, payload: T) {
        let order = (class as u64) << 62 | self.inserted;
        self.inserted += 1;
        self.heap.push(Reverse(Entry { time, order, payload }));
    }

    /// Takes the next event.
    #[inline]
    pub fn pop(&mut self) -> Option<(SimTime, T)> {
        self.heap.pop().map(|Reverse(entry)| (entry.time, entry.payload))
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The class table, neighbour by neighbour: whatever is inserted first, the lower class runs first.
    #[test]
    fn classes_order_one_instant_and_insertion_orders_a_class() {
        let at = SimTime::from_ps(7);
        let mut queue = EventQueue::default();
        queue.push(at, EventClass::Timer, "timer");
        queue.push(at, EventClass::TaskEnd, "first end");
        queue.push(at, EventClass::TaskEnd, "second end");
        queue.push(SimTime::from_ps(6), EventClass::Timer, "earlier");
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, what)| what).collect();
        assert_eq!(order, ["earlier", "first end", "second end", "timer"]);
    }
}
