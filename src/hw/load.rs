//! Reads profiles, from files and from the ones built into the program, and checks every number in them.

use super::{
    Clocks, Compute, Efficiency, Hardware, HostLinks, Kernels, Launch, Memory, Power, Sampler, Source,
    Sourced,
};
use crate::error::{InputError, Result, hint};
use crate::ron_text;
use crate::units::SourceKind;
use std::collections::BTreeMap;
use std::path::Path;

/// Larger files are refused before they are read; shipped ones have about 10 kB.
const MOST_BYTES: u64 = 1 << 20;

/// Nothing in a profile is larger; keeps products of two numbers far from infinity.
const LARGEST: f64 = 1e12;

macro_rules! shipped {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../hw-profiles/", $name, ".ron")))),*]
    };
}

/// Stem and text of each file of `hw-profiles/`, in the order in which lists show them.
const SHIPPED: &[(&str, &str)] = shipped! {
    "nvidia-b200-sxm"
    "nvidia-b200-sxm.fitted"
    "nvidia-h200-sxm"
    "nvidia-h200-sxm.fitted"
    "nvidia-h100-sxm"
    "nvidia-h100-sxm.fitted"
    "nvidia-h100-pcie"
    "nvidia-a100-sxm-80gb"
    "nvidia-a100-sxm-80gb.fitted"
    "nvidia-a100-sxm-40gb"
    "nvidia-v100-sxm"
    "nvidia-l40s"
    "nvidia-l40s.fitted"
    "nvidia-l4"
    "nvidia-t4"
    "nvidia-rtx-pro-6000"
    "nvidia-rtx-pro-6000.fitted"
    "nvidia-rtx-4090"
    "nvidia-rtx-4090.fitted"
    "nvidia-jetson-orin"
    "amd-mi300x"
    "amd-mi250"
    "amd-mi210"
    "google-tpu-v5e"
    "generic-cpu-2core"
    "mesa-llvmpipe-1-thread"
    "ideal"
};

/// A constant that nobody published or measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumption<'a> {
    /// Where it stands: `memory.l2_gb_per_s`.
    pub key: String,
    /// Its value, as text.
    pub value: String,
    /// The reasoning behind it.
    pub text: &'a str,
}

impl Hardware {
    /// The profile that a user means: a file (an existing path, or anything ending in `.ron`), or else a shipped name.
    ///
    /// Where `X.fitted.ron` lies beside `X.ron`, it wins.
    pub fn resolve(name_or_path: &str) -> Result<Hardware> {
        let path = Path::new(name_or_path);
        if !name_or_path.ends_with(".ron") && !path.is_file() {
            return Hardware::shipped(name_or_path);
        }
        let fitted = path.with_extension("fitted.ron");
        let is_fitted = name_or_path.ends_with(".fitted.ron");
        Hardware::load(if !is_fitted && fitted.is_file() { &fitted } else { path })
    }

    /// Reads and checks a profile file.
    pub fn load(path: impl AsRef<Path>) -> Result<Hardware> {
        let path = path.as_ref();
        Hardware::parse(&ron_text::read(path, "a profile", MOST_BYTES)?, path)
    }

    /// The profile of this name that is built into the program; a fitted one wins over the datasheet one.
    pub fn shipped(name: &str) -> Result<Hardware> {
        let fitted = format!("{name}.fitted");
        let is_fitted = SHIPPED.iter().any(|(stem, _)| *stem == fitted);
        Hardware::built_in(if is_fitted { &fitted } else { name })
    }

    /// The profile of this name that is built into the program and that no fit has changed.
    pub fn datasheet(name: &str) -> Result<Hardware> {
        Hardware::built_in(name)
    }

    fn built_in(name: &str) -> Result<Hardware> {
        let Some((stem, text)) = SHIPPED.iter().find(|(stem, _)| *stem == name) else {
            let names = Hardware::shipped_names();
            let near = hint(name, names.iter().copied());
            let expected = format!("a profile file (.ron) or one of {}{near}", names.join(", "));
            return Err(InputError::expected(expected).key("hardware").found(name).into());
        };
        Hardware::parse(text, format!("hw-profiles/{stem}.ron"))
    }

