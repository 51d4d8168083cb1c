//! Prices of recent shapes. A step repeats a few shapes in every layer, so most prices are found here.

use super::{Device, Price, Recent};
use crate::kernel::Kernel;
use std::hash::{BuildHasher, Hasher};

/// A direct-mapped cache: one slot for each hash, newer shapes push out older ones. Holds the whole shape, so that a
/// collision costs a pricing and never an error.
pub struct PriceCache {
    slots: Vec<Option<(Kernel, Price)>>,
    /// Shapes that gave way to others since there were so many slots.
    pushed_out: usize,
    /// The last attention call. Its context lengths come back at the next layers or never, so it takes no slot.
    attention: Option<(Kernel, Price)>,
    recent: Recent,
    hasher: FoldHasher,
}

/// Slots at first and at most; powers of two. 2^14 shapes take about 2 MB and cover the layers of a step with room to spare.
const SLOTS: (usize, usize) = (1 << 9, 1 << 14);

impl Default for PriceCache {
    fn default() -> Self {
        PriceCache {
            slots: vec![None; SLOTS.0],
            pushed_out: 0,
            attention: None,
            recent: Recent::default(),
            hasher: FoldHasher(0),
        }
    }
}

impl PriceCache {
    /// The price of `kernel` on `device`; always use one cache with one device.
    #[inline]
    pub fn price(&mut self, device: &Device, kernel: &Kernel) -> Price {
        if let Kernel::Attention(_) = kernel {
            return match &self.attention {
                Some((known, price)) if known == kernel => *price,
                _ => {
                    let price = device.price_beside(kernel, &mut self.recent);
                    self.attention = Some((*kernel, price));
                    price
                }
            };
        }
        match &self.slots[self.slot(kernel)] {
            Some((known, price)) if known == kernel => *price,
            _ => {
                let price = device.price_beside(kernel, &mut self.recent);
                if self.pushed_out > self.slots.len() / 4 && self.slots.len() < SLOTS.1 {
                    self.grow();
                }
                self.keep(*kernel, price);
                price
            }
        }
    }

    #[inline]
    fn slot(&self, kernel: &Kernel) -> usize {
        (self.hasher.hash_one(kernel) >> (64 - self.slots.len().trailing_zeros())) as usize
    }

    fn keep(&mut self, kernel: Kernel, price: Price) {
        let slot = self.slot(&kernel);
        self.pushed_out += usize::from(self.slots[slot].replace((kernel, price)).is_some());
    }

    fn grow(&mut self) {
        let slots = vec![None; 4 * self.slots.len()];
        let before = std::mem::replace(&mut self.slots, slots);
        before.into_iter().flatten().for_each(|(kernel, price)| self.keep(kernel, price));
        self.pushed_out = 0;
    }
}

/// Multiply-and-rotate hashing of whole words: quick, and only which slot is reused depends on it.
#[derive(Clone, Copy, Default)]
pub struct FoldHasher(u64);

impl BuildHasher for FoldHasher {
    type Hasher = FoldHasher;
    fn build_hasher(&self) -> FoldHasher {
        *self
    }
}

impl Hasher for FoldHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }
    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }
    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
    fn write_u64(&mut self, value: u64) {
        // 2^64 / golden ratio, as in Fibonacci hashing (Knuth, TAOCP 3, 6.4).
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn finish(&self) -> u64 {
        // Low bits of a product know nothing of the high bits of its factors, and tables of `std` look at the low ones.
        self.0 ^ (self.0 >> 32)
    }
}
