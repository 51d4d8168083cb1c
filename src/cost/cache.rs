//! Prices of recent shapes. A step repeats a few shapes in every layer, so most prices are found here.

use super::slots::Slots;
use super::{Device, Price, Recent};
use crate::kernel::Kernel;
use std::hash::{BuildHasher, Hasher};

/// The prices of shapes by the whole shape, and of the last attention call.
pub struct PriceCache {
    slots: Slots<Kernel, Price>,
    /// The last attention call. Its context lengths come back at the next layers or never, so it takes no slot.
    attention: Option<(Kernel, Price)>,
    recent: Recent,
}

/// Slots at first and at most. 2^14 shapes take about 2 MB and cover the layers of a step with room to spare.
const SLOTS: (usize, usize) = (1 << 9, 1 << 14);

impl Default for PriceCache {
    fn default() -> Self {
        PriceCache { slots: Slots::new(SLOTS.0, SLOTS.1), attention: None, recent: Recent::default() }
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
        if let Some(place) = self.slots.find(kernel) {
            return *self.slots.at(place);
        }
        let price = device.price_beside(kernel, &mut self.recent);
        self.slots.keep(*kernel, price, drop);
        price
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
