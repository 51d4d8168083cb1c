//! A cache of a few places for each hash, which begins small and grows where its places are short.

use super::FoldHasher;
use std::hash::{BuildHasher, Hash};

/// Places that a key may have. With one, a cache that is half full loses a fifth of its keys to others; with four, hardly any.
const WAYS: usize = 4;

/// Places by the hash of a key: what comes later pushes out what is there. The whole key is kept, so that a collision costs time and never an
/// error.
#[derive(Debug)]
pub struct Slots<K, V> {
    /// As many as a power of two. The ways of a hash lie side by side.
    slots: Vec<Option<(K, V)>>,
    /// Some bits of each place's hash, odd; 0 where the place is empty. So a look-up reads one key, not four.
    tags: Vec<u16>,
    most: usize,
    /// How many were pushed out since there were so many places, which also says which way is next.
    pushed_out: usize,
}

impl<K: Hash + Eq, V> Slots<K, V> {
    /// With `first` places, and in time with `most`; both powers of two, and at least four.
    pub fn new(first: usize, most: usize) -> Self {
        assert!(
            first.is_power_of_two() && most.is_power_of_two() && first >= WAYS,
            "{first} and {most} places"
        );
        let slots = std::iter::repeat_with(|| None).take(first).collect();
        Slots { slots, tags: vec![0; first], most, pushed_out: 0 }
    }

    /// The first place of a key, and its tag.
    #[inline]
    fn place(&self, key: &K) -> (usize, u16) {
        let hash = FoldHasher::default().hash_one(key);
        let place = (hash >> (64 - self.slots.len().trailing_zeros())) as usize;
        (place & !(WAYS - 1), hash as u16 | 1)
    }

    /// The place that holds this key.
    #[inline]
    pub fn find(&self, key: &K) -> Option<usize> {
        let (first, tag) = self.place(key);
        let holds = |place: &usize| {
            self.tags[*place] == tag && self.slots[*place].as_ref().is_some_and(|(known, _)| known == key)
        };
        (first..first + WAYS).find(holds)
    }

    /// What a place holds that was found or filled.
    #[inline]
    pub fn at(&mut self, place: usize) -> &mut V {
        &mut self.slots[place].as_mut().expect("a place that was found or filled").1
    }

    /// Keeps a value and gives those that it pushes out to `gone`. Returns its place. Where many were pushed out, there are more places from then on.
    pub fn keep(&mut self, key: K, value: V, mut gone: impl FnMut(V)) -> usize {
        if self.pushed_out > self.slots.len() / 16 && self.slots.len() < self.most {
            let more = (4 * self.slots.len()).min(self.most);
            let before = std::mem::replace(self, Slots::new(more, self.most));
            for (key, value) in before.slots.into_iter().flatten() {
                self.put(key, value, &mut gone);
            }
            self.pushed_out = 0;
        }
        self.put(key, value, &mut gone)
    }

    fn put(&mut self, key: K, value: V, gone: &mut impl FnMut(V)) -> usize {
        let (first, tag) = self.place(&key);
        let own = self.find(&key).or_else(|| (first..first + WAYS).find(|&place| self.tags[place] == 0));
        let place = own.unwrap_or(first + self.pushed_out % WAYS);
        self.tags[place] = tag;
        if let Some((_, before)) = self.slots[place].replace((key, value)) {
            self.pushed_out += 1;
            gone(before);
        }
        place
    }

    /// All values.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.slots.iter_mut().flatten().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;
    use proptest::prelude::*;

    proptest! {
        /// What was kept is there or was given away, once, however often the places grew.
        #[test]
        fn nothing_is_lost(keys in prop::collection::vec(0..500_u64, 0..300)) {
            let (mut slots, mut gone) = (Slots::new(4, 32), Vec::new());
            for (value, &key) in keys.iter().enumerate() {
                let place = slots.keep(key, value, |value| gone.push(value));
                prop_assert_eq!(slots.find(&key), Some(place));
                prop_assert_eq!(*slots.at(place), value);
            }
            gone.extend(slots.values_mut().map(|&mut value| value));
            gone.sort_unstable();
            prop_assert_eq!(gone, (0..keys.len()).collect::<Vec<_>>());
        }
    }
}
