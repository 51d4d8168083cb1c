//! Reads fabrics, from files and from those built into the program, and checks every number in them.

use super::{Collectives, Curve, Exchange, Fabric, Level};
use crate::error::{Error, InputError, Result, hint};
use crate::hw::load::{check_source, check_words, written};
use crate::hw::{Held, Sourced};
use crate::ron_text;
use std::path::Path;

/// Larger files are refused before they are read.
const MOST_BYTES: u64 = 1 << 20;
/// Levels of a fabric.
const MOST_LEVELS: usize = 4;
/// Devices that a level joins.
const MOST_UNITS: f64 = 65536.0;
/// Nothing in a file is larger.
const LARGEST: f64 = 1e9;

macro_rules! shipped {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../../hw-profiles/fabrics/", $name, ".ron")))),*]
    };
}

/// Stem and text of each file of `hw-profiles/fabrics/`, in the order in which lists show them.
const SHIPPED: &[(&str, &str)] = shipped! {
    "nvidia-hgx-b200"
    "nvidia-hgx-h200"
    "nvidia-hgx-h100"
    "nvidia-hgx-h100.fitted"
    "nvidia-hgx-a100"
    "nvidia-hgx-a100.fitted"
    "pcie4-l40s"
    "pcie4-l40s.fitted"
    "pcie4-rtx-4090"
    "pcie5-rtx-pro-6000"
    "pcie5-rtx-pro-6000.fitted"
    "amd-xgmi-mi300x"
    "infiniband-ndr"
    "infiniband-ndr.fitted"
    "infiniband-hdr"
    "infiniband-hdr.fitted"
    "roce-400"
};

/// Machines in which devices are sold: profile and fabric.
const USUAL: [(&str, &str); 9] = [
    ("nvidia-b200-sxm", "nvidia-hgx-b200"),
    ("nvidia-h200-sxm", "nvidia-hgx-h200"),
    ("nvidia-h100-sxm", "nvidia-hgx-h100"),
    ("nvidia-a100-sxm-80gb", "nvidia-hgx-a100"),
    ("nvidia-a100-sxm-40gb", "nvidia-hgx-a100"),
    ("nvidia-l40s", "pcie4-l40s"),
    ("nvidia-rtx-4090", "pcie4-rtx-4090"),
    ("nvidia-rtx-pro-6000", "pcie5-rtx-pro-6000"),
    ("amd-mi300x", "amd-xgmi-mi300x"),
];

