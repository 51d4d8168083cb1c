//! A part of a study.

use std::str::FromStr;

/// A part of a study: point k belongs to shard 1 + k modulo `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 1.
    pub index: u32,
    /// How many parts there are.
    pub count: u32,
}

/// Most parts of a study.
const MOST_SHARDS: u32 = 100_000;

impl Shard {
    /// All of it.
    pub const WHOLE: Shard = Shard { index: 1, count: 1 };

    pub(super) fn has(self, index: u64) -> bool {
        index % u64::from(self.count) == u64::from(self.index - 1)
    }

    /// How many of the first `count` numbers it has.
    pub(super) fn share(self, count: u64) -> u64 {
        let others = u64::from(self.index - 1);
        count.saturating_sub(others).div_ceil(u64::from(self.count))
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Shard, String> {
        let parts =
            text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match parts {
            Some((index, count)) if (1..=count).contains(&index) && count <= MOST_SHARDS => {
                Ok(Shard { index, count })
            }
            _ => Err(format!("expected I/N with I from 1 to N and N up to {MOST_SHARDS}, such as 2/7")),
        }
    }
}
