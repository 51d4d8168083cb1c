//! Laws of what collectives cost.

use proptest::prelude::*;
use radialsim::cost::{ExchangeCall, Exchanges, Group};
use radialsim::hw::{CallMode, ExchangeMode, ExchangePart, Fabric, Level, Library, Operation};
use radialsim::units::{SimTime, SourceKind};
use std::sync::LazyLock;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// All shipped fabrics, and some of several levels.
static FABRICS: LazyLock<Vec<Fabric>> = LazyLock::new(|| {
    let joined =
        ["nvidia-hgx-h100+infiniband-ndr", "pcie4-l40s+roce-400", "amd-xgmi-mi300x+roce-400+infiniband-hdr"];
    let names = Fabric::shipped_names().into_iter().chain(joined);
    names.map(|name| Fabric::resolve(name).expect("shipped")).collect()
});

fn fabric(name: &str) -> &'static Fabric {
    FABRICS.iter().find(|fabric| fabric.name == name).expect("one of them")
}

fn group(fabric: &Fabric, devices: u32, library: Library, mode: CallMode) -> Group {
    Group::packed(fabric, devices, library, mode).expect("a group")
}

fn us(group: &Group, operation: Operation, bytes: u64) -> f64 {
    group.price(operation, bytes).time.us()
}

/// A call of any library on any fabric, with devices that it can have.
fn calls() -> impl Strategy<Value = (usize, u32, Library, CallMode, Operation)> {
    let place = 0..FABRICS.len();
    (place, 1u32..=8, 1u32..=4, 0usize..4, 0usize..2, 0usize..5).prop_map(
        |(place, inner, outer, library, mode, operation)| {
            let several = FABRICS[place].levels.len() > 1 && outer > 1;
            let devices = if several { 8 * outer } else { inner };
            (place, devices, Library::ALL[library].0, CallMode::ALL[mode].0, Operation::ALL[operation].0)
        },
    )
}

fn faster(level: &Level, factor: f64) -> Level {
    let mut level = level.clone();
    level.gb_per_s.value *= factor;
    if let Some(pair) = &mut level.pair_gb_per_s {
        pair.value *= factor;
    }
    level
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn larger_messages_are_never_faster(call in calls(), a in 0u32..36, b in 0u32..36, more in 0u64..999) {
        let (place, devices, library, mode, operation) = call;
        let group = group(&FABRICS[place], devices, library, mode);
        let (a, b) = ((1u64 << a) + more, (1u64 << b) + more);
        let (less, more) = (group.price(operation, a.min(b)), group.price(operation, a.max(b)));
        prop_assert!(less.time <= more.time, "{:?} {} {devices} {less:?} {more:?}", call, FABRICS[place].name);
        prop_assert!(devices == 1 || less.time > SimTime::ZERO);
    }

    #[test]
    fn more_bandwidth_is_never_slower(call in calls(), size in 0u32..34, factor in 1.0f64..16.0, which in 0usize..3) {
        let (place, devices, library, mode, operation) = call;
        let mut better = FABRICS[place].clone();
        let which = which % better.levels.len();
        better.levels[which] = faster(&better.levels[which], factor);
        let bytes = 3u64 << size;
        let before = group(&FABRICS[place], devices, library, mode).price(operation, bytes);
        let after = group(&better, devices, library, mode).price(operation, bytes);
        // A picosecond may be lost where nothing changes.
        prop_assert!(after.time.ps() <= before.time.ps() + 1, "{} {before:?} {after:?}", FABRICS[place].name);
    }

    #[test]
    fn one_device_and_no_bytes_cost_nothing(call in calls(), bytes in 0u64..1 << 30) {
        let (place, devices, library, mode, operation) = call;
        let alone = group(&FABRICS[place], 1, library, mode);
        prop_assert_eq!(alone.price(operation, bytes).time, SimTime::ZERO);
        prop_assert_eq!(alone.devices(), 1);
        prop_assert_eq!(group(&FABRICS[place], devices, library, mode).price(operation, 0).time, SimTime::ZERO);
    }

    /// However a group lies, its devices together send what the operation needs: 2 (n - 1) messages of an all-reduce, n - 1 of halves of it.
    #[test]
    fn bytes_on_the_wire_are_those_of_one_level(inner in 1u32..=8, outer in 1u32..=32, kib in 1u64..1000) {
        let devices = inner * outer;
        let (both, flat) = (fabric("nvidia-hgx-h100+infiniband-ndr"), 720_720 * kib);
        let group = Group::new(both, &[inner, outer], Library::Nccl, CallMode::Graph).expect("a group");
        prop_assert_eq!(group.devices(), devices);
        for (operation, messages) in [
            (Operation::AllReduce, 2 * (devices - 1)),
            (Operation::AllGather, devices - 1),
            (Operation::ReduceScatter, devices - 1),
        ] {
            let sent: u64 = group.sent(operation, flat).iter().map(|(_, bytes)| bytes * u64::from(devices)).sum();
            let needed = u64::from(messages) * flat;
            // Rounded up, a byte a level and device.
            prop_assert!(sent.abs_diff(needed) <= 2 * u64::from(devices), "{:?} {} {}", operation, sent, needed);
        }
        let pair = group.sent(Operation::SendReceive, flat);
        prop_assert_eq!(pair.iter().map(|(_, bytes)| bytes).sum::<u64>(), if devices > 1 { flat } else { 0 });
    }
}

