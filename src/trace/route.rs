//! A route: the steps a token takes through the pool, in the text form of the format and as a table of distinct routes.

use super::{Header, KvAction, MOST_LAYERS, Order};
use crate::error::{InputError, Result};
use foldhash::fast::RandomState;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};

/// Which parts of a block a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Modules {
    /// Attention and feed-forward.
    Block,
    /// Attention branch only.
    Attention,
    /// Feed-forward branch only: for the KV cache the layer counts as skipped.
    FeedForward,
    /// An adapter in place of the block: for the KV cache the layer counts as skipped.
    Adapter,
}

impl Modules {
    /// Whether the attention branch runs.
    pub fn attention(self) -> bool {
        matches!(self, Modules::Block | Modules::Attention)
    }

    /// Whether the feed-forward branch runs.
    pub fn feed_forward(self) -> bool {
        matches!(self, Modules::Block | Modules::FeedForward)
    }

    /// Depth of such a step: a block counts 1, a branch one half, an adapter nothing.
    pub fn depth(self) -> f64 {
        match self {
            Modules::Block => 1.0,
            Modules::Attention | Modules::FeedForward => 0.5,
            Modules::Adapter => 0.0,
        }
    }
}

/// One step of a route: `LAYER[MODULES][@WIDTH][!KV][+r]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Layer id in the pool.
    pub layer: u32,
    /// Which branches run.
    pub modules: Modules,
    /// Fraction of the feed-forward width that is computed, in (0, 1].
    pub width: f32,
    /// KV action, where it differs from the header's.
    pub kv: Option<KvAction>,
    /// Whether the step says that the router was evaluated before it.
    pub routed: bool,
}

impl Step {
    /// The whole block of `layer`.
    pub fn block(layer: u32) -> Self {
        Step { layer, modules: Modules::Block, width: 1.0, kv: None, routed: false }
    }

    fn parse(text: &str) -> Result<Self> {
        let bad = |what: &str| {
            InputError::expected(format!(
                "{what} (a step is LAYER[a|f|x][@WIDTH][!KV][+r], as in 12a, 3f@0.25, 9!none or 4+r)"
            ))
            .found(if text.is_empty() { "an empty step" } else { text })
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let layer: u32 = text[..digits].parse().map_err(|_| bad("a layer id"))?;
        if layer >= MOST_LAYERS {
            return Err(bad("a layer id below 65535").into());
        }
        let (text_left, routed) = match text[digits..].strip_suffix("+r") {
            Some(left) => (left, true),
            None => (&text[digits..], false),
        };
        let (left, kv) = match text_left.split_once('!') {
            Some((left, name)) => (left, Some(KvAction::parse(name)?)),
            None => (text_left, None),
        };
        let (letters, width) = match left.split_once('@') {
            Some((letters, number)) => {
                let width: f32 = number.parse().map_err(|_| bad("a width in (0, 1]"))?;
                (
                    letters,
                    if width > 0.0 && width <= 1.0 {
                        width
                    } else {
                        return Err(bad("a width in (0, 1]").into());
                    },
                )
            }
            None => (left, 1.0),
        };
        let modules = match letters {
            "" => Modules::Block,
            "a" => Modules::Attention,
            "f" => Modules::FeedForward,
            "x" => Modules::Adapter,
            _ => return Err(bad("the module letter a, f or x, or none").into()),
        };
        Ok(Step { layer, modules, width, kv, routed })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let letter = match self.modules {
            Modules::Block => "",
            Modules::Attention => "a",
            Modules::FeedForward => "f",
            Modules::Adapter => "x",
        };
        write!(f, "{}{letter}", self.layer)?;
        if self.width != 1.0 {
            write!(f, "@{}", self.width)?;
        }
        if let Some(kv) = self.kv {
            write!(f, "!{kv}")?;
        }
        if self.routed { f.write_str("+r") } else { Ok(()) }
    }
}

impl Hash for Step {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.layer, self.modules, self.width.to_bits(), self.kv, self.routed).hash(state);
    }
}

/// The steps of one token, in order. May be empty: a token that goes from the embedding straight to the head.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct Route(pub Vec<Step>);

