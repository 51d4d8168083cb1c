//! The routes of a run in little memory: ids taken in turn from a cycle that runs share.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

/// Most ids that are written out for people.
const SHOWN: u32 = 256;

/// Route of each token of a run, as indices of the route table: `len` ids taken in turn from a shared cycle.
///
/// Token i has the id `cycle[(start + i) % cycle.len()]`. A run that repeats a pattern so takes the same memory however
/// long it is, and runs over one recording share one cycle. A clone shares it too. Two values are equal if they give the
/// same ids in the same order, whatever their cycles.
#[derive(Clone)]
pub struct RouteIds {
    cycle: Arc<[u32]>,
    /// Below the cycle's length, or 0 where that is empty.
    start: u32,
    len: u32,
}

impl RouteIds {
    /// One route for all of `len` tokens.
    pub fn same(id: u32, len: u32) -> Self {
        RouteIds { cycle: Arc::new([id]), start: 0, len }
    }

    /// These ids, one for each token. Ids that are all the same are kept once.
    ///
    /// # Panics
    /// More than `u32::MAX` ids.
    pub fn listed(ids: Vec<u32>) -> Self {
        let len = u32::try_from(ids.len()).expect("a run has fewer than 2^32 tokens");
        let one_for_all = ids.windows(2).all(|pair| pair[0] == pair[1]);
        let kept = if one_for_all { &ids[..ids.len().min(1)] } else { &ids };
        RouteIds { cycle: kept.into(), start: 0, len }
    }

    /// `len` ids in turn from `cycle`, the first at `start` (which counts around the end), the first one again after
    /// the last.
    ///
    /// # Panics
    /// Tokens, but a cycle without ids.
    pub fn cycle(cycle: Arc<[u32]>, start: u32, len: u32) -> Self {
        assert!(len == 0 || !cycle.is_empty(), "{len} tokens take their routes from an empty cycle");
        let start = (start as usize).checked_rem(cycle.len()).unwrap_or(0) as u32;
        RouteIds { cycle, start, len }
    }

    /// Where the cycle lies, which others may share, and its bytes.
    pub(crate) fn cycle_bytes(&self) -> (*const u32, u64) {
        (self.cycle.as_ptr(), size_of_val(&*self.cycle) as u64)
    }

    /// Tokens.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The id of token `index`.
    ///
    /// # Panics
    /// Beyond the last token, as a slice does.
    #[inline]
    pub fn get(&self, index: u32) -> u32 {
        assert!(index < self.len, "token {index} of a run of {}", self.len);
        self.cycle[self.place(index)]
    }

    /// The id of all tokens, where the cycle holds but one.
    #[inline]
    pub fn only(&self) -> Option<u32> {
        if let [id] = self.cycle[..] { Some(id) } else { None }
    }

    /// Where in the cycle a token stands; 0 in an empty cycle.
    #[inline]
    fn place(&self, index: u32) -> usize {
        // Most places lie before the end of the cycle, and a division takes longer than all else here.
        let (at, len) = (self.start as usize + index as usize, self.cycle.len());
        if at < len { at } else { at.checked_rem(len).unwrap_or(0) }
    }

    /// The ids of all tokens, in order.
    pub fn iter(&self) -> Ids<'_> {
        self.range(0, self.len)
    }

    /// The ids of the tokens `from..to`.
    ///
    /// # Panics
    /// Beyond the last token, or a `from` above `to`, as a slice does.
    pub fn range(&self, from: u32, to: u32) -> Ids<'_> {
        assert!(from <= to && to <= self.len, "tokens {from}..{to} of a run of {}", self.len);
        Ids { cycle: &self.cycle, at: self.place(from), left: to - from }
    }

    /// Each place of the cycle that has a token, as its id and how many tokens it has, in order of its first token. An
    /// id that the cycle holds twice comes twice.
    pub fn counted(&self) -> impl Iterator<Item = (u32, u32)> {
        // A cycle of more than 2^32 ids has places that no token can take.
        let places = u32::try_from(self.cycle.len()).unwrap_or(u32::MAX).max(1);
        let (around, more) = (self.len / places, self.len % places);
        let first = self.range(0, self.len.min(places));
        (0..).zip(first).map(move |(index, id)| (id, around + u32::from(index < more)))
    }

    /// The cycle, and where in it the first token stands: below its length, or 0 where it is empty.
    pub fn cycle_parts(&self) -> (&[u32], u32) {
        (&self.cycle, self.start)
    }

    /// The cycle, to be shared.
    pub fn shared_cycle(&self) -> &Arc<[u32]> {
        &self.cycle
    }
}

impl From<Vec<u32>> for RouteIds {
    fn from(ids: Vec<u32>) -> Self {
        RouteIds::listed(ids)
    }
}

impl FromIterator<u32> for RouteIds {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        RouteIds::listed(ids.into_iter().collect())
    }
}

impl Default for RouteIds {
    fn default() -> Self {
        RouteIds::listed(Vec::new())
    }
}

impl PartialEq for RouteIds {
    fn eq(&self, other: &Self) -> bool {
        // Two sequences with periods p and q that agree on their first p + q - gcd(p, q) ids agree for good (N. J. Fine
        // and H. S. Wilf, Uniqueness theorems for periodic functions, 1965).
        let enough = self.cycle.len() + other.cycle.len();
        let shared = Arc::ptr_eq(&self.cycle, &other.cycle) && self.start == other.start;
        self.len == other.len && (shared || self.iter().take(enough).eq(other.iter().take(enough)))
    }
}

impl Eq for RouteIds {}

/// The ids one by one, or the cycle where there are more than 256.
impl fmt::Debug for RouteIds {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.len <= SHOWN {
            return f.debug_list().entries(self).finish();
        }
        let mut parts = f.debug_struct("RouteIds");
        parts.field("cycle", &self.cycle).field("start", &self.start).field("len", &self.len).finish()
    }
}

impl<'a> IntoIterator for &'a RouteIds {
    type Item = u32;
    type IntoIter = Ids<'a>;

    fn into_iter(self) -> Ids<'a> {
        self.iter()
    }
}

/// Ids of consecutive tokens.
#[derive(Clone, Debug)]
pub struct Ids<'a> {
    cycle: &'a [u32],
    at: usize,
    left: u32,
}

impl Iterator for Ids<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let id = self.cycle[self.at];
        self.at += 1;
        if self.at == self.cycle.len() {
            self.at = 0;
        }
        Some(id)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Ids<'_> {}
impl FusedIterator for Ids<'_> {}
