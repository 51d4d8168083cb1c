//! The longest contexts of generated tokens, group by group.

/// Lists of the largest numbers put in each, descending; 0 where there were fewer.
#[derive(Debug, Default)]
pub(super) struct Longest {
    most: usize,
    all: Vec<u32>,
}

impl Longest {
    /// Begins anew: so many lists of so many numbers.
    pub fn begin(&mut self, lists: usize, most: usize) {
        self.most = most;
        self.all.clear();
        self.all.resize(lists * most, 0);
    }

    /// Whether nobody wants any.
    #[inline]
    pub fn is_off(&self) -> bool {
        self.most == 0
    }

    /// A further list. Returns its place.
    pub fn list(&mut self) -> u32 {
        let place = self.all.len().checked_div(self.most).unwrap_or(0);
        self.all.resize(self.all.len() + self.most, 0);
        place as u32
    }

    /// The list at a place.
    pub fn of(&self, place: u32) -> &[u32] {
        &self.all[place as usize * self.most..][..self.most]
    }

    /// Forgets what a list holds.
    pub fn clear(&mut self, place: u32) {
        self.all[place as usize * self.most..][..self.most].fill(0);
    }

    /// Puts in the numbers of another list that are not 0, each larger by `more`.
    pub fn extend(&mut self, place: u32, other: &[u32], more: u64) {
        let list = &mut self.all[place as usize * self.most..][..self.most];
        if list.first().is_some_and(|&first| first == 0) {
            list.copy_from_slice(other);
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            list.iter_mut()
                .filter(|entries| **entries > 0)
                .for_each(|entries| *entries = entries.saturating_add(more));
            return;
        }
        other
            .iter()
            .filter(|&&entries| entries > 0)
            .for_each(|&entries| self.insert(place, u64::from(entries) + more));
    }

    #[inline]
    pub fn insert(&mut self, place: u32, entries: u64) {
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        let list = &mut self.all[place as usize * self.most..][..self.most];
        if list.last().is_some_and(|&last| last < entries) {
            let at = list.partition_point(|&known| known >= entries);
            list[at..].rotate_right(1);
            list[at] = entries;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Longest;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lists_are_the_largest_in_order(
            values in prop::collection::vec((0_u32..3, 0_u64..50), 0..60),
            of_another in prop::collection::vec(1_u64..50, 0..20),
            most in 0_usize..9,
        ) {
            let mut lists = Longest::default();
            lists.begin(2, most);
            prop_assert_eq!(lists.is_off(), most == 0);
            lists.list();
            let mut other = Longest::default();
            other.begin(1, most);
            of_another.iter().for_each(|&value| other.insert(0, value));
            lists.extend(1, other.of(0), 7);
            let both: Vec<(u32, u64)> =
                values.iter().copied().chain(of_another.iter().map(|value| (1, value + 7))).collect();
            lists.extend(2, other.of(0), 0);
            let both: Vec<_> = both.into_iter().chain(of_another.iter().map(|&value| (2, value))).collect();
            values.iter().for_each(|&(place, value)| lists.insert(place, value));
            for place in 0..3 {
                let mut naive: Vec<u64> = both.iter().filter(|(at, _)| *at == place).map(|&(_, value)| value).collect();
                naive.sort_unstable_by(|a, b| b.cmp(a));
                naive.resize(most, 0);
                naive.truncate(most);
                let got: Vec<u64> = lists.of(place).iter().copied().map(u64::from).collect();
                prop_assert_eq!(got, naive);
            }
        }
    }
}