/// At each measured size the price is what the curve says, to the picosecond, and in between it lies in between.
#[test]
fn curves_are_reproduced_at_their_knots() {
    let mut checked = 0;
    for fabric in FABRICS.iter().filter(|fabric| fabric.levels.len() == 1) {
        let Some(all) = &fabric.levels[0].collectives else { continue };
        for curve in &all.curves {
            let group = group(fabric, curve.devices, curve.library, curve.mode);
            for pair in curve.knots.windows(2) {
                let [(bytes, us), (next, later)] = *pair else { unreachable!("windows of two") };
                let price = group.price(curve.operation, bytes);
                assert_eq!(price.time, SimTime::from_us(us), "{} {bytes}", curve.words());
                assert_eq!(price.source, SourceKind::Fitted);
                assert_eq!(
                    price.error.expect("evidence").mean,
                    (curve.sizes.expect("evidence").mean * 100.0).round() as u32
                );
                let between = group.price(curve.operation, bytes.midpoint(next)).time;
                assert!(
                    (SimTime::from_us(us)..=SimTime::from_us(later)).contains(&between),
                    "{}",
                    curve.words()
                );
                checked += 1;
            }
            let (last, _) = curve.knots[curve.knots.len() - 1];
            let beyond = group.price(curve.operation, 4 * last);
            assert_eq!(beyond.source, SourceKind::Extrapolated, "{}", curve.words());
            assert!(
                beyond.error.expect("evidence").mean
                    > group.price(curve.operation, last).error.expect("evidence").mean
            );
            let grown = beyond.time.us() / group.price(curve.operation, last).time.us();
            assert!((1.0..=4.0 + 1e-6).contains(&grown), "{} grows {grown} times", curve.words());
        }
    }
    assert!(checked > 1000, "{checked}");
}

/// On each side of the size at which vLLM changes its way, its times go on as they did.
#[test]
fn a_way_ends_where_the_engine_leaves_it() {
    let group = group(fabric("nvidia-hgx-h100"), 2, Library::Vllm, CallMode::Graph);
    let at = |bytes| us(&group, Operation::AllReduce, bytes);
    let slope = (at(4 * MIB) - at(2 * MIB)) / 2.0;
    let expected = at(4 * MIB) + 3.9 * slope;
    let before = at(8 * MIB - MIB / 10);
    assert!((before / expected - 1.0).abs() < 0.01, "{before} {expected}");
    // Symmetric memory copies in and out: a jump within a hundredth of the size.
    assert!(at(8 * MIB) > 1.2 * at(8 * MIB - MIB / 10), "{before} {}", at(8 * MIB));
}

/// Prices of numbers of devices that nobody measured lie between those of their neighbours: NCCL's for the same message, engines' for
/// as many bytes on the wire. Five is no number of vLLM's kernel, so NCCL does it.
#[test]
fn other_numbers_of_devices_lie_between_their_neighbours() {
    let h100 = fabric("nvidia-hgx-h100");
    let graph = |devices, library| group(h100, devices, library, CallMode::Graph);
    for operation in
        [Operation::AllReduce, Operation::AllGather, Operation::ReduceScatter, Operation::AllToAll]
    {
        for size in 10..29 {
            let at = |devices| us(&graph(devices, Library::Nccl), operation, 1 << size);
            let (low, high) = (at(4).min(at(8)), at(4).max(at(8)));
            let five = graph(5, Library::Nccl).price(operation, 1 << size);
            assert!((low - 1e-6..=high + 1e-6).contains(&five.time.us()), "{operation:?} {size}");
            assert_eq!(five.source, SourceKind::Extrapolated);
            let stated = h100.levels[0].collectives.as_ref().expect("measured").curves.iter();
            let four = stated
                .clone()
                .find(|c| c.devices == 4 && c.operation == operation && c.library == Library::Nccl);
            let four = four.and_then(|curve| curve.others).expect("evidence");
            assert_eq!(five.error.expect("evidence").mean, (four.mean * 100.0).round() as u32);
            assert_eq!(five, graph(5, Library::Vllm).price(operation, 1 << size));
        }
    }
    for size in 10..29 {
        let bytes = 1u64 << size;
        let scaled = |devices: u32| {
            let share = Operation::AllReduce.sent_share(6) / Operation::AllReduce.sent_share(devices);
            us(&graph(devices, Library::Vllm), Operation::AllReduce, (bytes as f64 * share) as u64)
        };
        let six = us(&graph(6, Library::Vllm), Operation::AllReduce, bytes);
        let (low, high) = (scaled(4).min(scaled(8)), scaled(4).max(scaled(8)));
        assert!((0.999 * low..=1.001 * high).contains(&six), "{size}: {low} {six} {high}");
    }
}

