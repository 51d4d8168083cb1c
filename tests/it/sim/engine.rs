//! The event engine: wrong order, idle servers, lost tasks, lost bytes. Knows no model.

use crate::sim::engine_naive::{Line, Submission, Toy, schedule};
use proptest::prelude::*;
use radialsim::engine::{Ended, Engine, Occurrence, Plan, Pool, ResourceId, Task};
use radialsim::units::SimTime;

fn ps(ps: u64) -> SimTime {
    SimTime::from_ps(ps)
}

fn line(ended: &Ended) -> Line {
    Line {
        index: ended.index,
        resource: ended.resource.0.into(),
        ready: ended.ready.ps(),
        start: ended.start.ps(),
        end: ended.end.ps(),
    }
}

fn plan(tasks: &[Toy]) -> Plan {
    let mut plan = Plan::default();
    for task in tasks {
        let resource = ResourceId(task.resource as u16);
        plan.push(Task { resource, duration: ps(task.duration) }, &task.after);
    }
    plan
}

/// What the engine does with these plans: a timer submits each. Also the busy time of each resource.
fn run(servers: &[u32], plans: &[Submission]) -> (Vec<Line>, Vec<u64>) {
    let mut engine = Engine::new();
    for (index, &servers) in servers.iter().enumerate() {
        engine.add_resource(format!("r{index}"), servers);
    }
    for (index, submission) in plans.iter().enumerate() {
        engine.set_timer(ps(submission.at), index as u64);
    }
    let (mut log, mut over) = (Vec::new(), 0);
    loop {
        match engine.run(&mut |ended| log.push(line(ended))) {
            Occurrence::Timer(index) => {
                let submission = &plans[index as usize];
                assert_eq!(engine.now(), ps(submission.at));
                let plan = plan(&submission.tasks);
                assert_eq!(plan.critical_path(), ps(critical_path(&submission.tasks)));
                engine.submit(plan);
            }
            Occurrence::PlanDone(_) => over += 1,
            Occurrence::Idle => break,
        }
    }
    assert_eq!(over, plans.len(), "every plan ends, the empty ones too");
    assert_eq!(engine.tasks_ended() as usize, log.len());
    (log, engine.resources().map(|(_, _, busy)| busy.ps()).collect())
}

/// The longest chain, by trying every predecessor.
fn critical_path(tasks: &[Toy]) -> u64 {
    let mut paths: Vec<u64> = Vec::new();
    for task in tasks {
        let before = task.after.iter().map(|&before| paths[before as usize]).max();
        paths.push(before.unwrap_or(0) + task.duration);
    }
    paths.into_iter().max().unwrap_or(0)
}

fn toy(resource: usize, duration: u64, after: &[u32]) -> Toy {
    Toy { resource, duration, after: after.to_vec() }
}

