//! One line of JSON as keys and raw values, so that an error can name the key and show the value as written.

use super::names::Named;
use crate::error::{InputError, Result};
use crate::json_text;
use crate::units::SimTime;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

/// The entries of one object, in file order, borrowed from the line. No key comes twice.
pub(crate) struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Reads `text`, which must be one object and nothing else.
    pub fn parse(text: &'a str) -> Result<Self> {
        let object: Object = serde_json::from_str(text)
            .map_err(|error| json_text::fault(text.as_bytes(), "one JSON object a line", &error))?;
        if let Some(key) = object.duplicate() {
            return Err(InputError::expected("each key once").key(key).found("it twice").into());
        }
        Ok(object)
    }

    fn duplicate(&self) -> Option<&str> {
        if self.0.len() <= 16 {
            let twice = |index: usize| self.0[..index].iter().any(|(key, _)| *key == self.0[index].0);
            return (1..self.0.len()).find(|&index| twice(index)).map(|index| &*self.0[index].0);
        }
        let mut seen = HashSet::new();
        self.0.iter().find(|(key, _)| !seen.insert(&**key)).map(|(key, _)| &**key)
    }

    /// Refuses keys that a line of this type does not have.
    pub fn only(&self, kind: &str, known: &[&str]) -> Result<()> {
        match self.0.iter().find(|(key, _)| !known.contains(&&**key)) {
            None => Ok(()),
            Some((key, _)) => {
                let what = format!("only the keys of {kind}: {}", known.join(", "));
                Err(InputError::expected(what).key(&**key).found("an unknown key").into())
            }
        }
    }

    /// The value of `key`, where it is there.
    pub fn get<'k>(&self, key: &'k str) -> Option<Field<'a, 'k>> {
        let entry = self.0.iter().find(|(known, _)| known == key);
        entry.map(|(_, raw)| Field { key, raw: raw.get() })
    }

    /// The value of `key`.
    pub fn need<'k>(&self, key: &'k str) -> Result<Field<'a, 'k>> {
        self.get(key).ok_or_else(|| InputError::expected("this key").key(key).found("nothing").into())
    }

    /// All entries, in file order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(key, raw)| (&**key, raw.get()))
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut entries = Vec::with_capacity(8);
                while let Some(Key(key)) = map.next_key()? {
                    entries.push((key, map.next_value()?));
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A string that is borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> std::result::Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> std::result::Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// One value as it was written, with its key.
#[derive(Clone, Copy)]
pub(crate) struct Field<'a, 'k> {
    pub key: &'k str,
    pub raw: &'a str,
}

impl<'a> Field<'a, '_> {
    /// The error for this value.
    pub fn bad(&self, expected: impl Into<String>) -> crate::error::Error {
        InputError::expected(expected).key(self.key).found(self.raw).into()
    }

    /// A whole number from `least` to `most`.
    pub fn whole(&self, least: u64, most: u64) -> Result<u64> {
        let number = self.raw.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| self.bad(format!("a whole number from {least} to {most}")))
    }

    /// A string.
    pub fn text(&self) -> Result<Cow<'a, str>> {
        let text = serde_json::from_str::<Key>(self.raw).map_err(|_| self.bad("a string"))?;
        Ok(text.0)
    }

    /// `true` or `false`.
    pub fn yes(&self) -> Result<bool> {
        self.raw.parse().map_err(|_| self.bad("true or false"))
    }

    /// One word of a closed set.
    pub(super) fn choice<T: Named>(&self) -> Result<T> {
        let text = self.text().map_err(|_| self.bad(T::choices()))?;
        T::from_name(&text).ok_or_else(|| self.bad(T::choices()))
    }

    /// Seconds, not negative, exact to the picosecond (rounded to the nearest).
    pub fn seconds(&self) -> Result<SimTime> {
        let ps = decimal_ps(self.raw);
        ps.map(SimTime::from_ps)
            .ok_or_else(|| self.bad("seconds, not negative and below 18446744 (213 days)"))
    }

    /// Whole numbers, put into `out`.
    pub fn wholes(&self, out: &mut Vec<u64>) -> Result<()> {
        out.clear();
        self.elements("whole numbers from 0 to 2^64 - 1", |element| {
            let digits = element.len();
            let number = if (1..20).contains(&digits) && element.iter().all(u8::is_ascii_digit) {
                element.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
            } else {
                std::str::from_utf8(element).ok()?.parse().ok()?
            };
            out.push(number);
            Some(())
        })
    }

    /// The elements of a list, as they are written.
    pub fn list(&self) -> Result<Vec<&'a str>> {
        let list: Vec<&'a RawValue> = serde_json::from_str(self.raw).map_err(|_| self.bad("a list"))?;
        Ok(list.into_iter().map(RawValue::get).collect())
    }

    /// Truth values.
    pub fn yeses(&self) -> Result<Vec<bool>> {
        let mut out = Vec::new();
        self.elements("truth values", |element| {
            out.push(match element {
                b"true" => true,
                b"false" => false,
                _ => return None,
            });
            Some(())
        })?;
        Ok(out)
    }

    /// Gives each element of a flat list to `take`; a value that it refuses is an error that names the place.
    fn elements(&self, what: &str, mut take: impl FnMut(&[u8]) -> Option<()>) -> Result<()> {
        let list = self.raw.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
        let list = list.ok_or_else(|| self.bad(format!("a list of {what}")))?;
        if list.trim_ascii().is_empty() {
            return Ok(());
        }
        for (index, element) in list.as_bytes().split(|&byte| byte == b',').enumerate() {
            if take(element).is_none() && take(element.trim_ascii()).is_none() {
                let found = String::from_utf8_lossy(element.trim_ascii());
                let key = format!("{}[{index}]", self.key);
                return Err(InputError::expected(format!("a list of {what}")).key(key).found(found).into());
            }
        }
        Ok(())
    }
}

