//! Devices that have parts of a model, and what they take to exchange messages. One of them stands for all: they do the same at the same time.

use super::{Bound, CollectivePrice, Device, ExchangeCall, Exchanges, Group, Price};
use crate::error::InputError;
use crate::hw::{CallMode, ExchangeMode, ExchangePart, Fabric, Library, Operation};

/// Devices that compute a model together.
#[derive(Clone, Debug)]
pub struct Ranks {
    fabric: String,
    library: Library,
    group: Group,
    exchanges: Option<Exchanges>,
    /// Whether each of them is an engine of its own, which has its own time and energy.
    apart: bool,
}

impl PartialEq for Ranks {
    /// Of equal count on the same fabric by the same library.
    fn eq(&self, other: &Self) -> bool {
        let of = |ranks: &Self| (ranks.library, ranks.count(), ranks.exchanges.is_some(), ranks.apart);
        self.fabric == other.fabric && of(self) == of(other)
    }
}

impl Ranks {
    /// So many devices, as close together as `fabric` has them, with the collectives of `library`. Times are those of captured graphs: what the
    /// host takes to launch a message is counted as every launch is, and what collectors of eager times copy before each call is no message.
    ///
    /// # Errors
    /// More than the fabric joins.
    pub fn new(fabric: &Fabric, devices: u32, library: Library) -> Result<Ranks, InputError> {
        let group = Group::packed(fabric, devices, library, CallMode::Graph)?;
        Ok(Ranks { fabric: fabric.name.clone(), library, group, exchanges: None, apart: false })
    }

    /// The same for devices that share experts: they bring tokens to these and back by DeepEP's kernels.
    ///
    /// # Errors
    /// Devices of several machines, and a fabric on which nobody measured these kernels, nor on one that lends to it.
    pub fn exchanging(self, fabric: &Fabric) -> Result<Ranks, InputError> {
        let level = &fabric.levels[0];
        if self.count() > level.units.value as u32 {
            let what = format!(
                "at most the {} devices of one machine: DeepEP was measured within one",
                level.units.value
            );
            return Err(InputError::expected(what).key("experts").found(self.count()));
        }
        let exchanges = Exchanges::new(level);
        if !exchanges.are_known() {
            let what = "a fabric on which DeepEP was measured, or to which one lends: nvidia-hgx-h100, nvidia-hgx-h200, nvidia-hgx-b200";
            return Err(InputError::expected(what).key("fabric").found(&fabric.name));
        }
        Ok(Ranks { exchanges: Some(exchanges), ..self })
    }

    /// Two of `among` devices, for messages from one to the other. The devices are as close together as `fabric` has them; the two are joined by the
    /// outermost level that those need.
    ///
    /// # Errors
    /// More than the fabric joins.
    pub fn pair(fabric: &Fabric, among: u32, library: Library) -> Result<Ranks, InputError> {
        let (mut spread, mut reach) = (Vec::new(), 1.0);
        for level in &fabric.levels {
            reach *= level.units.value;
            if f64::from(among) <= reach {
                spread.push(2);
                let group = Group::new(fabric, &spread, library, CallMode::Graph)?;
                return Ok(Ranks {
                    fabric: fabric.name.clone(),
                    library,
                    group,
                    exchanges: None,
                    apart: false,
                });
            }
            spread.push(1);
        }
        let expected = format!(
            "at most {reach} devices, which {} joins; join a network with `+`, as in nvidia-hgx-h100+infiniband-ndr",
            fabric.name
        );
        Err(InputError::expected(expected).key("devices").found(among))
    }

    /// The same, each an engine with sequences of its own.
    pub fn of_engines(self) -> Ranks {
        Ranks { apart: true, ..self }
    }

    /// Of how many the energy and the time of an engine are.
    pub fn together(&self) -> u32 {
        if self.apart { 1 } else { self.count() }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.group.devices()
    }

    /// The fabric's name.
    pub fn fabric(&self) -> &str {
        &self.fabric
    }

    /// Whose collectives they use.
    pub fn library(&self) -> Library {
        self.library
    }

    /// What a message takes.
    pub fn exchange(&self, operation: Operation, bytes: u64) -> CollectivePrice {
        self.group.price(operation, bytes)
    }
}

impl Device {
    /// The price of a message among the devices that compute a model together.
    ///
    /// Of the energy, what the message takes in the memory of each device is counted, read once and written once; what links and switches
    /// draw, no profile says.
    ///
    /// # Panics
    /// On a device that is alone.
    pub fn exchange(&self, operation: Operation, bytes: u64) -> Price {
        let ranks = self.ranks.as_ref().expect("a device that is alone exchanges nothing");
        self.messaged(ranks.exchange(operation, bytes), bytes)
    }

    /// The price of bringing tokens to the devices of their experts, or back.
    ///
    /// # Panics
    /// On a device that shares no experts, and in a mode that the fabric has not.
    pub fn expert_exchange(&self, mode: ExchangeMode, part: ExchangePart, call: &ExchangeCall) -> Price {
        let exchanges = self.ranks.as_ref().and_then(|ranks| ranks.exchanges.as_ref());
        let price = exchanges.and_then(|exchanges| exchanges.price(mode, part, call));
        self.messaged(
            price.expect("devices that share experts have exchanges"),
            call.bytes(mode, part) as u64,
        )
    }

    /// A message of so many bytes that takes this.
    fn messaged(&self, CollectivePrice { time, source, error }: CollectivePrice, bytes: u64) -> Price {
        let moved = (2 * bytes).saturating_sub(self.l2_bytes);
        let dynamic_pj = (self.dynamic_pj_of_bytes(moved) as i64).min(self.most_pj(time));
        Price { time, flops: 0, dram_bytes: moved, dynamic_pj, bound: Bound::Link, source, error }
    }
}