/// Two compute queues and a copy engine. Tasks by index, resource and duration; arrows are dependencies.
///
/// ```text
/// 0: A 4            1: C 3 (copy in)   2: B 2        3: B 5 <- 1    4: A 3 <- 0, 2
/// 5: C 2 <- 4       6: A 2 <- 3        7: B 1 <- 4   8: C 4 <- 7    9: A 0 <- 5, 8
///
/// time  0   1   2   3   4   5   6   7   8   9   10  11  12  13
///   A   |0--------------|4----------|   |6------|           9
///   B   |2------|   |3------------------|7--|
///   C   |1----------|               |5------|8--------------|
/// ```
///
/// A: 0 from 0 to 4; 4 waits for 0 (and 2, done at 2): 4 to 7; 6 waits for 3: 8 to 10, so A idles from 7 to 8.
/// B: 2 from 0 to 2; 3 waits for 1: 3 to 8; 7 is ready at 7 and waits for its server: 8 to 9.
/// C: 1 from 0 to 3; 5 waits for 4: 7 to 9; 8 waits for 7, which ends at 9, as 5 does: 9 to 13. 9 takes no time, at 13.
#[test]
fn a_schedule_by_hand() {
    const A: usize = 0;
    const B: usize = 1;
    const C: usize = 2;
    let tasks = vec![
        toy(A, 4, &[]),
        toy(C, 3, &[]),
        toy(B, 2, &[]),
        toy(B, 5, &[1]),
        toy(A, 3, &[0, 2]),
        toy(C, 2, &[4]),
        toy(A, 2, &[3]),
        toy(B, 1, &[4]),
        toy(C, 4, &[7]),
        toy(A, 0, &[5, 8]),
    ];
    assert_eq!(
        critical_path(&tasks),
        12,
        "0, 4, 7, 8, 9: one less than the makespan, as 7 waits for its server"
    );
    let (mut log, busy) = run(&[1, 1, 1], &[Submission { at: 0, tasks }]);
    log.sort_by_key(|line| line.index);
    let times: Vec<_> = log.iter().map(|line| (line.ready, line.start, line.end)).collect();
    let by_hand = [
        (0, 0, 4),
        (0, 0, 3),
        (0, 0, 2),
        (3, 3, 8),
        (4, 4, 7),
        (7, 7, 9),
        (8, 8, 10),
        (7, 8, 9),
        (9, 9, 13),
        (13, 13, 13),
    ];
    assert_eq!(times, by_hand);
    assert_eq!(busy, [9, 8, 9]);
}

/// `TaskEnd` before `Timer`, the only neighbouring pair: set before or after, the timer finds the server free.
#[test]
fn a_task_that_ends_at_the_instant_of_a_timer_has_left_its_server() {
    for timer_first in [true, false] {
        let mut engine = Engine::new();
        engine.add_resource("r", 1);
        let mut log = Vec::new();
        if timer_first {
            engine.set_timer(ps(10), 7);
        }
        engine.submit(plan(&[toy(0, 10, &[])]));
        if !timer_first {
            engine.set_timer(ps(10), 7);
        }
        assert!(matches!(engine.run(&mut |ended| log.push(line(ended))), Occurrence::PlanDone(_)));
        assert_eq!(log.len(), 1, "the end is heard of before the timer");
        assert!(matches!(engine.run(&mut |_| {}), Occurrence::Timer(7)));
        engine.submit(plan(&[toy(0, 0, &[])]));
        // The end at this very instant also comes before the second timer of the instant.
        engine.set_timer(ps(10), 8);
        assert!(matches!(engine.run(&mut |ended| log.push(line(ended))), Occurrence::PlanDone(_)));
        assert_eq!((log[1].ready, log[1].start, log[1].end), (10, 10, 10), "it did not wait");
        assert!(matches!(engine.run(&mut |_| {}), Occurrence::Timer(8)));
        assert!(matches!(engine.run(&mut |_| {}), Occurrence::Idle));
    }
}

#[test]
fn timers_of_one_instant_fire_in_the_order_in_which_they_were_set() {
    let mut engine = Engine::new();
    for number in [3, 1, 2] {
        engine.set_timer(ps(5), number);
    }
    let fired = |engine: &mut Engine| match engine.run(&mut |_| {}) {
        Occurrence::Timer(number) => number,
        other => panic!("{other:?}"),
    };
    assert_eq!([fired(&mut engine), fired(&mut engine), fired(&mut engine)], [3, 1, 2]);
}

/// Waiting tasks: the earlier plan first, then the earlier index, whoever became ready first.
#[test]
fn a_server_takes_who_was_submitted_first() {
    let first = vec![toy(0, 4, &[]), toy(1, 3, &[]), toy(0, 1, &[1]), toy(0, 1, &[])];
    let second = vec![toy(0, 1, &[])];
    let plans = [Submission { at: 0, tasks: first }, Submission { at: 1, tasks: second }];
    let (log, _) = run(&[1, 1], &plans);
    // 0.2 is ready at 3, after 0.3 (at 0) and 1.0 (at 1), and runs before both.
    let order: Vec<_> = log.iter().map(|line| (line.index, line.ready, line.start)).collect();
    assert_eq!(order, [(1, 0, 0), (0, 0, 0), (2, 3, 4), (3, 0, 5), (0, 1, 6)]);
}