/// The picoseconds in a JSON number of seconds, exact, half a picosecond rounded up. `None` where it is negative or
/// does not fit 64 bits.
fn decimal_ps(text: &str) -> Option<u64> {
    match decimal(text, 12)? {
        (false, ps) => u64::try_from(ps).ok(),
        (true, _) => None,
    }
}

/// A decimal number times 10^`shift`, exact, halves rounded away from zero: whether it is below zero, and its size.
/// `None` where it is no number or does not fit 128 bits.
pub(crate) fn decimal(text: &str, shift: i64) -> Option<(bool, u128)> {
    /// More digits than this cannot matter: 10^20 is beyond 2^64.
    const MOST_DIGITS: u32 = 34;
    let (number, exponent) = match text.split_once(['e', 'E']) {
        None => (text, 0),
        Some((number, exponent)) => {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let size = digits.parse().unwrap_or(i64::from(i32::MAX)).min(i64::from(i32::MAX));
            (number, if exponent.starts_with('-') { -size } else { size })
        }
    };
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number),
    };
    let (mut value, mut digits, mut scale, mut point) = (0_u128, 0, exponent.saturating_add(shift), false);
    let mut some = false;
    for byte in number.bytes() {
        match byte {
            b'.' if !point => point = true,
            b'0'..=b'9' => {
                some = true;
                scale -= i64::from(point);
                if digits < MOST_DIGITS {
                    value = value * 10 + u128::from(byte - b'0');
                    digits += u32::from(value > 0);
                } else {
                    scale += 1;
                }
            }
            _ => return None,
        }
    }
    if value == 0 {
        return some.then_some((false, 0));
    }
    let size = if scale >= 0 {
        value.checked_mul(10_u128.checked_pow(u32::try_from(scale).ok()?)?)?
    } else {
        match u32::try_from(-scale).ok().and_then(|scale| 10_u128.checked_pow(scale)) {
            Some(divisor) => (value + divisor / 2) / divisor,
            None => 0,
        }
    };
    Some((negative, size))
}

/// Seconds as a decimal that reads back to the same picosecond: `0.0`, `0.176882`.
pub(super) fn seconds_text(time: SimTime) -> String {
    let (whole, part) = (time.ps() / crate::units::PS_PER_S, time.ps() % crate::units::PS_PER_S);
    let digits = format!("{part:012}");
    let digits = digits.trim_end_matches('0');
    format!("{whole}.{}", if digits.is_empty() { "0" } else { digits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_exact_decimals() {
        for (text, ps) in [
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("0.176882", Some(176_882_000_000)),
            ("1.7e-3", Some(1_700_000_000)),
            ("25E2", Some(2_500_000_000_000_000)),
            ("0.0000000000005", Some(1)),
            ("0.00000000000049", Some(0)),
            ("18446744.073709551615", Some(u64::MAX)),
            ("18446744.073709551616", None),
            ("1e999", None),
            ("1e-999999999999999999999", Some(0)),
            ("1e999999999999999999999", None),
            ("-1", None),
            ("-1e-9", None),
            ("9007199.254740993001", Some(9_007_199_254_740_993_001)),
            ("\"1\"", None),
            ("null", None),
        ] {
            assert_eq!(decimal_ps(text), ps, "{text}");
        }
        for ps in [0, 1, 999, 176_882_000_000, 9_007_199_254_740_993_001, u64::MAX] {
            let text = seconds_text(SimTime::from_ps(ps));
            assert_eq!(decimal_ps(&text), Some(ps), "{text}");
        }
        assert_eq!(seconds_text(SimTime::ZERO), "0.0");
    }

    #[test]
    fn lists_are_flat_and_name_the_bad_element() {
        let mut out = Vec::new();
        let list = |raw| Field { key: "routes", raw };
        list(" [1, 22 ,18446744073709551615]".trim()).wholes(&mut out).unwrap();
        assert_eq!(out, [1, 22, u64::MAX]);
        list("[ ]").wholes(&mut out).unwrap();
        assert!(out.is_empty());
        for (raw, key) in [
            ("[1,-2]", "routes[1]"),
            ("[1,2.0]", "routes[1]"),
            ("[[1],2]", "routes[0]"),
            ("[1,18446744073709551616]", "routes[1]"),
            ("[\"1,2\"]", "routes[0]"),
            ("7", "routes"),
        ] {
            let error = list(raw).wholes(&mut out).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{key}: ")), "{error}");
        }
    }

    #[test]
    fn keys_may_be_escaped_but_not_repeated() {
        let object = Object::parse(r#"{"a":1,"b\n":[2,{"a":3}]}"#).unwrap();
        assert_eq!(object.entries().collect::<Vec<_>>(), [("a", "1"), ("b\n", r#"[2,{"a":3}]"#)]);
        assert!(Object::parse(r#"{"a":1,"\u0061":2}"#).is_err());
        let many: String = (0..40).map(|key| format!("\"k{key}\":0,")).collect();
        assert!(Object::parse(&format!("{{{many}\"k40\":0}}")).is_ok());
        assert!(Object::parse(&format!("{{{many}\"k7\":0}}")).is_err());
    }
}
