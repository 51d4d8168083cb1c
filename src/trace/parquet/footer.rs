//! Looks through a footer and page headers before the `parquet` crate does: it reserves memory for as many fields of a group as the footer
//! says, and counts as many true or false as a list says, which take it no byte each.
//!
//! A footer is a struct of Thrift's compact protocol (`thrift-compact-protocol.md` of Apache Thrift) by the definitions of `parquet.thrift`:
//! field 2 is the schema, a list of elements, field 5 of an element the number of its children.

use crate::error::{InputError, Result};

/// What is left to be read; `None` out of any of its functions where the bytes are no such protocol.
struct Compact<'a>(&'a [u8]);

/// Structs and lists within each other, at most.
const DEPTH: u32 = 32;

/// Field of the footer that holds the schema, and of a schema's element that holds the number of children.
const SCHEMA: i64 = 2;
const CHILDREN: i64 = 5;

const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// Whether `bytes` begin with a whole struct.
pub(super) fn begins_with_struct(bytes: &[u8]) -> bool {
    Compact(bytes).pass(STRUCT, false, DEPTH).is_some()
}

/// Refuses a schema whose groups together have another number of fields than there are elements beside the first.
///
/// # Errors
/// Such a schema, and a footer that is none.
pub(super) fn check(footer: &[u8]) -> Result<()> {
    let Some((elements, children)) = Compact(footer).schema() else {
        let what = "a whole Parquet file with the columns of a trace";
        return Err(InputError::expected(what).found("a footer that cannot be read").into());
    };
    if children.checked_add(1) != Some(elements) {
        let what = "a schema whose groups have as many fields as follow them";
        let found = format!("{children} fields, {elements} elements");
        return Err(InputError::expected(what).key("schema").found(found).into());
    }
    Ok(())
}

impl Compact<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    /// A number of seven bits a byte, lowest first.
    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// The same where odd numbers are negative ones.
    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// Number and kind of the next field, after the field `before`; `None` within at the end of the struct.
    fn field(&mut self, before: i64) -> Option<Option<(i64, u8)>> {
        let head = self.byte()?;
        match (head >> 4, head & 0x0f) {
            (_, 0) => Some(None),
            (0, kind) => Some(Some((self.signed()?, kind))),
            (further, kind) => Some(Some((before.checked_add(further.into())?, kind))),
        }
    }

    /// Length and kind of the elements of a list.
    fn list(&mut self) -> Option<(u64, u8)> {
        let head = self.byte()?;
        let length = if head >> 4 == 15 { self.number()? } else { u64::from(head >> 4) };
        Some((length, head & 0x0f))
    }

    /// Passes over a value. True and false are in their fields' kinds; neither a footer nor a page header has lists or maps of them.
    fn pass(&mut self, kind: u8, in_list: bool, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            1 | 2 if !in_list => Some(()),
            3 => self.skip(1),
            4..=6 => self.number().map(drop),
            7 => self.skip(8),
            8 => {
                let length = self.number()?;
                self.skip(length)
            }
            LIST | 10 => {
                let (length, kind) = self.list()?;
                (0..length).try_for_each(|_| self.pass(kind, true, depth))
            }
            11 => {
                let length = self.number()?;
                if length == 0 {
                    return Some(());
                }
                let kinds = self.byte()?;
                (0..length).try_for_each(|_| {
                    self.pass(kinds >> 4, true, depth)?;
                    self.pass(kinds & 0x0f, true, depth)
                })
            }
            STRUCT => {
                let mut before = 0;
                while let Some((field, kind)) = self.field(before)? {
                    self.pass(kind, false, depth)?;
                    before = field;
                }
                Some(())
            }
            13 => self.skip(16),
            _ => None,
        }
    }

    /// Elements of the schema, and the sum of their children.
    fn schema(mut self) -> Option<(u64, u64)> {
        let (mut before, mut sums) = (0, None);
        while let Some((field, kind)) = self.field(before)? {
            before = field;
            if (field, kind) != (SCHEMA, LIST) || sums.is_some() {
                self.pass(kind, false, DEPTH)?;
                continue;
            }
            let (elements, STRUCT) = self.list()? else { return None };
            let mut all = 0u64;
            for _ in 0..elements {
                all = all.checked_add(self.children()?)?;
            }
            sums = Some((elements, all));
        }
        sums
    }

    /// Children of one element.
    fn children(&mut self) -> Option<u64> {
        let (mut before, mut children) = (0, 0);
        while let Some((field, kind)) = self.field(before)? {
            before = field;
            if (field, kind) == (CHILDREN, 5) {
                children = u64::try_from(self.signed()?).ok()?;
            } else {
                self.pass(kind, false, DEPTH)?;
            }
        }
        Some(children)
    }
}

#[cfg(test)]
mod tests {
    use super::{begins_with_struct, check};

    /// A footer with a schema of one element and, behind it, field 11 as `behind` says.
    fn footer(behind: &[u8]) -> Vec<u8> {
        [&[0x29, 0x1c, 0x48, 1, b's', 0, 0x99][..], behind, &[0]].concat()
    }

    /// A list of 2^31 - 1 times true takes five bytes and, in a list of such lists, hours.
    #[test]
    fn what_is_counted_is_there() {
        let many = [0xf3, 0xff, 0xff, 0xff, 0xff, 0x07];
        let truths = |kind: u8| [&[0xf0 | kind], &many[1..]].concat();
        assert!(check(&footer(&[0x23, 1, 2])).is_ok(), "two bytes");
        for bad in [many.to_vec(), truths(1), truths(2), vec![0x11, 1], [&[0x19], &truths(2)[..]].concat()] {
            assert!(check(&footer(&bad)).is_err(), "{bad:?}");
        }
        // What follows the schema is looked at too; a schema without children has one element.
        assert!(check(&footer(&[0x23, 1, 2])[..8]).is_err(), "cut off");
    }

    #[test]
    fn a_page_header_ends_or_is_none() {
        let header = [0x15, 0, 0x15, 0xd8, 0x04, 0x15, 0, 0];
        assert!(begins_with_struct(&header) && begins_with_struct(&[&header[..], &[0xff; 9]].concat()));
        assert!(!begins_with_struct(&header[..7]) && !begins_with_struct(&[0x19, 0xf1, 0xff, 0x7f, 0]));
    }
}
