//! Hashes of prompt blocks: how many tokens each stands for, told from lengths and counts.

use super::super::Remark;
use crate::error::{InputError, Result};

/// Prompt tokens that one of Mooncake's hashes stands for (Qin et al., Mooncake, FAST 2025: blocks of 512 tokens). A hash
/// covers everything before its block too, so that equal hashes are equal prefixes.
pub const MOONCAKE_BLOCK: u32 = 512;
/// The same of the traces of Alibaba's Bailian (the names of its files say it: `blksz_16`).
pub const BAILIAN_BLOCK: u32 = 16;

/// What block sizes fit the hashes so far: `n` hashes of a prompt of `L` tokens, the last for the rest, are blocks of at least L/n and
/// less than L/(n - 1) tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    /// The size that is stated, or else the format's own.
    stated: Option<u32>,
    usual: u32,
    least: u32,
    most: u32,
}

impl Blocks {
    pub fn new(stated: Option<u32>, usual: u32) -> Self {
        Blocks { stated, usual, least: 1, most: u32::MAX }
    }

    /// Takes the hashes of a prompt of at least one token.
    pub fn take(&mut self, tokens: u32, hashes: usize) -> Result<()> {
        let bad = |what: String| {
            let found = format!("{hashes} hashes for {tokens} prompt tokens");
            Err(InputError::expected(what).key("hash_ids").found(found).into())
        };
        if let Some(block) = self.stated {
            let right = tokens.div_ceil(block) as usize;
            return if hashes == right {
                Ok(())
            } else {
                bad(format!("{right} hashes, one for each {block} prompt tokens"))
            };
        }
        let count = u32::try_from(hashes).unwrap_or(u32::MAX);
        let (least, most) = (
            tokens.div_ceil(count),
            match count {
                1 => u32::MAX,
                more => (tokens - 1) / (more - 1),
            },
        );
        if least > self.most || most < self.least || least > most {
            let before = match (self.least, self.most) {
                (1, u32::MAX) => "blocks of at least one token".to_owned(),
                (least, u32::MAX) => format!("blocks of {least} tokens or more, as the lines before"),
                (least, most) if least == most => format!("blocks of {least} tokens, as the lines before"),
                (least, most) => format!("blocks of {least} to {most} tokens, as the lines before"),
            };
            return bad(format!("a hash for each block of the prompt, {before}"));
        }
        (self.least, self.most) = (self.least.max(least), self.most.min(most));
        Ok(())
    }

    /// The size, and a remark where it is not the format's own: the only one that fits, or the only power of two.
    pub fn settle(&self) -> Result<(u32, Option<Remark>)> {
        if let Some(block) = self.stated {
            return Ok((block, None));
        }
        let fits = self.least..=self.most;
        if fits.contains(&self.usual) {
            return Ok((self.usual, None));
        }
        let powers: Vec<u32> = (0..32).map(|power| 1 << power).filter(|size| fits.contains(size)).collect();
        let told = match powers.as_slice() {
            _ if self.least == self.most => self.least,
            [only] => *only,
            _ => {
                let most = if self.most == u32::MAX { "any number of".into() } else { self.most.to_string() };
                let found = format!("hashes that fit blocks of {} to {most} tokens", self.least);
                let what = format!("hashes of {} tokens, or block_tokens with their number", self.usual);
                return Err(InputError::expected(what).key("hash_ids").found(found).into());
            }
        };
        let why = "prompt tokens of a hash, told from lengths and numbers of hashes";
        Ok((told, Some(Remark::new("block_tokens", told, why))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Prompts of blocks of a power of two give their size back, once one is long enough; another count is refused.
        #[test]
        fn sizes_are_told(power in 2..12_u32, lengths in prop::collection::vec(1..9000_u32, 1..20)) {
            let size = 1 << power;
            let mut blocks = Blocks::new(None, 0);
            for &length in &lengths {
                blocks.take(length, length.div_ceil(size) as usize).unwrap();
            }
            let long = 64 * size;
            blocks.take(long, 64).unwrap();
            let (told, remark) = blocks.settle().unwrap();
            prop_assert_eq!((told, remark.is_some()), (size, true));
            prop_assert!(blocks.take(long, 65).is_err() && blocks.take(long, 32).is_err());
            let mut stated = Blocks::new(Some(size), 512);
            stated.take(long, 64).unwrap();
            prop_assert!(stated.take(long, 63).is_err());
            prop_assert_eq!(stated.settle().unwrap(), (size, None));
        }
    }

    #[test]
    fn what_could_be_many_sizes_is_asked_for() {
        let mut blocks = Blocks::new(None, MOONCAKE_BLOCK);
        blocks.take(700, 1).unwrap();
        let error = blocks.settle().unwrap_err().to_string();
        assert!(error.contains("700 to any number of tokens") && error.contains("block_tokens"), "{error}");
        let mut short = Blocks::new(None, BAILIAN_BLOCK);
        short.take(12, 1).unwrap();
        assert_eq!(short.settle().unwrap(), (16, None));
        short.take(40, 3).unwrap();
        let error = short.take(40, 1).unwrap_err().to_string();
        assert!(error.contains("1 hashes for 40 prompt tokens") && error.contains("14 to 19"), "{error}");
    }
}