    /// Names of the profiles built into the program.
    pub fn shipped_names() -> Vec<&'static str> {
        SHIPPED.iter().map(|(stem, _)| *stem).filter(|stem| !stem.ends_with(".fitted")).collect()
    }

    /// Whether a profile of this name is built into the program.
    pub fn is_shipped(name: &str) -> bool {
        SHIPPED.iter().any(|(stem, _)| *stem == name)
    }

    /// Reads and checks the text of a profile; `file` is named in errors.
    pub fn parse(text: &str, file: impl AsRef<Path>) -> Result<Hardware> {
        let hardware: Hardware =
            ron_text::parse(text, "a profile in RON").map_err(|error| error.file(&file))?;
        hardware.check().map_err(|mut error| {
            error.line = error.key.as_deref().and_then(|key| ron_text::line_of(text, key));
            error.file(&file)
        })?;
        Ok(hardware)
    }

    /// The profile as a file: what [`Hardware::parse`] reads.
    pub fn text(&self) -> String {
        written(self)
    }

    /// Forgets what was learned of the sampler of a serving engine: sampling is then one pass over the logits.
    pub fn without_sampler(&mut self) {
        self.sampler = None;
        if let Some(corrections) = &mut self.corrections {
            corrections.by_rows.remove("sample");
            corrections.of_shape.retain(|name, _| !name.starts_with("sample_"));
        }
    }

    /// Every number by its key path, in the order of the file. What the device does not have is left out.
    pub fn numbers(&self) -> Vec<(String, &Sourced)> {
        /// Takes each struct apart by name, so that a new field cannot be forgotten here.
        macro_rules! walk {
            ($out:ident, $path:expr, $of:expr, $type:ident [$($field:ident)*] optional [$($maybe:ident)*] skip [$($skip:ident)*]) => {
                let $type { $($field,)* $($maybe,)* $($skip: _,)* } = $of;
                $($out.push((format!("{}.{}", $path, stringify!($field)), $field));)*
                $(if let Some($maybe) = $maybe {
                    $out.push((format!("{}.{}", $path, stringify!($maybe)), $maybe));
                })*
            };
        }
        let Hardware {
            name: _,
            title: _,
            compute,
            memory,
            launch,
            power,
            kernels,
            links,
            sampler,
            corrections: _,
            measured: _,
            altered: _,
        } = self;
        let mut out = Vec::new();
        walk!(out, "compute", compute, Compute
            [units boost_clock_mhz vector_f32_tflops matrix_f16_tflops matrix_f32_tflops two_four_speedup]
            optional [top_clock_mhz multicast matrix_fp8_tflops matrix_int8_tops matrix_fp4_tflops]
            skip [tiles tiles_source]);
        walk!(out, "memory", memory, Memory
            [capacity_gb usable_fraction dram_gb_per_s l2_mb l2_gb_per_s] optional [runtime_gb l2_peak_gb_per_s l2_parts] skip []);
        walk!(out, "launch", launch, Launch
            [kernel_us graph_us graph_gap_us readback_us host_decision_us step_us]
            optional [eager_gap_us conditional_us] skip [submit]);
        walk!(out, "power", power, Power
            [limit_w idle_w static_w pj_per_byte pj_per_flop] optional [pj_per_widened] skip [clocks metered]);
        if let Some(clocks) = &power.clocks {
            walk!(out, "power.clocks", clocks, Clocks [lowest_mhz flat_mhz flat_voltage]
                optional [memory_knee byte_core_share] skip [evidence]);
        }
        let Kernels { matmul, prefill_attention, decode_attention, elementwise, gather } = kernels;
        for (class, efficiency) in [
            ("matmul", matmul),
            ("prefill_attention", prefill_attention),
            ("decode_attention", decode_attention),
            ("elementwise", elementwise),
            ("gather", gather),
        ] {
            walk!(out, format_args!("kernels.{class}"), efficiency, Efficiency
                [flops bytes fixed_us overlap] optional [] skip []);
        }
        walk!(out, "links", links, HostLinks
            [host_gb_per_s host_latency_us] optional [peer_gb_per_s] skip []);
        if let Some(sampler) = sampler {
            walk!(out, "sampler", sampler, Sampler [ps_per_logit pj_per_logit] optional [] skip [error]);
        }
        out
    }

    /// Whether a price that was learned from measured calls depends on the number under this key.
    pub fn moves_prices(key: &str) -> bool {
        let first = key.split('.').next().unwrap_or_default();
        ["compute", "kernels"].contains(&first)
            || key.starts_with("memory.dram")
            || key.starts_with("memory.l2")
    }

    /// How far this device lies from `other` in what moves prices: the largest logarithm of the ratio of two numbers, without sign; 0 where all
    /// are the same. A number that only one of them has, that is 0 in one of them, or other tiles count as
    /// [`DEVICES_APART`](Hardware::DEVICES_APART).
    pub fn distance(&self, other: &Hardware) -> f64 {
        let moving = |hardware: &Hardware| -> BTreeMap<String, f64> {
            let numbers = hardware.numbers().into_iter().map(|(key, number)| (key, number.value));
            numbers.filter(|(key, _)| Hardware::moves_prices(key)).collect()
        };
        let (own, others) = (moving(self), moving(other));
        let apart = |key: &String| match (own.get(key), others.get(key)) {
            (Some(a), Some(b)) if a == b => 0.0,
            (Some(&a), Some(&b)) if a > 0.0 && b > 0.0 => libm::log(a / b).abs(),
            _ => Hardware::DEVICES_APART,
        };
        let tiles = if self.compute.tiles == other.compute.tiles { 0.0 } else { Hardware::DEVICES_APART };
        own.keys().chain(others.keys()).map(apart).fold(tiles, f64::max)
    }

    /// Mean distance of the three devices among which loans were measured (H100 SXM, A100 SXM 80 GB, L40S): 1.23, 1.36 and 1.55. Devices of
    /// which one has something that the other has not are assumed to be as far apart.
    pub const DEVICES_APART: f64 = 1.38;

    /// Whether the number under this key counts something.
    pub fn is_whole(key: &str) -> bool {
        Range::of(key).whole
    }

    /// The constants without a measured or published source, in the order of [`Hardware::numbers`], tiles last.
    pub fn assumed(&self) -> Vec<Assumption<'_>> {
        let tiles: Vec<String> =
            self.compute.tiles.iter().map(|(rows, columns)| format!("{rows}x{columns}")).collect();
        let numbers = self.numbers().into_iter();
        numbers
            .map(|(key, number)| (key, number.value.to_string(), &number.source))
            .chain([("compute.tiles".to_owned(), tiles.join(", "), &self.compute.tiles_source)])
            .filter(|(_, _, source)| source.kind() == SourceKind::Assumed)
            .map(|(key, value, source)| Assumption { key, value, text: source.text() })
            .collect()
    }

    /// Refuses what no device can have: each number alone, then those that must fit together.
    pub fn check(&self) -> std::result::Result<(), InputError> {
        check_words("name", &self.name)?;
        check_words("title", &self.title)?;
        for (key, number) in self.numbers() {
            let range = Range::of(&key);
            if !range.holds(number.value) {
                return Err(InputError::expected(range.words).key(key).found(number.value));
            }
            check_source(&key, &number.source)?;
        }
        check_source("compute.tiles_source", &self.compute.tiles_source)?;
        let tiles = &self.compute.tiles;
        if tiles.is_empty() || tiles.len() > 64 {
            let found = format!("{} tiles", tiles.len());
            return Err(InputError::expected("1 to 64 tiles").key("compute.tiles").found(found));
        }
        for (rows, columns) in tiles {
            if ![rows, columns].iter().all(|side| (1..=1024).contains(*side)) {
                return Err(InputError::expected("rows and columns from 1 to 1024")
                    .key("compute.tiles")
                    .found(format!("({rows}, {columns})")));
            }
        }
        if let Some(corrections) = &self.corrections {
            corrections.check()?;
        }
        if let Some(measured) = &self.measured {
            measured.check()?;
        }
        if let Some(metered) = &self.power.metered {
            metered.check()?;
        }
        if self.sampler.as_ref().and_then(|sampler| sampler.error).is_some_and(|error| !error.is_sound()) {
            return Err(InputError::expected("finite errors, none below 0").key("sampler.error"));
        }
        if let Some(evidence) = self.power.clocks.as_ref().and_then(|clocks| clocks.evidence.as_ref()) {
            evidence.check()?;
        }
        self.check_pairs()
    }

    /// Numbers that bound each other.
    fn check_pairs(&self) -> std::result::Result<(), InputError> {
        let Hardware { compute, memory, power, .. } = self;
        let at_least = |key: &str, value: &Sourced, least: f64, of: &str| {
            if value.value >= least {
                return Ok(());
            }
            let expected = format!("at least {least}, which is {of}");
            Err(InputError::expected(expected).key(key).found(value.value))
        };
        if let Some(top) = &compute.top_clock_mhz {
            at_least("compute.top_clock_mhz", top, compute.boost_clock_mhz.value, "compute.boost_clock_mhz")?;
        }
        let f16 = compute.matrix_f16_tflops.value;
        if let Some(fp8) = &compute.matrix_fp8_tflops {
            at_least("compute.matrix_fp8_tflops", fp8, f16, "compute.matrix_f16_tflops")?;
        }
        if let Some(fp4) = &compute.matrix_fp4_tflops {
            at_least("compute.matrix_fp4_tflops", fp4, f16, "compute.matrix_f16_tflops")?;
        }
        if memory.l2_mb.value > 0.0 {
            let dram = memory.dram_gb_per_s.value;
            at_least("memory.l2_gb_per_s", &memory.l2_gb_per_s, dram, "memory.dram_gb_per_s")?;
        }
        if let Some(peak) = &memory.l2_peak_gb_per_s {
            at_least("memory.l2_peak_gb_per_s", peak, memory.l2_gb_per_s.value, "memory.l2_gb_per_s")?;
        }
        if let Some(Clocks { lowest_mhz, flat_mhz, .. }) = &power.clocks {
            let least = compute.boost_clock_mhz.value / 100.0;
            at_least("power.clocks.lowest_mhz", lowest_mhz, least, "a hundredth of compute.boost_clock_mhz")?;
            at_least("power.clocks.flat_mhz", flat_mhz, lowest_mhz.value, "power.clocks.lowest_mhz")?;
            at_least(
                "compute.boost_clock_mhz",
                &compute.boost_clock_mhz,
                flat_mhz.value,
                "power.clocks.flat_mhz",
            )?;
        }
        at_least("power.static_w", &power.static_w, power.idle_w.value, "power.idle_w")?;
        if power.limit_w.value <= power.static_w.value {
            let expected = format!("more than {}, which is power.static_w", power.static_w.value);
            return Err(InputError::expected(expected).key("power.limit_w").found(power.limit_w.value));
        }
        Ok(())
    }
}

