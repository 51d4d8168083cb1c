//! Price of a collective operation on some devices of a fabric, with its source. Pure, as prices of kernels are.
//!
//! On one level, times are read from measured curves, predicted by those of other numbers of devices, lent by another fabric, or made of
//! steps and bytes, in this order. Over several levels they are put together (`docs/COST_DEVICES.md`, "Collectives").

mod exchange;
mod formula;
mod line;
mod timed;

pub(crate) use exchange::us as exchange_us;
pub use exchange::{ExchangeCall, Exchanges};

use super::price_error::PriceError;
use crate::error::InputError;
use crate::hw::{CallMode, Fabric, Level, Library, Operation};
use crate::units::{SimTime, SourceKind};
use timed::Timed;

/// What one collective operation costs every device that takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectivePrice {
    /// From the start to the end, everybody starting together.
    pub time: SimTime,
    /// The weakest source among what set the time.
    pub source: SourceKind,
    /// How wrong the time may be; none where nobody measured what made it.
    pub error: Option<PriceError>,
}

impl CollectivePrice {
    const NOTHING: CollectivePrice =
        CollectivePrice { time: SimTime::ZERO, source: SourceKind::Measured, error: None };
}

/// Some devices of a fabric that work together by one library in one mode.
#[derive(Clone, Debug)]
pub struct Group {
    /// Levels that they are spread over, from the inside; one level of which they take more than one unit each.
    tiers: Vec<Tier>,
}

/// Units of one level.
#[derive(Clone, Debug)]
struct Tier {
    units: u32,
    /// Place of the level in the fabric.
    level: usize,
    /// By operation.
    timed: [Timed; Operation::ALL.len()],
}

impl Tier {
    fn new(level: (usize, &Level), library: Library, mode: CallMode, units: u32) -> Tier {
        let timed = |(operation, _)| {
            let devices = if operation == Operation::SendReceive { 2 } else { units };
            Timed::new(level.1, operation, library, mode, devices)
        };
        Tier { units, level: level.0, timed: Operation::ALL.map(timed) }
    }

    fn of(&self, operation: Operation, bytes: f64) -> (f64, SourceKind, Option<PriceError>) {
        self.timed[operation as usize].of(bytes)
    }
}

impl Group {
    /// Devices spread over the levels of `fabric` from the inside: `[8, 2]` are eight in each of two machines, `[1, 2]` one in each.
    /// Engines' own kernels stay within one level: over several, and over a network, NCCL does it.
    ///
    /// # Errors
    /// More than a level joins, or more levels than the fabric has.
    pub fn new(
        fabric: &Fabric,
        spread: &[u32],
        library: Library,
        mode: CallMode,
    ) -> Result<Group, InputError> {
        if spread.len() > fabric.levels.len() {
            let expected = format!(
                "at most {} levels, as {} has; join a network with `+`, as in nvidia-hgx-h100+infiniband-ndr",
                fabric.levels.len(),
                fabric.name
            );
            return Err(InputError::expected(expected).key("devices").found(format!("{spread:?}")));
        }
        for (units, level) in spread.iter().zip(&fabric.levels) {
            let most = level.units.value;
            if *units == 0 || f64::from(*units) > most {
                let expected = format!("1 to {most}, which {} joins", level.name);
                return Err(InputError::expected(expected).key("devices").found(units));
            }
        }
        let taken = spread.iter().enumerate().filter(|(_, units)| **units > 1);
        let library = if taken.clone().count() > 1 { Library::Nccl } else { library };
        let tier =
            |(place, &units): (usize, &u32)| Tier::new((place, &fabric.levels[place]), library, mode, units);
        Ok(Group { tiers: taken.map(tier).collect() })
    }

    /// So many devices, as close together as `fabric` has them.
    ///
    /// # Errors
    /// More than the fabric joins, or so many that a machine would be taken in part.
    pub fn packed(
        fabric: &Fabric,
        devices: u32,
        library: Library,
        mode: CallMode,
    ) -> Result<Group, InputError> {
        let (mut spread, mut left) = (Vec::new(), devices);
        for level in &fabric.levels {
            let units = level.units.value as u32;
            if left <= units {
                spread.push(left);
                left = 1;
                break;
            }
            if !left.is_multiple_of(units) {
                let expected = format!("up to {units}, or a multiple of {units}, which {} joins", level.name);
                return Err(InputError::expected(expected).key("devices").found(devices));
            }
            spread.push(units);
            left /= units;
        }
        if left > 1 {
            let most: f64 = fabric.levels.iter().map(|level| level.units.value).product();
            let expected = format!(
                "at most {most} devices, which {} joins; join a network with `+`, as in nvidia-hgx-h100+infiniband-ndr",
                fabric.name
            );
            return Err(InputError::expected(expected).key("devices").found(devices));
        }
        Group::new(fabric, &spread, library, mode)
    }

    /// How many devices take part.
    pub fn devices(&self) -> u32 {
        self.tiers.iter().map(|tier| tier.units).product()
    }

    /// The price of a message of so many bytes ([`crate::hw::Operation`] says of what): never falls as bytes grow. One device, or no
    /// bytes, cost nothing. A send goes between two devices of the outermost level that the group is spread over.
    pub fn price(&self, operation: Operation, bytes: u64) -> CollectivePrice {
        if bytes == 0 || self.tiers.is_empty() {
            return CollectivePrice::NOTHING;
        }
        let (us, source, error) = together(&self.tiers, operation, bytes as f64);
        CollectivePrice { time: SimTime::from_us(us), source, error }
    }

    /// Bytes that each device sends over each level that the group is spread over, from the inside, with the level's place in the fabric:
    /// the least that the operation needs there, rounded up.
    pub fn sent(&self, operation: Operation, bytes: u64) -> Vec<(usize, u64)> {
        let (mut out, mut left) = (Vec::new(), bytes as f64);
        for (place, tier) in self.tiers.iter().enumerate() {
            let outermost = place + 1 == self.tiers.len();
            let sent = match operation {
                Operation::SendReceive if !outermost => 0.0,
                _ => operation.sent_share(tier.units) * left,
            };
            out.push((tier.level, sent.ceil() as u64));
            if !matches!(operation, Operation::AllToAll | Operation::SendReceive) {
                left /= f64::from(tier.units);
            }
        }
        out
    }
}

/// An operation over several levels, one step after the other: inside a machine first, then each device with its peers in the other
/// machines, then inside again. Nobody measured it as a whole, so that it counts as assumed.
fn together(tiers: &[Tier], operation: Operation, bytes: f64) -> (f64, SourceKind, Option<PriceError>) {
    let Some((inner, outer)) = tiers.split_first() else { return (0.0, SourceKind::Measured, None) };
    if outer.is_empty() {
        return inner.of(operation, bytes);
    }
    if operation == Operation::SendReceive {
        return together(outer, operation, bytes);
    }
    let inside = |operation: Operation| inner.of(operation, bytes).0;
    let between = |bytes: f64| together(outer, operation, bytes).0;
    let part = bytes / f64::from(inner.units);
    let us = match operation {
        Operation::AllReduce => {
            inside(Operation::ReduceScatter) + between(part) + inside(Operation::AllGather)
        }
        Operation::AllGather | Operation::ReduceScatter => inside(operation) + between(part),
        Operation::AllToAll | Operation::SendReceive => inside(operation) + between(bytes),
    };
    (us, SourceKind::Assumed, None)
}