impl Route {
    /// Every layer of a pool of `layers`, in order: the dense route.
    pub fn dense(layers: u32) -> Self {
        Route((0..layers).map(Step::block).collect())
    }

    /// Whole blocks of these layers, in this order.
    pub fn of_layers(layers: impl IntoIterator<Item = u32>) -> Self {
        Route(layers.into_iter().map(Step::block).collect())
    }

    /// Reads the text form: steps separated by one space.
    ///
    /// # Errors
    /// A step that is not of the form, naming the step.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Route::default());
        }
        text.split(' ').map(Step::parse).collect::<Result<_>>().map(Route)
    }

    /// Depth in whole blocks; a branch counts half.
    pub fn depth(&self) -> f64 {
        self.0.iter().map(|step| step.modules.depth()).sum()
    }

    /// Holds the route against the header: ids in the pool, the order, reuse, and the longest route.
    ///
    /// # Errors
    /// The first step that breaks a rule.
    pub fn check(&self, header: &Header) -> Result<()> {
        if let Some(most) = header.max_hops.filter(|&most| self.0.len() > most as usize) {
            return Err(InputError::expected(format!("at most max_hops = {most} steps"))
                .found(self.0.len())
                .into());
        }
        let mut seen = HashSet::new();
        let mut previous = None;
        for step in &self.0 {
            if step.layer >= header.layers {
                let what = format!("layer ids below the pool size {}", header.layers);
                return Err(InputError::expected(what).found(step).into());
            }
            let repeated = match (header.order, previous) {
                (Order::Monotone, Some(previous)) if step.layer < previous => {
                    let what = format!("ascending layers (order is monotone; the step before is {previous})");
                    return Err(InputError::expected(what).found(step).into());
                }
                (Order::Monotone, previous) => previous == Some(step.layer),
                (Order::Any, _) => !header.reuse && !seen.insert(step.layer),
            };
            previous = Some(step.layer);
            if repeated && !header.reuse {
                return Err(InputError::expected("each layer at most once (reuse is false)")
                    .found(step)
                    .into());
            }
        }
        Ok(())
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            write!(f, "{}{step}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// The routes of a trace, numbered from 0 in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    routes: Vec<Route>,
    /// From a route's hash, or the next free number after it, to the first route of those steps.
    by_hash: HashMap<u64, u32>,
    hasher: RandomState,
}

impl RouteTable {
    /// The number of this route, which is added where it is new.
    pub fn intern(&mut self, route: Route) -> u32 {
        match self.place(&route) {
            Ok(index) => index,
            Err(free) => self.add(route, Some(free)),
        }
    }

    /// Adds a route under a number of its own, even where an equal one is there: a file may define it twice.
    pub fn push(&mut self, route: Route) -> u32 {
        let free = self.place(&route).err();
        self.add(route, free)
    }

    /// The number of an equal route, or the key under which this one is to be found.
    fn place(&self, route: &Route) -> std::result::Result<u32, u64> {
        let mut key = self.hasher.hash_one(route);
        while let Some(&index) = self.by_hash.get(&key) {
            if self.routes[index as usize] == *route {
                return Ok(index);
            }
            key = key.wrapping_add(1);
        }
        Err(key)
    }

    fn add(&mut self, route: Route, key: Option<u64>) -> u32 {
        let index = u32::try_from(self.routes.len()).expect("fewer than 2^32 routes");
        if let Some(key) = key {
            self.by_hash.insert(key, index);
        }
        self.routes.push(route);
        index
    }

    /// The route of this number.
    pub fn get(&self, index: u32) -> &Route {
        &self.routes[index as usize]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// How often a route visits one layer, at most; at least 1.
    pub fn most_visits(&self, layers: u32) -> u32 {
        let mut visits = vec![0; layers as usize];
        let mut most = |route: &Route| {
            visits.fill(0);
            route.0.iter().for_each(|step| visits[step.layer as usize] += 1);
            visits.iter().copied().max().unwrap_or(0)
        };
        self.iter().map(&mut most).max().unwrap_or(0).max(1)
    }

    /// All routes, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }
}

impl PartialEq for RouteTable {
    fn eq(&self, other: &Self) -> bool {
        self.routes == other.routes
    }
}
