//! A measured curve, read between and beyond its sizes.

/// Times over sizes. Between two measured sizes time grows by the byte: a line in a log-log plot lies above what a start and a bandwidth
/// make, and is further off on sizes kept aside (`docs/VALIDATION_FABRICS.md`). Where the library goes another way between them, each side
/// goes on as it did, within what was measured of both.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// Bytes and microseconds, both rising.
    knots: Vec<(f64, f64)>,
    /// First bytes of the ways after the first.
    switches: Vec<f64>,
}

impl Line {
    /// Of at least two knots, sizes rising, times never falling.
    pub(super) fn new(knots: &[(u64, f64)], switches: &[u64]) -> Line {
        let knots: Vec<(f64, f64)> = knots.iter().map(|&(bytes, us)| (bytes as f64, us)).collect();
        Line { knots, switches: switches.iter().map(|&bytes| bytes as f64).collect() }
    }

    /// Least and most bytes that were measured.
    pub(super) fn range(&self) -> (f64, f64) {
        (self.knots[0].0, self.knots[self.knots.len() - 1].0)
    }

    /// Of a message of next to no bytes.
    pub(super) fn least_us(&self) -> f64 {
        self.knots[0].1
    }

    /// Microseconds; never falls as `bytes` grow.
    pub(super) fn us(&self, bytes: f64) -> f64 {
        let knots = &self.knots;
        let after = knots.partition_point(|knot| knot.0 <= bytes);
        if after == 0 {
            return knots[0].1;
        }
        if after == knots.len() {
            // No faster than the size grows.
            let last = knots[after - 1];
            return along(knots[after - 2], last, bytes).min(last.1 * bytes / last.0);
        }
        let (low, high) = (knots[after - 1], knots[after]);
        let first = self.way(low.0);
        let Some(&switch) = self.switches.get(first).filter(|&&switch| switch <= high.0) else {
            return along(low, high, bytes);
        };
        // What the way below would take, and the way above.
        let below = |at: f64| match after.checked_sub(2).map(|place| knots[place]) {
            Some(before) if self.way(before.0) == first => along(before, low, at),
            _ => along(low, high, at),
        };
        let above = |at: f64| match knots.get(after + 1) {
            Some(&next) if self.way(next.0) == self.way(high.0) => along(high, next, at),
            _ => along(low, high, at),
        };
        let within = |us: f64| us.clamp(low.1, high.1);
        match bytes < switch {
            true => within(below(bytes)),
            // Two ways change between two sizes where one is hardly used; the last is taken.
            false => within(above(bytes)).max(within(below(switch))),
        }
    }

    fn way(&self, bytes: f64) -> usize {
        self.switches.partition_point(|&switch| switch <= bytes)
    }
}

/// On the line through two points.
fn along((x0, y0): (f64, f64), (x1, y1): (f64, f64), at: f64) -> f64 {
    y0 + (y1 - y0) * (at - x0) / (x1 - x0)
}