/// What a number may be, with the words for it.
struct Range {
    least: f64,
    least_included: bool,
    most: f64,
    whole: bool,
    words: &'static str,
}

impl Range {
    /// By the last part of the key, which names the quantity and its unit.
    fn of(key: &str) -> Range {
        let range =
            |least, least_included, most, words| Range { least, least_included, most, whole: false, words };
        let last = key.rsplit('.').next().unwrap_or(key);
        match last {
            "units" => Range { whole: true, ..range(1.0, true, 65536.0, "a whole number from 1 to 65536") },
            "flops" | "bytes" => range(0.0, false, 1.5, "a number above 0, at most 1.5"),
            "overlap" | "byte_core_share" => range(0.0, true, 1.0, "a number from 0 to 1"),
            "usable_fraction" | "flat_voltage" | "memory_knee" => {
                range(0.0, false, 1.0, "a number above 0, at most 1")
            }
            "two_four_speedup" => range(1.0, true, 4.0, "a number from 1 to 4"),
            "multicast" | "l2_parts" => range(1.0, true, 16.0, "a number from 1 to 16"),
            "l2_mb" | "runtime_gb" | "idle_w" | "static_w" | "pj_per_byte" | "pj_per_flop"
            | "pj_per_widened" | "ps_per_logit" | "pj_per_logit" => {
                range(0.0, true, LARGEST, "a number from 0 to 1e12")
            }
            _ if last.ends_with("_us") => range(0.0, true, 1e9, "a number from 0 to 1e9"),
            _ => range(0.0, false, LARGEST, "a number above 0, at most 1e12"),
        }
    }

