//! Prices that break a law: faster with more work, slower with a better device, below the roofline, or not the stated
//! constants at all.

pub mod collectives;
pub mod error_bar;
pub mod fabrics;
pub mod formats;
pub mod instructions;
pub mod measured;
pub mod oracles;
pub mod profiles;
pub mod uncertainty;
pub mod work;

use crate::cost_support::*;
use proptest::prelude::*;
use radialsim::cost::{Bound, Device, Limits, Price, PriceCache};
use radialsim::hw::{Hardware, Source};
use radialsim::kernel::{Attention, Class, Density, Kernel};
use radialsim::rng::Stream;
use radialsim::units::{Dtype, SimTime, SourceKind};

fn device(hardware: &Hardware) -> Device {
    Device::new(hardware, Limits::default()).expect("shipped profiles are sound")
}

fn all() -> Vec<Hardware> {
    Hardware::shipped_names().into_iter().map(|name| Hardware::datasheet(name).expect(name)).collect()
}

fn shipped(name: &str) -> Hardware {
    Hardware::datasheet(name).expect(name)
}

fn product(rows: u32, inner: u32, columns: u32, dtype: Dtype) -> Kernel {
    Kernel::MatMul {
        rows,
        inner,
        columns,
        weights: dtype,
        inputs: dtype,
        activations: dtype,
        density: Density::Dense,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// More rows, wider, more pairs, entries, groups or slices: never faster, on any device.
    #[test]
    fn more_is_never_faster(seed in any::<u64>()) {
        let random = &mut Stream::new(seed, "kernels");
        for hardware in all() {
            let device = device(&hardware);
            for kind in 0..KINDS {
                let kernel = draw(kind, random);
                let price = device.price(&kernel);
                if hardware.measured.is_some() && kernel.class() == Class::PrefillAttention {
                    // Priced by the tiles of chunks: one more pair in as many rows is another number of chunks, and may be
                    // fewer tiles. `longer_prompts_are_never_faster` grows the chunks.
                    continue;
                }
                for larger in larger(&kernel, random) {
                    let more = device.price(&larger);
                    let said = format!("{}: {kernel:?} {} but {larger:?} {}", hardware.name, price.time, more.time);
                    prop_assert!(price.time <= more.time, "{}", said);
                    prop_assert!(price.dynamic_pj <= more.dynamic_pj, "{}", said);
                }
            }
        }
    }

    /// More chunks of prompts, more rows in each, more entries before them: never faster, on any device.
    #[test]
    fn longer_prompts_are_never_faster(
        (chunks, rows, before) in (1..40u32, 1..300u32, prop_oneof![Just(0u32), 0..5000u32]),
        (heads, kv_heads) in (1..8u16, 1..8u16),
        head_dim in 1..40u16,
    ) {
        let call = |chunks: u32, rows: u32, before: u32| {
            let shape = chunk(chunks, rows, before);
            Kernel::Attention(Attention { heads: heads * kv_heads, kv_heads, head_dim: 8 * head_dim, ..shape })
        };
        let kernel = call(chunks, rows, before);
        for hardware in all() {
            let device = device(&hardware);
            let price = device.price(&kernel);
            for larger in [call(chunks + 1, rows, before), call(chunks, rows + 1, before), call(chunks, rows, before + 1)] {
                let more = device.price(&larger);
                let said = format!("{}: {kernel:?} {} but {larger:?} {}", hardware.name, price.time, more.time);
                prop_assert!(price.time <= more.time, "{}", said);
                prop_assert!(price.dynamic_pj <= more.dynamic_pj, "{}", said);
            }
        }
    }

    /// More bandwidth, flops, cache or overlap, less fixed time: never slower.
    #[test]
    fn a_better_device_is_never_slower(seed in any::<u64>(), factor in 1.0..4.0_f64) {
        let random = &mut Stream::new(seed, "kernels");
        for hardware in all() {
            let before = device(&hardware);
            for (name, better) in better(&hardware, factor) {
                let after = device(&better);
                for kind in 0..KINDS {
                    let kernel = draw(kind, random);
                    let (old, new) = (before.price(&kernel).time, after.price(&kernel).time);
                    prop_assert!(new <= old, "{} with {name} x {factor}: {kernel:?} {old} -> {new}", hardware.name);
                }
            }
        }
    }

    /// No time beats the peaks, except by as much as a fitted efficiency above 1 says. A device that computes in more
    /// bits than the format has takes the peak it has.
    #[test]
    fn no_kernel_beats_the_roofline(seed in any::<u64>()) {
        let random = &mut Stream::new(seed, "kernels");
        for hardware in all() {
            let device = device(&hardware);
            for kind in 0..KINDS {
                let kernel = draw(kind, random);
                let price = device.price(&kernel);
                let (flops, bytes) = peaks(&hardware, &kernel);
                // A picosecond for rounding down the exposed part.
                let least = (price.flops as f64 / flops).max(price.dram_bytes as f64 / bytes) * (1.0 - 1e-12);
                let s = (price.time + SimTime::from_ps(1)).s();
                prop_assert!(s >= least, "{}: {kernel:?} {s} s < {least} s", hardware.name);
            }
        }
    }

    /// A cache that forgets or confuses shapes would show here: few shapes, many repeats, in any order.
    #[test]
    fn the_cache_changes_no_price(seed in any::<u64>(), order in prop::collection::vec(0..60_usize, 1..300)) {
        let random = &mut Stream::new(seed, "kernels");
        let kernels: Vec<_> = (0..60).map(|index| draw(index % KINDS, random)).collect();
        let (device, mut cache) = (device(&shipped("nvidia-h100-sxm")), PriceCache::default());
        for index in order {
            prop_assert_eq!(cache.price(&device, &kernels[index]), device.price(&kernels[index]));
        }
    }

    /// A cap below what a kernel draws stretches it to the time in which its dynamic energy fits; one above does nothing.
    #[test]
    fn no_kernel_draws_more_than_the_board(seed in any::<u64>()) {
        let random = &mut Stream::new(seed, "kernels");
        for mut hardware in all() {
            // Where constants ask for more than there is, too.
            hardware.power.pj_per_flop.value *= 20.0;
            let (device, power) = (device(&hardware), &hardware.power);
            for kind in 0..KINDS {
                let price = device.price(&draw(kind, random));
                let watts = power.static_w.value + price.dynamic_pj as f64 / price.time.ps().max(1) as f64;
                prop_assert!(watts <= power.limit_w.value * (1.0 + 1e-9), "{} W on {}", watts, hardware.name);
            }
        }
    }

    /// Under a cap a call is never faster, draws no more than the cap unless it runs at the lowest clock, and is what it was where it drew
    /// less.
    #[test]
    fn a_power_cap_is_held_by_lower_clocks(seed in any::<u64>(), share in 0.1..1.5_f64, less in 0.3..1.0_f64) {
        let random = &mut Stream::new(seed, "kernels");
        for hardware in all() {
            let (static_w, free) = (hardware.power.static_w.value, device(&hardware));
            let watts = |price: &Price| static_w + price.dynamic_pj as f64 / price.time.ps().max(1) as f64;
            let capped = |cap: f64| Device::new(&hardware, Limits { power_w: Some(cap), ..Limits::default() }).ok();
            let boost = hardware.compute.boost_clock_mhz.value;
            // A tenth of the boost clock, rounded up a little, where the profile says nothing else.
            let clocks = hardware.power.clocks.as_ref();
            let lowest = clocks.map_or(boost * 0.1000001, |clocks| clocks.lowest_mhz.value);
            let slow = Limits { clock_mhz: Some(lowest), ..Limits::default() };
            let slowest = Device::new(&hardware, slow).expect("the lowest clock");
            for kind in 0..KINDS {
                let kernel = draw(kind, random);
                let price = free.price(&kernel);
                let cap = watts(&price) * share;
                let (Some(loose), Some(tight)) = (capped(cap), capped(cap * less)) else { continue };
                let (loose, tight) = (loose.price(&kernel), tight.price(&kernel));
                let slower = price.time <= loose.time && loose.time <= tight.time;
                prop_assert!(slower, "{:?} on {}", kernel, hardware.name);
                if cap >= watts(&price) * (1.0 + 1e-9) {
                    prop_assert_eq!(loose, price, "a cap above the draw changes nothing");
                }
                for (price, cap) in [(loose, cap), (tight, cap * less)] {
                    let at_lowest = slowest.price(&kernel).time;
                    let held = watts(&price) <= cap * (1.0 + 1e-9);
                    let lowest = price.time.ps() + 1 >= at_lowest.ps();
                    prop_assert!(held || lowest, "{} W of {cap} W on {}", watts(&price), hardware.name);
                }
            }
        }
    }

    /// On the ideal device a product takes its bytes over 1000 GB/s: as many picoseconds as bytes.
    #[test]
    fn the_ideal_device_moves_a_byte_a_picosecond(
        rows in 1..300_u32, inner in 1..3000_u32, columns in 1..3000_u32, f32 in any::<bool>(),
    ) {
        let (dtype, width) = if f32 { (Dtype::F32, 4) } else { (Dtype::Bf16, 2) };
        let (r, i, c) = (u64::from(rows), u64::from(inner), u64::from(columns));
        let price = device(&shipped("ideal")).price(&product(rows, inner, columns, dtype));
        let by_hand = width * (i * c + r * (i + c));
        prop_assert_eq!((price.time.ps(), price.dram_bytes, price.flops), (price.dram_bytes, price.dram_bytes, 2 * r * i * c));
        prop_assert_eq!(price.time.ps(), by_hand);
        prop_assert_eq!((price.bound, price.source), (Bound::Dram, SourceKind::Assumed));
        // pJ: 100 a byte, 1 a flop of 16 bits.
        prop_assert_eq!(price.dynamic_pj as u64, 100 * by_hand + price.flops * width / 2);
    }
}

/// A device on which only arithmetic takes time: no fixed time, everything else endlessly fast.
fn arithmetic_only(units: f64, tiles: &[(u32, u32)]) -> Hardware {
    let mut hardware = shipped("ideal");
    hardware.compute.units.value = units;
    hardware.compute.tiles = tiles.to_vec();
    hardware.compute.matrix_f16_tflops.value = 100.0;
    hardware.memory.dram_gb_per_s.value = 1e9;
    hardware.memory.l2_gb_per_s.value = 1e9;
    hardware
}

/// 132 units, tiles of 128 x 128 and 2 x 128 x 128 x 4096 flops, at 100 Tflop/s over 132 units: one wave takes
/// 132 x 2 x 128 x 128 x 4096 / 100e12 s = 177.17 us. With 4096 columns, 128 rows make 32 tiles. The inner dimension is
/// split until every unit has a piece:
///
/// | rows | tiles | pieces, least time |
/// |---|---|---|
/// | 1 to 128 | 32 | 128 quarters on 132 units: 1/4 wave |
/// | 129 to 256 | 64 | 128 halves: 1/2 wave |
/// | 257 to 512 | 96, 128 | whole tiles: 1 wave (in halves: 2 x 1/2) |
/// | 513 to 1024 | 160 to 256 | more tiles than units: 2 waves |
/// | 1025 to 1536 | 288 to 384 | 3 waves |
#[test]
fn time_is_a_staircase_in_rows() {
    let device = device(&arithmetic_only(132.0, &[(128, 128)]));
    let wave = SimTime::at_rate(132 * 2 * 128 * 128 * 4096, 100e12).ps();
    let at = |rows| device.price(&product(rows, 4096, 4096, Dtype::F16)).time.ps();
    for (rows, quarters) in
        [(1, 1), (64, 1), (128, 1), (129, 2), (256, 2), (257, 4), (512, 4), (513, 8), (1024, 8), (1056, 12)]
    {
        assert!(at(rows).abs_diff(wave * quarters / 4) <= 1, "{rows} rows: {} of a wave {wave}", at(rows));
    }
}

/// 6 rows padded to 8 for a captured graph cost what 8 cost: no more than 128, less on a device with small tiles.
#[test]
fn padding_to_a_near_size_costs_no_more_than_to_a_far_one() {
    for hardware in all() {
        let device = device(&hardware);
        let at = |rows| device.price(&product(rows, 4096, 4096, Dtype::Bf16)).time;
        assert!(at(6) <= at(8) && at(8) <= at(128), "{}", hardware.name);
    }
    let device = device(&arithmetic_only(1.0, &[(8, 128), (128, 128)]));
    let at = |rows| device.price(&product(rows, 4096, 4096, Dtype::Bf16)).time.ps();
    assert_eq!((at(6), at(128).div_ceil(16)), (at(8), at(8)));
}

/// Half the clock: twice the time of arithmetic, the same time of device memory.
#[test]
fn a_clock_cap_slows_arithmetic_in_proportion() {
    let hardware = arithmetic_only(132.0, &[(128, 128)]);
    let at_clock = |hardware: &Hardware, kernel: &Kernel, share: f64| {
        let clock_mhz = Some(hardware.compute.boost_clock_mhz.value * share);
        Device::new(hardware, Limits { clock_mhz, ..Limits::default() })
            .expect("below boost")
            .price(kernel)
            .time
            .ps()
    };
    let large = product(4096, 4096, 4096, Dtype::F16);
    let full = at_clock(&hardware, &large, 1.0);
    assert_eq!(full, device(&hardware).price(&large).time.ps());
    for share in [0.5, 0.25] {
        assert!((at_clock(&hardware, &large, share) as f64 * share - full as f64).abs() <= 1.0);
    }
    // Memory follows only when the clock is low.
    let mut memory = shipped("ideal");
    memory.memory.l2_gb_per_s.value = 1e9;
    let thin = product(1, 4096, 4096, Dtype::F16);
    let slower = |share| at_clock(&memory, &thin, share) as f64 / at_clock(&memory, &thin, 1.0) as f64;
    assert!(slower(1.0) == 1.0 && (1.0..1.02).contains(&slower(0.9)), "{}", slower(0.9));
    assert!((1.05..1.5).contains(&slower(0.5)) && (2.0..4.0).contains(&slower(0.2)), "{}", slower(0.5));
}

/// A moderate cap or lock saves energy where memory is what is slow: the core's voltage falls, and memory hardly waits. A low one wastes it:
/// static power is drawn for longer.
#[test]
fn less_clock_saves_energy_until_it_is_too_little() {
    let thin = product(1, 4096, 14336, Dtype::Bf16);
    let names = [
        "nvidia-rtx-4090",
        "nvidia-h100-sxm",
        "nvidia-h200-sxm",
        "nvidia-a100-sxm-80gb",
        "nvidia-l4",
        "amd-mi300x",
    ];
    for name in names {
        let hardware = shipped(name);
        let static_w = hardware.power.static_w.value;
        let run = |limits: Limits| {
            let price = Device::new(&hardware, limits).expect("within reach").price(&thin);
            let time = price.time.ps() as f64;
            (static_w * time + price.dynamic_pj as f64, time)
        };
        let (free, time) = run(Limits::default());
        for share in [0.9, 0.8, 0.7] {
            let power_w = Some(share * free / time);
            let (capped, longer) = run(Limits { power_w, ..Limits::default() });
            let (energy, slower) = (capped / free, longer / time);
            assert!(energy < 0.97 && slower < 1.3, "{name}: {share}: {energy} {slower}");
        }
        let boost = hardware.compute.boost_clock_mhz.value;
        let locked =
            |share: f64| run(Limits { clock_mhz: Some(boost * share), ..Limits::default() }).0 / free;
        assert!((0.5..0.9).contains(&locked(0.8)), "{name}: {}", locked(0.8));
        assert!(locked(0.11) > locked(0.5), "{name}: {} {}", locked(0.11), locked(0.5));
    }
}

/// A cap a hair above what can be held gives long times, never endless ones.
#[test]
fn a_cap_at_the_edge_is_the_lowest_clock() {
    let hardware = shipped("nvidia-h100-sxm");
    let capped = |power_w| {
        Device::new(&hardware, Limits { power_w: Some(power_w), clock_mhz: None, ..Limits::default() })
    };
    let error = capped(1.0).expect_err("too low").to_string();
    let edge = error.split("above ").nth(1).and_then(|rest| rest.split(' ').next());
    let edge: f64 = edge.expect("the edge").parse().expect("a number");
    let kernel = product(64, 4096, 4096, Dtype::Bf16);
    let free = device(&hardware).price(&kernel);
    for above in [0.06, 1.0, 10.0] {
        let price = capped(edge + above).expect("above the edge").price(&kernel);
        assert!(price.time > free.time && price.time.ps() < 100 * free.time.ps(), "{above}: {price:?}");
        assert_eq!(price.bound, Bound::Power);
    }
}

#[test]
fn limits_that_no_device_can_keep_are_refused() {
    let hardware = shipped("nvidia-h100-sxm");
    let (idle_w, boost) = (hardware.power.idle_w.value, hardware.compute.boost_clock_mhz.value);
    for power_w in [0.0, -1.0, idle_w, f64::NAN, f64::INFINITY] {
        let error =
            Device::new(&hardware, Limits { power_w: Some(power_w), clock_mhz: None, ..Limits::default() })
                .expect_err("refused");
        assert!(error.to_string().contains("limits.power_w"), "{error}");
    }
    for clock_mhz in [0.0, -1.0, boost * 0.05, boost * 1.001, f64::NAN, f64::INFINITY] {
        let error = Device::new(&hardware, Limits { clock_mhz: Some(clock_mhz), ..Limits::default() })
            .expect_err("refused");
        assert!(error.to_string().contains("limits.clock_mhz"), "{error}");
    }
}

/// The price names the weaker source of the constants that set its time: those of what binds, and no others.
#[test]
fn a_price_is_as_trustworthy_as_what_binds_it() {
    let source = |kind: SourceKind| match kind {
        SourceKind::Measured => Source::Measured("test".into()),
        SourceKind::Fitted => Source::Fitted("test".into()),
        SourceKind::Datasheet => Source::Datasheet("test".into()),
        _ => Source::Assumed("test".into()),
    };
    for (a, b) in [
        (SourceKind::Measured, SourceKind::Fitted),
        (SourceKind::Datasheet, SourceKind::Fitted),
        (SourceKind::Assumed, SourceKind::Measured),
        (SourceKind::Measured, SourceKind::Measured),
    ] {
        // All numbers of `ideal` are assumed; only those that bind are renamed.
        let mut hardware = shipped("ideal");
        hardware.memory.dram_gb_per_s.source = source(a);
        hardware.kernels.matmul.bytes.source = source(b);
        hardware.kernels.matmul.overlap.source = source(SourceKind::Measured);
        let price = device(&hardware).price(&product(1, 100, 100, Dtype::F16));
        assert_eq!((price.bound, price.source), (Bound::Dram, a.join(b)));

        let mut hardware = arithmetic_only(1.0, &[(1, 1)]);
        hardware.compute.matrix_f16_tflops.source = source(a);
        hardware.compute.units.source = source(b);
        hardware.kernels.matmul.flops.source = source(b);
        hardware.kernels.matmul.overlap.source = source(SourceKind::Measured);
        let price = device(&hardware).price(&product(100, 100, 100, Dtype::F16));
        assert_eq!((price.bound, price.source), (Bound::Compute, a.join(b)));

        let mut hardware = shipped("ideal");
        hardware.kernels.elementwise.fixed_us.value = 5.0;
        hardware.kernels.elementwise.fixed_us.source = source(a);
        let add = Kernel::ResidualAdd { rows: 1, width: 10, activations: Dtype::F16 };
        let price = device(&hardware).price(&add);
        assert_eq!((price.bound, price.source, price.time.ps()), (Bound::Fixed, a, 5_000_060));
    }
}