/// A server more can make a graph of dependent tasks later: Graham, "Bounds on multiprocessing timing anomalies",
/// SIAM J. Appl. Math. 17 (1969), figures 2 and 4. This is why no test claims the opposite for graphs.
#[test]
fn a_server_more_may_hurt_dependent_tasks() {
    let after: [&[u32]; 9] = [&[], &[], &[], &[], &[3], &[3], &[3], &[3], &[0]];
    let tasks: Vec<Toy> =
        std::iter::zip([3, 2, 2, 2, 4, 4, 4, 4, 9], after).map(|(time, after)| toy(0, time, after)).collect();
    let makespan = |servers| {
        let (log, _) = run(&[servers], &[Submission { at: 0, tasks: tasks.clone() }]);
        log.last().map(|line| line.end)
    };
    assert_eq!((makespan(3), makespan(4)), (Some(12), Some(15)));
}

/// Graphs of up to 12 tasks on up to 3 resources, submitted at up to 5 times. Short durations, so that ends, timers
/// and submissions often meet at one instant.
fn plans() -> impl Strategy<Value = (Vec<u32>, Vec<Submission>)> {
    let tasks = |resources: usize, longest: u64| {
        let edges = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
        prop::collection::vec((0..resources, 0..=longest, edges), 0..12).prop_map(|drawn| {
            let tasks = drawn.into_iter().enumerate().map(|(index, (resource, duration, edges))| {
                let after = edges.iter().filter(|_| index > 0).map(|edge| edge.index(index) as u32);
                Toy { resource, duration, after: after.collect() }
            });
            tasks.collect()
        })
    };
    let servers = prop::collection::vec(1..=3_u32, 1..=3);
    (servers, prop::sample::select(vec![2_u64, 9, 1000])).prop_flat_map(move |(servers, longest)| {
        let submission =
            (0..=2 * longest, tasks(servers.len(), longest)).prop_map(|(at, tasks)| Submission { at, tasks });
        (Just(servers), prop::collection::vec(submission, 1..5))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Same tasks, same times, same order of ends as the naive scheduler, and the same again.
    #[test]
    fn the_engine_equals_the_naive_scheduler((servers, plans) in plans()) {
        let (log, busy) = run(&servers, &plans);
        prop_assert_eq!(&log, &schedule(&servers, &plans));
        prop_assert_eq!((log, busy), run(&servers, &plans));
    }

    /// What holds for every schedule, whoever made it.
    #[test]
    fn schedules_keep_the_laws((servers, plans) in plans()) {
        let (log, busy) = run(&servers, &plans);
        prop_assert!(log.is_sorted_by_key(|line| line.end), "events in order of time");
        prop_assert_eq!(log.len(), plans.iter().map(|submission| submission.tasks.len()).sum::<usize>());
        let end = log.last().map_or(0, |line| line.end);
        for submission in plans.iter().filter(|submission| !submission.tasks.is_empty()) {
            prop_assert!(end >= submission.at + critical_path(&submission.tasks), "critical path");
        }
        for (resource, &servers) in servers.iter().enumerate() {
            let here: Vec<_> = log.iter().filter(|line| line.resource == resource).collect();
            let work: u64 = here.iter().map(|line| line.end - line.start).sum();
            let given = plans.iter().flat_map(|submission| &submission.tasks);
            prop_assert_eq!(work, given.filter(|task| task.resource == resource).map(|task| task.duration).sum::<u64>());
            prop_assert_eq!(work, busy[resource]);
            let first = here.iter().map(|line| line.ready).min().unwrap_or(0);
            prop_assert!((end - first) * u64::from(servers) >= work, "busy work over servers");

            // Between two neighbouring moments nothing changes, so each stretch is looked at once.
            let mut moments: Vec<_> = here.iter().flat_map(|line| [line.ready, line.start, line.end]).collect();
            moments.sort_unstable();
            for &moment in &moments {
                let running = here.iter().filter(|line| line.start <= moment && moment < line.end).count();
                let waiting = here.iter().filter(|line| line.ready <= moment && moment < line.start).count();
                prop_assert!(running <= servers as usize, "no more tasks than servers");
                prop_assert!(waiting == 0 || running == servers as usize, "a free server while a task waits");
            }
        }
    }

    /// Independent tasks, served in order of arrival: with a server more, none starts later (the ordered workloads of
    /// the servers fall one by one: Kiefer and Wolfowitz 1955). Dependent ones: see Graham's graph above.
    #[test]
    fn a_server_more_never_delays_independent_tasks(
        durations in prop::collection::vec((0..30_u64, 0..20_u64), 1..20), servers in 1..4_u32,
    ) {
        let mut at = 0;
        let plans: Vec<_> = durations.iter().map(|&(gap, duration)| {
            at += gap;
            Submission { at, tasks: vec![toy(0, duration, &[])] }
        }).collect();
        let starts = |servers| {
            let mut starts: Vec<_> = run(&[servers], &plans).0.iter().map(|line| line.start).collect();
            // First come, first served: the n-th start is the n-th arrival's.
            starts.sort_unstable();
            starts
        };
        for (more, fewer) in std::iter::zip(starts(servers + 1), starts(servers)) {
            prop_assert!(more <= fewer);
        }
    }

    /// A chain takes the sum of its durations, whatever the resources and however many servers they have.
    #[test]
    fn a_chain_alone_takes_its_sum(
        chain in prop::collection::vec((0..3_usize, 0..50_u64), 1..20), servers in 1..4_u32,
    ) {
        let link = |(index, &(resource, duration)): (usize, &(usize, u64))| {
            toy(resource, duration, &(index as u32).checked_sub(1).into_iter().collect::<Vec<_>>())
        };
        let tasks: Vec<_> = chain.iter().enumerate().map(link).collect();
        let sum: u64 = chain.iter().map(|(_, duration)| duration).sum();
        let (log, _) = run(&[servers; 3], &[Submission { at: 3, tasks }]);
        prop_assert_eq!(log.last().map(|line| line.end), Some(3 + sum));
    }

    /// A pool against a plain list of what is held.
    #[test]
    fn a_pool_equals_a_list_of_holdings(
        capacity in 0..100_u64, wishes in prop::collection::vec((any::<bool>(), 0..60_u64, any::<prop::sample::Index>()), 0..60),
    ) {
        let (mut pool, mut held, mut peak) = (Pool::new(capacity), Vec::new(), 0);
        for (take, bytes, which) in wishes {
            let sum: u64 = held.iter().sum();
            if take {
                let fits = sum + bytes <= capacity;
                prop_assert_eq!(pool.take(bytes), if fits { Ok(()) } else { Err(sum + bytes - capacity) });
                if fits {
                    held.push(bytes);
                }
            } else if !held.is_empty() {
                pool.give_back(held.swap_remove(which.index(held.len())));
            }
            let sum = held.iter().sum();
            peak = peak.max(sum);
            prop_assert_eq!((pool.held(), pool.free(), pool.peak()), (sum, capacity - sum, peak));
            prop_assert!(pool.held() <= pool.capacity());
        }
    }
}

#[test]
#[should_panic(expected = "5 bytes given back, 4 held")]
fn a_pool_takes_back_no_more_than_it_gave() {
    let mut pool = Pool::new(10);
    pool.take(4).expect("it fits");
    pool.give_back(5);
}
