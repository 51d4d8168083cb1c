//! What people call a metric, and the unit that they read it in.

use super::sheet::digits;

/// A metric in words.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    /// What it is called: `TPOT p99`.
    pub name: String,
    /// Its unit: `ms`; empty where it has none.
    pub unit: &'static str,
    /// What its value is multiplied by to have that unit.
    pub factor: f64,
}

/// Heads of key paths with names, units and factors. What is not here is called by its key.
const KNOWN: [(&str, &str, &str, f64); 19] = [
    ("ttft_s", "TTFT", "ms", 1e3),
    ("tpot_s", "TPOT", "ms", 1e3),
    ("itl_s", "ITL", "ms", 1e3),
    ("e2e_s", "end-to-end latency", "s", 1.0),
    ("queue_s", "time in the queue", "ms", 1e3),
    ("makespan_s", "makespan", "s", 1.0),
    ("pass_time_s", "pass time", "s", 1.0),
    ("energy_j", "energy", "J", 1.0),
    ("energy_per_output_token_j", "energy per output token", "J", 1.0),
    ("energy_per_request_j", "energy per request", "J", 1.0),
    ("output_tokens_per_s", "output tokens per second", "", 1.0),
    ("requests_per_s", "requests per second", "", 1.0),
    ("usd_per_million_output_tokens", "cost per million output tokens", "USD", 1.0),
    ("power_w", "power", "W", 1.0),
    ("memory_bytes.total_peak", "peak memory", "GB", 1e-9),
    ("memory_bytes.kv_peak", "peak KV memory", "GB", 1e-9),
    ("work.mean_depth", "mean depth", "blocks", 1.0),
    ("work.layer_weights_read", "layer weights read", "%", 1e2),
    ("goodput.attained", "requests within the SLO", "%", 1e2),
];

/// All metrics that have names, by their keys.
pub fn known() -> Vec<(&'static str, Quantity)> {
    KNOWN.iter().map(|(key, ..)| (*key, Quantity::of(key))).collect()
}

impl Quantity {
    /// Of the metric with this key.
    pub fn of(metric: &str) -> Quantity {
        let known = KNOWN.iter().find_map(|&(head, name, unit, factor)| {
            let rest = metric.strip_prefix(head)?;
            let rest = if rest.is_empty() { rest } else { rest.strip_prefix('.')? };
            let name = if rest.is_empty() { name.to_owned() } else { format!("{name} {rest}") };
            Some(Quantity { name, unit, factor })
        });
        known.unwrap_or_else(|| Quantity { name: metric.to_owned(), unit: "", factor: 1.0 })
    }

    /// Name and unit, for axes and columns.
    pub fn label(&self) -> String {
        if self.unit.is_empty() { self.name.clone() } else { format!("{}, {}", self.name, self.unit) }
    }

    /// A value without its unit, with four digits.
    pub fn number(&self, value: f64) -> String {
        number(value * self.factor)
    }

    /// A value with half the width of its interval, where it has one: `13.87 ± 0.41`.
    pub fn interval(&self, value: f64, half_width: f64) -> String {
        let value = self.number(value);
        let half = half_width * self.factor;
        if half > 0.0 { format!("{value}\u{a0}±\u{a0}{}", digits(half, 2)) } else { value }
    }

    /// The same with the unit.
    pub fn words(&self, value: f64, half_width: f64) -> String {
        let interval = self.interval(value, half_width);
        if self.unit.is_empty() { interval } else { format!("{interval}\u{a0}{}", self.unit) }
    }
}

/// A number with four digits.
pub fn number(value: f64) -> String {
    // Beyond what reads well in full.
    if value != 0.0 && !(1e-6..1e9).contains(&value.abs()) {
        format!("{value:.3e}")
    } else {
        digits(value, 4)
    }
}
