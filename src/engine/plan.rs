//! A graph of tasks, pushed in topological order, in flat arrays that are reused from plan to plan.

use super::{Ended, ResourceId};
use crate::units::SimTime;

/// One task: who serves it, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// The resource it holds a server of.
    pub resource: ResourceId,
    /// For how long.
    pub duration: SimTime,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    task: Task,
    /// Predecessors that have not ended.
    open: u32,
    /// First of its outgoing edges, `NONE` at the end of the list.
    successor: u32,
    last_successor: u32,
    ready: SimTime,
    start: SimTime,
    /// Length of the longest path that ends with this task.
    path: SimTime,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    to: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

/// Tasks and their dependencies.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    ended: u32,
    critical_path: SimTime,
    number: u64,
    /// A number of the caller's, to know the plan again when it is over.
    pub tag: u64,
}

impl Plan {
    /// Adds a task that waits for `predecessors` (indices of earlier tasks). Returns its index.
    #[inline]
    pub fn push(&mut self, task: Task, predecessors: &[u32]) -> u32 {
        let index = self.nodes.len() as u32;
        let mut longest = SimTime::ZERO;
        for &before in predecessors {
            assert!(before < index, "a task waits only for earlier tasks, so that a plan has no cycle");
            let edge = self.edges.len() as u32;
            self.edges.push(Edge { to: index, next: NONE });
            let node = &mut self.nodes[before as usize];
            longest = longest.max(node.path);
            let last = std::mem::replace(&mut node.last_successor, edge);
            if last == NONE { node.successor = edge } else { self.edges[last as usize].next = edge }
        }
        let path = longest + task.duration;
        self.critical_path = self.critical_path.max(path);
        self.nodes.push(Node {
            task,
            open: predecessors.len() as u32,
            successor: NONE,
            last_successor: NONE,
            ready: SimTime::ZERO,
            start: SimTime::ZERO,
            path,
        });
        index
    }

    /// Number of tasks.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no task.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The longest chain of dependent tasks: no schedule is shorter.
    pub fn critical_path(&self) -> SimTime {
        self.critical_path
    }

    /// Empties the plan and keeps its memory.
    pub fn clear(&mut self) {
        self.nodes.clear();
        self.edges.clear();
        self.ended = 0;
        self.critical_path = SimTime::ZERO;
    }

    /// How many plans were submitted before this one, and itself.
    #[inline]
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn seal(&mut self, number: u64) {
        self.number = number;
        assert_eq!(self.ended, 0, "a plan runs once; clear it before it is filled again");
    }

    pub(super) fn roots(&self) -> impl Iterator<Item = u32> {
        (0..self.nodes.len() as u32).filter(|&index| self.nodes[index as usize].open == 0)
    }

    #[inline]
    pub(super) fn set_ready(&mut self, index: u32, now: SimTime) -> ResourceId {
        let node = &mut self.nodes[index as usize];
        node.ready = now;
        node.task.resource
    }

    #[inline]
    pub(super) fn set_start(&mut self, index: u32, now: SimTime) -> SimTime {
        let node = &mut self.nodes[index as usize];
        node.start = now;
        node.task.duration
    }

    #[inline]
    pub(super) fn ended(&mut self, index: u32, now: SimTime) -> Ended {
        self.ended += 1;
        let node = &self.nodes[index as usize];
        Ended { index, resource: node.task.resource, ready: node.ready, start: node.start, end: now }
    }

    #[inline]
    pub(super) fn first_successor(&self, index: u32) -> Option<u32> {
        let edge = self.nodes[index as usize].successor;
        (edge != NONE).then_some(edge)
    }

    /// Takes one edge away: the task it leads to, whether that is ready now, and the next edge of the same origin.
    #[inline]
    pub(super) fn release(&mut self, edge: u32) -> (u32, bool, Option<u32>) {
        let Edge { to, next } = self.edges[edge as usize];
        let node = &mut self.nodes[to as usize];
        node.open -= 1;
        (to, node.open == 0, (next != NONE).then_some(next))
    }

    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.ended as usize == self.nodes.len()
    }
}