/// Engines go to NCCL for all but all-reduces; called one by one, no call takes less than the host.
#[test]
fn what_an_engine_has_no_kernel_for_goes_to_nccl() {
    let h100 = fabric("nvidia-hgx-h100");
    for operation in
        [Operation::AllGather, Operation::ReduceScatter, Operation::AllToAll, Operation::SendReceive]
    {
        for bytes in [KIB, MIB, 64 * MIB] {
            let by = |library, mode| group(h100, 4, library, mode).price(operation, bytes);
            assert_eq!(by(Library::Vllm, CallMode::Graph), by(Library::Nccl, CallMode::Graph));
            let eager = by(Library::Vllm, CallMode::Eager);
            assert!(eager.time >= by(Library::Vllm, CallMode::Graph).time);
            assert!(eager.time.us() > 15.0, "{eager:?}");
            // Nobody called it one by one.
            assert_eq!((eager.source, eager.error), (SourceKind::Assumed, None));
        }
    }
}

/// What is lent: scaled by the bandwidths, marked, and as wrong as the loan says at least.
#[test]
fn loans_are_marked_and_scaled() {
    let (b200, h100) = (fabric("nvidia-hgx-b200"), fabric("nvidia-hgx-h100"));
    let loan = b200.levels[0].lent.as_ref().expect("a loan");
    for library in [Library::Vllm, Library::Trtllm, Library::Nccl] {
        for bytes in [4 * KIB, MIB, 64 * MIB] {
            let lent = group(b200, 8, library, CallMode::Graph).price(Operation::AllReduce, bytes);
            let own = group(h100, 8, library, CallMode::Graph).price(Operation::AllReduce, bytes);
            assert!(lent.time < own.time, "{library:?} {bytes}: {lent:?} {own:?}");
            assert!(lent.time.us() > 0.4 * own.time.us(), "{library:?} {bytes}: {lent:?} {own:?}");
            assert_eq!(lent.source, SourceKind::Transferred);
            assert!(f64::from(lent.error.expect("a loan").mean) >= 100.0 * loan.error.mean);
        }
    }
    // Faster links make no host faster.
    let eager = |fabric| us(&group(fabric, 8, Library::Vllm, CallMode::Eager), Operation::AllReduce, KIB);
    assert!(eager(b200) > 0.8 * eager(h100) && eager(b200) <= eager(h100), "{} {}", eager(b200), eager(h100));
    // What does not reach another's memory has no kernel of an engine, lent or not.
    let by = |library| {
        group(fabric("pcie4-rtx-4090"), 2, library, CallMode::Graph).price(Operation::AllReduce, MIB)
    };
    assert_eq!(by(Library::Vllm), by(Library::Nccl));
    let bus = group(fabric("pcie5-rtx-pro-6000"), 2, Library::Vllm, CallMode::Graph)
        .price(Operation::AllReduce, MIB);
    assert!(bus.time < by(Library::Vllm).time && bus.source == SourceKind::Transferred);
}