    /// False for NaN.
    fn holds(&self, value: f64) -> bool {
        let above = value > self.least || (self.least_included && value == self.least);
        above && value <= self.most && (!self.whole || value.fract() == 0.0)
    }
}

/// A profile or fabric as a file.
pub(super) fn written(value: &impl serde::Serialize) -> String {
    let style =
        ron::ser::PrettyConfig::new().indentor("    ").compact_arrays(true).separate_tuple_members(false);
    // Nothing in them can fail to be written: strings, numbers, lists.
    let body = ron::ser::to_string_pretty(value, style.struct_names(false)).unwrap_or_default();
    let lists = |line: &str| {
        ["trees: [", "grid: [", "knots: [", "["].iter().any(|start| line.trim_start().starts_with(start))
    };
    let line = |line: &str| if lists(line) { line.replace(", ", ",") } else { line.to_owned() };
    let lines: Vec<String> = body.lines().map(line).collect();
    format!("// Written by `radialsim fit`.\n{}\n", lines.join("\n"))
}

pub(super) fn check_words(key: &str, words: &str) -> std::result::Result<(), InputError> {
    if !words.trim().is_empty() {
        return Ok(());
    }
    Err(InputError::expected("some words").key(key).found(format!("{words:?}")))
}

/// A number without a source is refused, and an empty text is no source.
pub(super) fn check_source(key: &str, source: &Source) -> std::result::Result<(), InputError> {
    if !source.text().trim().is_empty() {
        return Ok(());
    }
    let expected = "a source that says who says so: a document, a table, or the reasoning";
    Err(InputError::expected(expected).key(key).found(format!("{:?}", source.text())))
}
