//! Which clock a pass runs at. Boards hold a power cap over milliseconds, so it is the pass that draws no more than the cap, not each of its
//! kernels: the light ones lend the hot ones what they leave.

use super::closed::{ClosedForm, PassSums};
use crate::cost::{Device, PriceCache};
use crate::lower::Lowered;
use crate::metrics::Ledger;

/// Closed forms that are kept, one for each clock that was used lately. A run stays near one clock, and its dense twin near another.
const KEPT: usize = 8;

/// Where among the clocks the next search begins: the clock of the pass before. Routed passes and those that they are held against have one
/// each.
#[derive(Clone, Copy, Debug)]
pub(super) struct At(usize);

/// Prices passes, each at one clock.
pub(super) struct Governor {
    device: Device,
    /// The clocks to choose among under a cap, rising, as shares of the boost clock; empty without a cap.
    clocks: Vec<f64>,
    cap_w: f64,
    /// The clock of each closed form, the one used last at the end.
    forms: Vec<(usize, ClosedForm)>,
    booked: Ledger,
}

impl Governor {
    /// For a device under its limits.
    pub fn new(device: Device) -> Self {
        let (clocks, cap_w) = (device.clocks_under_cap(), device.cap_w().unwrap_or(f64::INFINITY));
        Governor { device, clocks, cap_w, forms: Vec::new(), booked: Ledger::default() }
    }

    /// Whether a pass is summed more than once, to find its clock.
    pub fn chooses(&self) -> bool {
        !self.clocks.is_empty()
    }

    /// The highest clock.
    pub fn highest(&self) -> At {
        At(self.clocks.len().saturating_sub(1))
    }

    /// The sums of a pass, which `lower` pushes and sums, at the highest clock at which it draws no more than the cap, or at the lowest where there is
    /// none; kernels are booked for the ledger where `booking` says so. The draw rises with the clock, so the search gallops from the clock of
    /// the pass before, then halves.
    pub fn sum(
        &mut self,
        at: &mut At,
        booking: bool,
        mut lower: impl FnMut(&mut ClosedForm, bool) -> (PassSums, Lowered),
    ) -> (PassSums, Lowered) {
        if self.chooses() {
            let count = self.clocks.len();
            let holds = |clock: usize| {
                let (sums, _) = lower(self.form(clock), false);
                self.device.mean_w(sums.length, sums.compute, sums.dynamic_pj) <= self.cap_w
            };
            *at = At(highest_within(at.0, count, holds));
        }
        lower(self.form(at.0), booking)
    }

    /// The prices at a clock.
    pub fn prices(&mut self, at: At) -> (&Device, &mut PriceCache) {
        self.form(at.0).prices()
    }

    /// Adds everything that was booked to `ledger`.
    pub fn book(&mut self, ledger: &mut Ledger) {
        self.forms.iter_mut().for_each(|(_, form)| form.book(&mut self.booked));
        ledger.absorb(&std::mem::take(&mut self.booked));
    }

    fn form(&mut self, clock: usize) -> &mut ClosedForm {
        match self.forms.iter().rposition(|(known, _)| *known == clock) {
            // A form holds a device: it moves only where another one was used last.
            Some(place) => self.forms[place..].rotate_left(1),
            None => {
                if self.forms.len() == KEPT {
                    self.forms.remove(0).1.book(&mut self.booked);
                }
                let share = self.clocks.get(clock).copied();
                let device = share.map_or_else(|| self.device.clone(), |share| self.device.at_clock(share));
                self.forms.push((clock, ClosedForm::new(device)));
            }
        }
        &mut self.forms.last_mut().expect("was found or pushed").1
    }
}

/// The highest of `count` places at which `holds` is true, or 0, where it is true up to some place; found soonest near `start`.
fn highest_within(start: usize, count: usize, mut holds: impl FnMut(usize) -> bool) -> usize {
    // What holds, or is the lowest; and what does not, or is beyond the highest.
    let (mut held, mut above) = (0, count);
    let mut step = 1;
    if holds(start) {
        held = start;
        while held + step < count {
            if holds(held + step) {
                held += step;
                step *= 2;
            } else {
                above = held + step;
                break;
            }
        }
    } else {
        above = start;
        while above > step {
            if holds(above - step) {
                held = above - step;
                break;
            }
            above -= step;
            step *= 2;
        }
    }
    while above - held > 1 {
        let middle = usize::midpoint(held, above);
        if holds(middle) {
            held = middle;
        } else {
            above = middle;
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use super::highest_within;

    /// Wherever the search begins, it finds the same place, and soon where it begins nearby.
    #[test]
    fn the_search_finds_the_highest_that_holds() {
        for count in 1..40 {
            for limit in 0..=count {
                for start in 0..count {
                    let mut asked = 0;
                    let found = highest_within(start, count, |place| {
                        assert!(place < count);
                        asked += 1;
                        place < limit
                    });
                    assert_eq!(found, limit.saturating_sub(1), "{count} {limit} {start}");
                    let most = match found.abs_diff(start) {
                        0 => 2,
                        1 => 4,
                        _ => count,
                    };
                    assert!(asked <= most, "{count} {limit} {start}: {asked}");
                }
            }
        }
    }
}
