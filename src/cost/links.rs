//! What it takes to bring the states of tokens from one device to another, where each has some of the layers.

use super::{Bound, CollectivePrice, Device, Group, Price};
use crate::error::InputError;
use crate::hw::{CallMode, Fabric, Library, Operation};
use crate::units::SimTime;

/// Links between places, each of which is a device, or several that compute their layers together (tensor parallelism).
#[derive(Clone, Debug)]
pub struct Links {
    fabric: String,
    library: Library,
    /// Devices of a place.
    each: u32,
    /// Devices that the levels of the fabric join, from the inside, and a message over each.
    levels: Vec<(u64, Group)>,
    /// The devices of a place put together what each has received.
    gather: Option<Group>,
}

impl Links {
    /// `places` of `each` devices, as close together as `fabric` has them, in their order, with the messages of `library`.
    ///
    /// # Errors
    /// More than the fabric joins.
    pub fn new(fabric: &Fabric, places: u32, each: u32, library: Library) -> Result<Links, InputError> {
        let mode = CallMode::Graph;
        Group::packed(fabric, places * each, library, mode)?;
        let mut joined = 1;
        let mut levels = Vec::new();
        for (place, level) in fabric.levels.iter().enumerate() {
            joined *= level.units.value as u64;
            let mut spread = vec![1; place];
            spread.push(2);
            if level.units.value >= 2.0 {
                levels.push((joined, Group::new(fabric, &spread, library, mode)?));
            }
        }
        let gather = (each > 1).then(|| Group::packed(fabric, each, library, mode)).transpose()?;
        Ok(Links { fabric: fabric.name.clone(), library, each, levels, gather })
    }

    /// The fabric's name.
    pub fn fabric(&self) -> &str {
        &self.fabric
    }

    /// Whose messages.
    pub fn library(&self) -> Library {
        self.library
    }

    /// Devices of a place.
    pub fn each(&self) -> u32 {
        self.each
    }

    /// States of a token that cross: engines whose layers leave the last sum to the norm of the next layer send both the branch and the stream
    /// (vLLM: `make_empty_intermediate_tensors_factory(["hidden_states", "residual"], ...)` in its models; SGLang's come from them).
    pub fn states(&self) -> u64 {
        match self.library {
            Library::Vllm | Library::Sglang => 2,
            Library::Trtllm | Library::Nccl => 1,
        }
    }

    /// The price of bringing `bytes` from a place to another. Each of its devices sends a part to its peer, and the peers gather the
    /// whole (vLLM's `send_tensor_dict` with an `all_gather_group`).
    ///
    /// # Panics
    /// Where the fabric does not join them.
    pub fn send(&self, from: u32, to: u32, bytes: u64) -> CollectivePrice {
        let device = |place: u32| u64::from(place) * u64::from(self.each);
        let same = |joined: u64| device(from) / joined == device(to) / joined;
        let (_, level) = self.levels.iter().find(|(joined, _)| same(*joined)).expect("a level joins them");
        let sent = level.price(Operation::SendReceive, bytes.div_ceil(self.each.into()));
        let Some(gather) = &self.gather else { return sent };
        let gathered = gather.price(Operation::AllGather, bytes);
        let error = sent.error.zip(gathered.error).map(|(a, b)| a.and(b));
        CollectivePrice { time: sent.time + gathered.time, source: sent.source.join(gathered.source), error }
    }
}

impl Device {
    /// The price of bringing `bytes` of states from a place to another. Of the energy, what the message takes in device memory is counted, read
    /// once and written once; what links and switches draw, no profile says.
    pub fn send(&self, links: &Links, from: u32, to: u32, bytes: u64) -> Price {
        let CollectivePrice { time, source, error } = links.send(from, to, bytes);
        let moved = (2 * bytes.div_ceil(links.each.into())).saturating_sub(self.l2_bytes);
        let time = if bytes == 0 { SimTime::ZERO } else { time };
        let dynamic_pj = self.dynamic_pj_of_bytes(moved) as i64;
        Price { time, flops: 0, dram_bytes: moved, dynamic_pj, bound: Bound::Link, source, error }
    }
}