impl Fabric {
    /// The shipped fabric of the machines in which a device is sold; none where that is not known.
    pub fn usual(device: &str) -> Option<&'static str> {
        USUAL.iter().find(|(name, _)| *name == device).map(|(_, fabric)| *fabric)
    }

    /// The fabric that a user means: a file (an existing path, or anything ending in `.ron`), a shipped name, or several of these with `+` between
    /// them, from the inside: `nvidia-hgx-h100+infiniband-ndr`. Where `X.fitted.ron` lies beside `X.ron`, it wins.
    pub fn resolve(words: &str) -> Result<Fabric> {
        if Path::new(words).is_file() {
            return Fabric::one(words);
        }
        let mut parts = words.split('+').map(|part| Fabric::one(part.trim()));
        let mut whole = parts.next().expect("a split has a first part")?;
        for part in parts {
            let part = part?;
            whole.name = format!("{}+{}", whole.name, part.name);
            whole.title = format!("{}, joined by {}", whole.title, part.title);
            whole.levels.extend(part.levels);
        }
        whole.check()?;
        Ok(whole)
    }

    fn one(name_or_path: &str) -> Result<Fabric> {
        let path = Path::new(name_or_path);
        if !name_or_path.ends_with(".ron") && !path.is_file() {
            return Fabric::shipped(name_or_path);
        }
        let fitted = path.with_extension("fitted.ron");
        let is_fitted = name_or_path.ends_with(".fitted.ron");
        Fabric::load(if !is_fitted && fitted.is_file() { &fitted } else { path })
    }

    /// Reads and checks a fabric file.
    pub fn load(path: impl AsRef<Path>) -> Result<Fabric> {
        let path = path.as_ref();
        Fabric::parse(&ron_text::read(path, "a fabric", MOST_BYTES)?, path)
    }

    /// The fabric of this name that is built into the program; a fitted one wins over the one by data sheets.
    pub fn shipped(name: &str) -> Result<Fabric> {
        let fitted = format!("{name}.fitted");
        let is_fitted = SHIPPED.iter().any(|(stem, _)| *stem == fitted);
        Fabric::built_in(if is_fitted { &fitted } else { name })
    }

    /// The fabric of this name that is built into the program and that no fit has changed.
    pub fn datasheet(name: &str) -> Result<Fabric> {
        Fabric::built_in(name)
    }

    fn built_in(name: &str) -> Result<Fabric> {
        let Some((stem, text)) = SHIPPED.iter().find(|(stem, _)| *stem == name) else {
            let names = Fabric::shipped_names();
            let near = hint(name, names.iter().copied());
            let expected =
                format!("a fabric file (.ron), one of {}, or several with + between{near}", names.join(", "));
            return Err(InputError::expected(expected).key("fabric").found(name).into());
        };
        Fabric::parse(text, format!("hw-profiles/fabrics/{stem}.ron"))
    }

    /// Names of the fabrics built into the program.
    pub fn shipped_names() -> Vec<&'static str> {
        SHIPPED.iter().map(|(stem, _)| *stem).filter(|stem| !stem.ends_with(".fitted")).collect()
    }

    /// Reads and checks the text of a fabric; `file` is named in errors.
    pub fn parse(text: &str, file: impl AsRef<Path>) -> Result<Fabric> {
        let mut fabric: Fabric =
            ron_text::parse(text, "a fabric in RON").map_err(|error| error.file(&file))?;
        let line = |fabric: &Fabric, mut error: InputError| {
            error.line = error.key.as_deref().and_then(|key| fabric.line_of(text, key));
            error.file(&file)
        };
        fabric.check().map_err(|error| line(&fabric, error))?;
        for place in 0..fabric.levels.len() {
            let lender = fabric.levels[place].lender();
            fabric.levels[place].lender = match lender {
                Err(Error::Input(error)) => return Err(line(&fabric, at_level(place, *error)).into()),
                lender => lender?.map(Box::new),
            };
        }
        Ok(fabric)
    }

    /// The fabric as a file: what [`Fabric::parse`] reads.
    pub fn text(&self) -> String {
        written(self)
    }

    /// Every number by its key path, from the inside. What a level does not have is left out.
    pub fn numbers(&self) -> Vec<(String, &Sourced)> {
        let mut out = Vec::new();
        for (place, level) in self.levels.iter().enumerate() {
            let Level { units, gb_per_s, pair_gb_per_s, latency_us, .. } = level;
            for (name, number) in [
                ("units", Some(units)),
                ("gb_per_s", Some(gb_per_s)),
                ("pair_gb_per_s", pair_gb_per_s.as_ref()),
                ("latency_us", Some(latency_us)),
            ] {
                out.extend(number.map(|number| (format!("levels[{place}].{name}"), number)));
            }
        }
        out
    }

    /// Refuses what no fabric can have.
    pub fn check(&self) -> std::result::Result<(), InputError> {
        check_words("name", &self.name)?;
        check_words("title", &self.title)?;
        if !(1..=MOST_LEVELS).contains(&self.levels.len()) {
            let found = format!("{} levels", self.levels.len());
            return Err(InputError::expected(format!("1 to {MOST_LEVELS} levels"))
                .key("levels")
                .found(found));
        }
        for (key, number) in self.numbers() {
            let Sourced { value, source } = number;
            let (holds, words) = match key.rsplit('.').next().unwrap_or_default() {
                "units" => (
                    (2.0..=MOST_UNITS).contains(value) && value.fract() == 0.0,
                    "a whole number from 2 to 65536",
                ),
                "latency_us" => ((0.0..=LARGEST).contains(value), "a number from 0 to 1e9"),
                _ => (*value > 0.0 && *value <= LARGEST, "a number above 0, at most 1e9"),
            };
            if !holds {
                return Err(InputError::expected(words).key(key).found(value));
            }
            check_source(&key, source)?;
        }
        self.levels
            .iter()
            .enumerate()
            .try_for_each(|(place, level)| level.check().map_err(|error| at_level(place, error)))
    }

    /// Line of a key path, where `levels[1].units` is the one of the second level.
    fn line_of(&self, text: &str, key: &str) -> Option<u64> {
        let Some((before, rest)) = key.split_once('[') else { return ron_text::line_of(text, key) };
        let (place, after) = rest.split_once(']')?;
        let first = after.split('.').nth(1).unwrap_or_default();
        let earlier = self.levels.iter().take(place.parse().ok()?).filter(|level| level.has(first)).count();
        ron_text::line_of_nth(text, &format!("{before}{after}"), earlier)
    }
}

/// A mistake in a level.
fn at_level(place: usize, mut error: InputError) -> InputError {
    error.key = error.key.map(|key| format!("levels[{place}].{key}"));
    error
}