/// Several machines: the parts of the formula one after the other, each the price of a group of its own.
#[test]
fn several_machines_take_the_sum_of_their_steps() {
    let both = fabric("nvidia-hgx-h100+infiniband-ndr");
    let whole = group(both, 32, Library::Vllm, CallMode::Graph);
    let inner = group(both, 8, Library::Nccl, CallMode::Graph);
    let outer = Group::new(both, &[1, 4], Library::Nccl, CallMode::Graph).expect("one a machine");
    for bytes in [64 * KIB, 8 * MIB] {
        let inside = |operation| us(&inner, operation, bytes);
        let across = |operation, bytes| us(&outer, operation, bytes);
        let reduce = inside(Operation::ReduceScatter)
            + across(Operation::AllReduce, bytes / 8)
            + inside(Operation::AllGather);
        let expected = [
            (Operation::AllReduce, reduce),
            (Operation::AllGather, inside(Operation::AllGather) + across(Operation::AllGather, bytes / 8)),
            (
                Operation::ReduceScatter,
                inside(Operation::ReduceScatter) + across(Operation::ReduceScatter, bytes / 8),
            ),
            (Operation::AllToAll, inside(Operation::AllToAll) + across(Operation::AllToAll, bytes)),
            (Operation::SendReceive, across(Operation::SendReceive, bytes)),
        ];
        for (operation, expected) in expected {
            let price = whole.price(operation, bytes);
            assert!((price.time.us() - expected).abs() < 1e-5, "{operation:?} {price:?} {expected}");
            let alone = operation == Operation::SendReceive;
            assert_eq!(price.source == SourceKind::Assumed, !alone, "{operation:?}");
            assert_eq!(price.error.is_some(), alone, "{operation:?}");
        }
    }
}

/// Where nobody measured, bytes on the wire at seven tenths of the bandwidth, and a pair of devices has one of seven links.
#[test]
fn formulas_have_their_slopes() {
    let mi300x = fabric("amd-xgmi-mi300x");
    let slope = |operation, devices| {
        let group = group(mi300x, devices, Library::Nccl, CallMode::Graph);
        let (low, high) = (1u64 << 30, 1u64 << 31);
        assert_eq!(group.price(operation, low).source, SourceKind::Assumed);
        assert_eq!(group.price(operation, low).error, None);
        (us(&group, operation, high) - us(&group, operation, low)) * 1e3 / (high - low) as f64
    };
    let close = |found: f64, gb_per_s: f64, share: f64| {
        let expected = share / (0.7 * gb_per_s);
        assert!((found / expected - 1.0).abs() < 1e-6, "{found} {expected}");
    };
    close(slope(Operation::AllReduce, 8), 448.0, 2.0 * 7.0 / 8.0);
    close(slope(Operation::AllReduce, 2), 64.0, 1.0);
    close(slope(Operation::AllGather, 4), 192.0, 3.0 / 4.0);
    close(slope(Operation::AllToAll, 8), 448.0, 7.0 / 8.0);
    close(slope(Operation::SendReceive, 8), 64.0, 1.0);
    // Called one by one, no call is shorter than the host's part of it.
    let eager = group(mi300x, 8, Library::Vllm, CallMode::Eager);
    assert_eq!(us(&eager, Operation::AllReduce, KIB), 20.0);
    // An engine's kernel: everything from everybody at once where that is sooner, else a part each and twice.
    let own = group(mi300x, 8, Library::Vllm, CallMode::Graph);
    let nccl = group(mi300x, 8, Library::Nccl, CallMode::Graph);
    assert!(us(&own, Operation::AllReduce, KIB) < us(&nccl, Operation::AllReduce, KIB));
}

#[test]
fn groups_that_no_fabric_has_are_refused() {
    let graph = |name: &str, devices| {
        Group::packed(fabric(name), devices, Library::Nccl, CallMode::Graph)
            .map(|group| group.devices())
            .map_err(|e| e.to_string())
    };
    assert_eq!(graph("nvidia-hgx-h100", 8), Ok(8));
    assert_eq!(graph("nvidia-hgx-h100+infiniband-ndr", 1024), Ok(1024));
    for (name, devices, said) in [
        (
            "nvidia-hgx-h100",
            16,
            "devices: found 16, expected at most 8 devices, which nvidia-hgx-h100 joins; join a network with `+`",
        ),
        ("nvidia-hgx-h100+infiniband-ndr", 12, "devices: found 12, expected up to 8, or a multiple of 8"),
        ("nvidia-hgx-h100+infiniband-ndr", 2048, "at most 1024 devices"),
    ] {
        let error = graph(name, devices).expect_err(said);
        assert!(error.contains(said), "{error}");
    }
    let spread =
        |spread: &[u32]| Group::new(fabric("nvidia-hgx-h100"), spread, Library::Nccl, CallMode::Graph);
    for bad in [&[9][..], &[0], &[8, 2]] {
        assert!(spread(bad).is_err(), "{bad:?}");
    }
}

fn exchanges(name: &str) -> Exchanges {
    Exchanges::new(&fabric(name).levels[0])
}

const CALL: ExchangeCall =
    ExchangeCall { devices: 8, tokens: 128, hidden: 7168, experts: 256, chosen: 8, units: 20 };

