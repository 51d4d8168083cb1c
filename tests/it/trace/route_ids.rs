//! The routes of a run in a cycle against a plain list, and that long runs share what they repeat.

use crate::trace::synth::{batch, make};
use proptest::prelude::*;
use radialsim::trace::{RouteIds, draw_routes, stretch};
use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::sync::Arc;

/// The same ids one by one.
fn naive(cycle: &[u32], start: u32, len: u32) -> Vec<u32> {
    (0..len as usize).map(|index| cycle[(start as usize + index) % cycle.len()]).collect()
}

/// A cycle of few different ids, so that sequences of different cycles are often equal.
fn parts() -> impl Strategy<Value = (Vec<u32>, u32, u32)> {
    (prop::collection::vec(0u32..2, 1..6), 0u32..12, 0u32..16)
}

fn of((cycle, start, len): &(Vec<u32>, u32, u32)) -> (RouteIds, Vec<u32>) {
    (RouteIds::cycle(cycle.as_slice().into(), *start, *len), naive(cycle, *start, *len))
}

proptest! {
    #[test]
    fn a_cycle_reads_like_a_list(parts in parts(), from in 0u32..16, to in 0u32..16) {
        let (ids, list) = of(&parts);
        prop_assert_eq!((ids.len() as usize, ids.is_empty()), (list.len(), list.is_empty()));
        prop_assert_eq!(ids.iter().collect::<Vec<_>>(), list.clone());
        prop_assert_eq!(ids.iter().len(), list.len());
        prop_assert_eq!((0..ids.len()).map(|index| ids.get(index)).collect::<Vec<_>>(), list.clone());
        prop_assert_eq!(format!("{ids:?}"), format!("{list:?}"));
        let (to, len) = (to.min(ids.len()), ids.len());
        let from = from.min(to);
        let mut range = ids.range(from, to);
        prop_assert_eq!(range.len() as u32, to - from);
        prop_assert_eq!(range.by_ref().collect::<Vec<_>>(), &list[from as usize..to as usize]);
        prop_assert_eq!((range.next(), range.len()), (None, 0));
        let (cycle, start) = ids.cycle_parts();
        prop_assert!((start as usize) < cycle.len());
        prop_assert_eq!(naive(cycle, start, len), list.clone());

        let (mut counted, mut counts) = (BTreeMap::new(), BTreeMap::new());
        ids.counted().for_each(|(id, times)| *counted.entry(id).or_insert(0) += times);
        list.iter().for_each(|&id| *counts.entry(id).or_insert(0) += 1);
        prop_assert_eq!(counted, counts);
        let firsts: Vec<u32> = list.iter().copied().take(parts.0.len()).collect();
        prop_assert_eq!(ids.counted().map(|(id, _)| id).collect::<Vec<_>>(), firsts);
    }

    #[test]
    fn a_list_stays_what_it_was(list in prop_oneof![
        prop::collection::vec(any::<u32>(), 0..20),
        (any::<u32>(), 0usize..20).prop_map(|(id, len)| vec![id; len]),
    ]) {
        let ids: RouteIds = list.iter().copied().collect();
        prop_assert_eq!(&ids, &RouteIds::from(list.clone()));
        prop_assert_eq!(ids.iter().collect::<Vec<_>>(), list.clone());
        if let Some(&id) = list.first() {
            let same = RouteIds::same(id, list.len() as u32);
            prop_assert_eq!(same == ids, list.iter().all(|&other| other == id));
            prop_assert!(same != ids || ids.shared_cycle().len() == 1, "one id is kept once");
        }
    }

    #[test]
    fn equal_is_what_reads_equal(one in parts(), other in parts()) {
        let ((one, a), (other, b)) = (of(&one), of(&other));
        prop_assert_eq!(one == other, a == b, "{:?} {:?}", one.cycle_parts(), other.cycle_parts());
        prop_assert_eq!(&one, &RouteIds::listed(a));
    }
}

/// Equality looks at no more than both cycles, and these two differ only in the last token that it may look at.
#[test]
fn long_runs_are_compared_and_counted_by_their_cycles() {
    let fibonacci = |text: &str| -> Vec<u32> { text.bytes().map(|byte| u32::from(byte == b'1')).collect() };
    let (one, other) = (fibonacci("01001"), fibonacci("01001010"));
    // Periods of 5 and 8 can agree on 5 + 8 - 2 ids and still differ.
    let ids = |cycle: &[u32], len| RouteIds::cycle(cycle.into(), 0, len);
    assert_eq!(ids(&one, 11), ids(&other, 11));
    assert_ne!(ids(&one, 12), ids(&other, 12));
    let most = u32::MAX;
    assert_ne!(ids(&one, most), ids(&other, most));
    let (thrice, turned) = (one.repeat(3), fibonacci("10010"));
    assert_eq!(ids(&one, most), RouteIds::cycle(turned.into(), 4, most));
    assert_eq!(ids(&one, most), ids(&thrice, most));
    let end = RouteIds::cycle(one.into(), most, most);
    assert_eq!(end.get(most - 1), 1, "token 2^32 - 2 from place 2^32 - 1 stands at place 4 of 5");
    assert_eq!(end.counted().map(|(_, times)| u64::from(times)).sum::<u64>(), u64::from(most));
    assert!(format!("{end:?}").len() < 100, "long runs are shown by their cycle");
    assert_eq!(end.range(most - 1, most).collect::<Vec<_>>(), [1]);
}

#[test]
fn no_tokens_are_no_trouble_and_too_many_are_refused() {
    let none = [
        RouteIds::default(),
        RouteIds::listed(vec![]),
        RouteIds::same(3, 0),
        RouteIds::cycle(Arc::new([]), 7, 0),
        RouteIds::cycle(Arc::new([1, 2]), 7, 0),
    ];
    for ids in &none {
        assert!(ids.is_empty() && *ids == none[0], "{ids:?}");
        assert_eq!((ids.iter().next(), ids.range(0, 0).len(), ids.counted().count()), (None, 0, 0));
        assert!(catch_unwind(|| ids.get(0)).is_err(), "{:?}", ids.cycle_parts());
    }
    assert!(catch_unwind(|| RouteIds::cycle(Arc::new([]), 0, 1)).is_err());
    let two = RouteIds::listed(vec![1, 2]);
    for (from, to) in [(0, 3), (2, 1), (3, 3)] {
        assert!(catch_unwind(|| two.range(from, to).len()).is_err(), "{from}..{to}");
    }
}

/// Requests that draw the routes of one recorded request hold one list of each phase between them, however long they are.
#[test]
fn drawn_routes_are_shared_and_stay_so_in_another_pool() {
    let method = "IndependentSkips(skip: 0.3, branches: Jointly, kv: none)";
    let drawn = draw_routes(&make(method, 12, batch(1, 5, 8), 1), batch(3, 100_000, 50_000), 2).unwrap();
    for trace in [stretch(&drawn, 30).unwrap(), drawn] {
        for (phase, recorded) in [(0, 5), (1, 7)] {
            let cycle = |request: usize| trace.requests[request].runs[phase].routes.shared_cycle();
            assert_eq!(cycle(0).len(), recorded);
            assert!(Arc::ptr_eq(cycle(0), cycle(1)) && Arc::ptr_eq(cycle(1), cycle(2)));
        }
    }
    let dense = make("Dense", 12, batch(1, 100_000, 50_000), 1);
    assert!(dense.requests[0].runs.iter().all(|run| run.routes.shared_cycle().len() == 1));
}