impl Level {
    /// The level of the shipped fabric that `lent` names.
    fn lender(&self) -> Result<Option<Level>> {
        let Some(loan) = &self.lent else { return Ok(None) };
        let wrong = |expected: &str| InputError::expected(expected).key("lent.from").found(&loan.from);
        if !Fabric::shipped_names().contains(&loan.from.as_str()) {
            return Err(wrong(&format!("one of {}", Fabric::shipped_names().join(", "))).into());
        }
        let lender = Fabric::shipped(&loan.from)?.levels.swap_remove(0);
        if lender.collectives.is_none() {
            return Err(wrong("a fabric whose collectives were measured").into());
        }
        Ok(Some(lender))
    }

    /// Whether the file has this key.
    fn has(&self, key: &str) -> bool {
        match key {
            "pair_gb_per_s" => self.pair_gb_per_s.is_some(),
            "capability" => self.capability.is_some(),
            "lent" => self.lent.is_some(),
            "collectives" => self.collectives.is_some(),
            _ => true,
        }
    }

    fn check(&self) -> std::result::Result<(), InputError> {
        check_words("name", &self.name)?;
        if let Some(pair) = &self.pair_gb_per_s
            && pair.value > self.gb_per_s.value
        {
            let expected = format!("at most {}, which is gb_per_s", self.gb_per_s.value);
            return Err(InputError::expected(expected).key("pair_gb_per_s").found(pair.value));
        }
        if let Some(loan) = &self.lent {
            check_source("lent.source", &loan.source)?;
            if !loan.error.is_sound() {
                return Err(InputError::expected("errors in percent, none below 0").key("lent.error"));
            }
        }
        let Some(collectives) = &self.collectives else { return Ok(()) };
        let Collectives { gb_per_s, source, curves, exchanges } = collectives;
        if !(*gb_per_s > 0.0 && *gb_per_s <= LARGEST) {
            let expected = "a number above 0, at most 1e9";
            return Err(InputError::expected(expected).key("collectives.gb_per_s").found(gb_per_s));
        }
        check_source("collectives.source", source)?;
        for (place, curve) in curves.iter().enumerate() {
            let twin = |other: &Curve| other.same_call(curve) && other.devices == curve.devices;
            if curves[..place].iter().any(twin) {
                let found = format!("{} twice", curve.words());
                return Err(InputError::expected("each curve once").key("collectives.curves").found(found));
            }
            curve.check(self.units.value).map_err(|expected| {
                InputError::expected(expected).key("collectives.curves").found(curve.words())
            })?;
        }
        exchanges.iter().try_for_each(|exchange| {
            exchange.check().map_err(|expected| InputError::expected(expected).key("collectives.exchanges"))
        })
    }
}

impl Curve {
    /// Whether both are the same operation by the same library in the same mode.
    pub fn same_call(&self, other: &Curve) -> bool {
        (self.operation, self.library, self.mode) == (other.operation, other.library, other.mode)
    }

    /// What it is a curve of, in words.
    pub fn words(&self) -> String {
        let Curve { operation, library, mode, devices, .. } = self;
        format!("{} {} {} on {devices}", operation.name(), library.name(), mode.name())
    }

    fn check(&self, units: f64) -> std::result::Result<(), &'static str> {
        if self.devices < 2 || f64::from(self.devices) > units {
            return Err("from 2 devices to the units of the level");
        }
        let knots = &self.knots;
        let sound = knots.iter().all(|&(bytes, us)| bytes > 0 && us > 0.0 && us <= LARGEST);
        let rising = knots.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        if knots.len() < 2 || !sound || !rising {
            return Err("2 knots or more, sizes above 0 and rising, times above 0 and never falling");
        }
        if !self.switches.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err("rising switches");
        }
        if ![self.sizes, self.others].into_iter().flatten().all(Held::is_sound) {
            return Err("errors in percent, none below 0");
        }
        Ok(())
    }
}

impl Exchange {
    fn check(&self) -> std::result::Result<(), &'static str> {
        let Exchange { start_us, us_per_expert, us_per_value, us_per_token, gb_per_s, gb_per_s_each, .. } =
            self;
        let times = [start_us, us_per_expert, us_per_value, us_per_token];
        if !times.iter().all(|number| (0.0..=LARGEST).contains(*number)) {
            return Err("times from 0 to 1e9");
        }
        if ![gb_per_s, gb_per_s_each].iter().all(|number| **number > 0.0 && **number <= LARGEST) {
            return Err("bandwidths above 0, at most 1e9");
        }
        if self.devices < 2 || self.tokens.0 > self.tokens.1 || !self.error.is_sound() {
            return Err("2 devices or more, the lower bound of tokens first, errors none below 0");
        }
        Ok(())
    }
}