/// Receivers by counting: of all choices of experts, how many devices have one.
#[test]
fn receivers_are_the_mean_over_all_choices() {
    for (devices, experts, chosen) in [(2u32, 4u32, 2u32), (4, 8, 3), (3, 6, 1), (4, 8, 8)] {
        let each = experts / devices;
        let (mut sum, mut count) = (0, 0);
        for set in (0u32..1 << experts).filter(|set| set.count_ones() == chosen) {
            sum += (0..devices).filter(|device| set >> (device * each) & ((1 << each) - 1) != 0).count();
            count += 1;
        }
        let call = ExchangeCall { devices, experts, chosen, ..CALL };
        let expected = sum as f64 / f64::from(count);
        assert!(
            (call.receivers() - expected).abs() < 1e-12,
            "{devices} {experts} {chosen}: {} {expected}",
            call.receivers()
        );
    }
}

/// DeepEP's own count for 128 tokens of 7,168 values to 8 of 256 experts: 7,408 bytes a copy there, 14,336 back.
#[test]
fn exchanges_carry_the_bytes_that_deepep_counts() {
    assert_eq!(CALL.bytes(ExchangeMode::LowLatency, ExchangePart::Dispatch), 128.0 * 8.0 * 7408.0);
    assert_eq!(CALL.bytes(ExchangeMode::LowLatency, ExchangePart::Combine), 128.0 * 8.0 * 14336.0);
}

proptest! {
    #[test]
    fn exchanges_grow_with_what_they_carry(tokens in 1u32..4096, more in 1u32..4096, units in 1u32..24) {
        let all = exchanges("nvidia-hgx-h100");
        for mode in [ExchangeMode::LowLatency, ExchangeMode::Normal] {
            for part in [ExchangePart::Dispatch, ExchangePart::Combine] {
                let at = |call: ExchangeCall| all.price(mode, part, &call).expect("measured").time;
                let call = ExchangeCall { tokens, units, ..CALL };
                let more_tokens = ExchangeCall { tokens: tokens + more, ..call };
                let wider = ExchangeCall { hidden: call.hidden + 128, ..call };
                let more_units = ExchangeCall { units: units + 1, ..call };
                prop_assert!(at(call) < at(more_tokens) && at(call) <= at(wider) && at(call) >= at(more_units));
                prop_assert_eq!(at(ExchangeCall { devices: 1, ..call }), SimTime::ZERO);
                prop_assert_eq!(at(ExchangeCall { tokens: 0, ..call }), SimTime::ZERO);
            }
        }
    }
}

#[test]
fn exchanges_say_where_they_come_from() {
    let price = |name, call: ExchangeCall| {
        exchanges(name).price(ExchangeMode::LowLatency, ExchangePart::Dispatch, &call)
    };
    assert_eq!(price("pcie4-l40s", CALL), None, "nobody measured one there");
    assert_eq!(price("nvidia-hgx-h100", CALL).expect("measured").source, SourceKind::Fitted);
    assert_eq!(price("nvidia-hgx-b200", CALL).expect("lent").source, SourceKind::Transferred);
    for other in [ExchangeCall { devices: 4, ..CALL }, ExchangeCall { tokens: 100_000, ..CALL }] {
        let price = price("nvidia-hgx-h100", other).expect("measured");
        assert_eq!(price.source, SourceKind::Extrapolated, "{other:?}");
    }
}

/// Where NCCL between two devices is measured and a lender has the rest: two devices by NCCL are fitted, the engine's own kernel and more devices are lent as if nothing
/// were measured.
#[test]
fn what_nobody_measured_beside_it_is_lent() {
    let both = Fabric::shipped("pcie5-rtx-pro-6000").expect("shipped");
    let mut lent = both.clone();
    lent.levels[0].collectives = None;
    assert!(both.levels[0].collectives.is_some() && both.levels[0].lent.is_some());
    let price = |fabric: &Fabric, library, devices| {
        group(fabric, devices, library, CallMode::Graph).price(Operation::AllReduce, 1 << 20)
    };
    let own = price(&both, Library::Nccl, 2);
    assert_eq!(own.source, SourceKind::Fitted);
    assert!((own.time.us() / 41.04 - 1.0).abs() < 0.05, "as published: {own:?}");
    assert_ne!(price(&lent, Library::Nccl, 2), own, "the control");
    for (library, devices) in [(Library::Vllm, 2), (Library::Vllm, 4), (Library::Nccl, 4), (Library::Nccl, 8)]
    {
        assert_eq!(price(&both, library, devices), price(&lent, library, devices), "{library:?} {devices}");
    }
}
