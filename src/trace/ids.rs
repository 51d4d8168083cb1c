//! Sets and maps of ids that stay small for the ids that recorders give: consecutive ones.

use std::collections::{BTreeMap, HashMap};

/// A set of ids as ranges.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Whether `id` is in the set.
    pub fn contains(&self, id: u64) -> bool {
        self.0.range(..=id).next_back().is_some_and(|(_, &last)| id <= last)
    }

    /// Adds `id`; false where it was there.
    pub fn insert(&mut self, id: u64) -> bool {
        let before = self.0.range(..=id).next_back().map(|(&first, &last)| (first, last));
        if before.is_some_and(|(_, last)| id <= last) {
            return false;
        }
        let first = match before {
            Some((first, last)) if last + 1 == id => first,
            _ => id,
        };
        let last = id.checked_add(1).and_then(|next| self.0.remove(&next)).unwrap_or(id);
        self.0.insert(first, last);
        true
    }

    /// How many ranges it takes.
    pub fn ranges(&self) -> usize {
        self.0.len()
    }
}

/// From the ids of a file to indexes of the route table: an array for small ids, a map for the others.
#[derive(Clone, Debug, Default)]
pub(super) struct IdMap {
    dense: Vec<u32>,
    sparse: HashMap<u64, u32>,
    len: usize,
}

const NONE: u32 = u32::MAX;

impl IdMap {
    /// The index of `id`.
    pub fn get(&self, id: u64) -> Option<u32> {
        match usize::try_from(id).ok().and_then(|id| self.dense.get(id)) {
            Some(&index) if index != NONE => Some(index),
            _ if self.sparse.is_empty() => None,
            _ => self.sparse.get(&id).copied(),
        }
    }

    /// Adds `id`; false where it was there.
    pub fn insert(&mut self, id: u64, index: u32) -> bool {
        if self.get(id).is_some() {
            return false;
        }
        self.len += 1;
        // An array at most four times as long as there are ids, and 256 KiB.
        let most = 4 * self.len as u64 + 65_536;
        if id < most {
            let id = id as usize;
            if self.dense.len() <= id {
                self.dense.resize(id + 1, NONE);
            }
            self.dense[id] = index;
        } else {
            self.sparse.insert(id, index);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn consecutive_ids_take_one_range() {
        let mut set = Ranges::default();
        assert!((0..1000).rev().chain(1000..2000).all(|id| set.insert(id)));
        assert_eq!(set.ranges(), 1);
        assert!(set.insert(u64::MAX) && !set.insert(u64::MAX) && !set.insert(5));
    }

    proptest! {
        #[test]
        fn both_agree_with_a_plain_set(ids in prop::collection::vec(prop_oneof![0..40_u64, 0..400_000_u64, any::<u64>()], 0..200)) {
            let (mut ranges, mut map, mut plain) = (Ranges::default(), IdMap::default(), HashSet::new());
            for (index, &id) in ids.iter().enumerate() {
                let new = plain.insert(id);
                prop_assert_eq!(ranges.insert(id), new);
                prop_assert_eq!(map.insert(id, index as u32), new);
            }
            for id in ids.iter().flat_map(|&id| [id, id.wrapping_add(1)]) {
                prop_assert_eq!(ranges.contains(id), plain.contains(&id));
                let first = ids.iter().position(|&known| known == id).map(|index| index as u32);
                prop_assert_eq!(map.get(id), first);
            }
        }
    }
}
