//! Which measurements say what an operation takes on one level, and how far they are to be trusted.

use super::formula::Formula;
use super::line::Line;
use crate::cost::price_error::{EXTRAPOLATED, PriceError};
use crate::hw::{CallMode, Collectives, Curve, Held, Level, Library, Operation, Way};
use crate::units::SourceKind;

/// How much of the ratio of two bandwidths counts in the time of every message, the rest in its size: newer links come with shorter
/// starts, but not in proportion. Assumed; what loans between A100 and H100 are off by it stands in `docs/VALIDATION_FABRICS.md`.
const IN_TIME: f64 = 0.5;

/// What the host takes for a call from Python, where nobody measured one on the fabric. Assumed: the shortest of vLLM 0.24 on H100; on A100, in
/// another machine, it is 44.
const EAGER_US: f64 = 20.0;

/// What an operation takes on some devices of one level.
#[derive(Clone, Debug)]
pub(super) struct Timed {
    timing: Timing,
    /// On bytes before they are looked up, on the time after: 1 where the bandwidth is that of the measurements.
    bytes_scale: f64,
    time_scale: f64,
    /// What the host takes for a call.
    floor_us: f64,
    source: SourceKind,
    error: Option<PriceError>,
}

#[derive(Clone, Debug)]
enum Timing {
    /// Measured on as many devices.
    Measured(Line),
    /// Between two numbers of devices: the mean of the logarithms, by the logarithm of the number.
    Between([Neighbour; 2]),
    /// Beyond all: the nearest, and what each message takes longer or shorter.
    Beyond(Neighbour, f64),
    Formula(Formula),
}

/// A curve of another number of devices.
#[derive(Clone, Debug)]
struct Neighbour {
    weight: f64,
    /// On the bytes.
    share: f64,
    line: Line,
}

impl Neighbour {
    fn us(&self, bytes: f64) -> f64 {
        self.line.us(bytes * self.share)
    }
}

impl Timed {
    pub(super) fn new(
        level: &Level,
        operation: Operation,
        library: Library,
        mode: CallMode,
        devices: u32,
    ) -> Timed {
        let lent = || level.lender.as_ref()?.collectives.as_ref();

        let by_formula = || Timed {
            timing: Timing::Formula(Formula::new(level, operation, library, devices)),
            bytes_scale: 1.0,
            time_scale: 1.0,
            floor_us: if mode == CallMode::Eager { EAGER_US } else { 0.0 },
            source: SourceKind::Assumed,
            error: None,
        };
        // What nobody measured here, of so many devices, is lent where there is a lender.
        let custom = operation == Operation::AllReduce
            && library.ways(level, devices).iter().any(|&(_, way)| way != Way::Nccl);
        let by = if custom { library } else { Library::Nccl };
        let says = |own: &&Collectives| {
            let of =
                |curve: &Curve| (curve.operation, curve.library, curve.devices) == (operation, by, devices);
            own.curves.iter().any(of) || lent().is_none()
        };
        let own = level.collectives.as_ref().filter(says);
        let Some(all) = own.or_else(lent) else { return by_formula() };
        let ratio = all.gb_per_s / level.gb_per_s.value;
        let bytes_scale = libm::pow(ratio, 1.0 - IN_TIME);
        let search = Search { all, level, operation, mode, is_own: ratio == 1.0 };
        let Some(Found { curves, library, floor_us, stands_in }) = search.curves(library, devices) else {
            return by_formula();
        };
        let lines: Vec<(u32, Line)> =
            curves.iter().map(|curve| (curve.devices, Line::new(&curve.knots, &curve.switches))).collect();
        let (timing, held) = predicted(&curves, &lines, operation, library, devices);
        let measured = matches!(timing, Timing::Measured(_));
        let error = held.map(|held| PriceError::new(held.mean, held.interval));
        let loan = level.lent.as_ref().filter(|_| own.is_none());
        let (source, error) = match loan {
            Some(loan) => {
                let lent = PriceError::new(loan.error.mean, loan.error.interval);
                (SourceKind::Transferred, error.map_or(Some(lent), |error| Some(error.and(lent))))
            }
            None if ratio != 1.0 => (SourceKind::Extrapolated, error.map(|error| error.times(EXTRAPOLATED))),
            None => (SourceKind::Fitted, error),
        };
        let source = if measured { source } else { source.join(SourceKind::Extrapolated) };
        let (source, error) = if stands_in { (SourceKind::Assumed, None) } else { (source, error) };
        Timed { timing, bytes_scale, time_scale: libm::pow(ratio, IN_TIME), floor_us, source, error }
    }

    /// Microseconds of a message, with what says so.
    pub(super) fn of(&self, bytes: f64) -> (f64, SourceKind, Option<PriceError>) {
        let at = bytes * self.bytes_scale;
        let us = match &self.timing {
            Timing::Measured(line) => line.us(at),
            Timing::Between(two) => libm::exp(two.iter().map(|one| one.weight * libm::log(one.us(at))).sum()),
            Timing::Beyond(near, more_us) => (near.us(at) + more_us).max(near.line.least_us() / 4.0),
            Timing::Formula(formula) => formula.us(bytes),
        };
        let outside = |line: &Line, at: f64| {
            let (least, most) = line.range();
            at < least || at > most
        };
        let outside = match &self.timing {
            Timing::Measured(line) => outside(line, at),
            Timing::Between(two) => two.iter().any(|one| outside(&one.line, at * one.share)),
            Timing::Beyond(near, _) => outside(&near.line, at * near.share),
            Timing::Formula(_) => false,
        };
        let us = (us * self.time_scale).max(self.floor_us);
        match outside {
            true => {
                let error = self.error.map(|error| error.times(EXTRAPOLATED));
                (us, self.source.join(SourceKind::Extrapolated), error)
            }
            false => (us, self.source, self.error),
        }
    }
}

/// Where curves are looked for.
struct Search<'a> {
    all: &'a Collectives,
    /// The level that is asked for.
    level: &'a Level,
    operation: Operation,
    mode: CallMode,
    /// Whether the bandwidth is the one that they were measured at: links change no host's time.
    is_own: bool,
}

struct Found<'a> {
    /// Of one call, by the number of devices.
    curves: Vec<&'a Curve>,
    library: Library,
    /// What the host takes, where only device times were measured.
    floor_us: f64,
    /// Whether they are of another library than would do it, or called another way.
    stands_in: bool,
}

impl<'a> Search<'a> {
    fn call(&self, library: Library, mode: CallMode) -> Vec<&'a Curve> {
        let wanted = (self.operation, library, mode);
        let of = |curve: &&Curve| (curve.operation, curve.library, curve.mode) == wanted;
        let mut curves: Vec<&Curve> = self.all.curves.iter().filter(of).collect();
        curves.sort_by_key(|curve| curve.devices);
        curves
    }

    fn curves(&self, library: Library, devices: u32) -> Option<Found<'a>> {
        let reduces = self.operation == Operation::AllReduce;
        let own = reduces && library.ways(self.level, devices).iter().any(|&(_, way)| way != Way::Nccl);
        // What goes to NCCL in the engine is in its own table where somebody measured just that.
        let measured = |curve: &&Curve| curve.devices == devices && self.level.lender.is_none();
        let own_table = own || self.call(library, self.mode).iter().any(measured);
        let asked = library;
        let library = if own_table { library } else { Library::Nccl };
        // Where only device times were measured, or links are others: the host's time for a call is that of the shortest eager one.
        let eager = || {
            let least = self.all.curves.iter().filter(|curve| curve.mode == CallMode::Eager);
            least.map(|curve| curve.knots[0].1).fold(f64::INFINITY, f64::min)
        };
        let floor = || Some(eager()).filter(|us| us.is_finite()).unwrap_or(EAGER_US);
        let tries = [
            (library, self.mode),
            (library, CallMode::Graph),
            (Library::Nccl, self.mode),
            (Library::Nccl, CallMode::Graph),
            (asked, self.mode),
            (asked, CallMode::Graph),
        ];
        tries.into_iter().find_map(|(by, mode)| {
            let curves = self.call(by, mode);
            let measured = mode == self.mode && (mode == CallMode::Graph || self.is_own);
            let floor_us = if measured { 0.0 } else { floor() };
            let stands_in = by != library && own || mode != self.mode;
            (!curves.is_empty()).then_some(Found { curves, library: by, floor_us, stands_in })
        })
    }
}

/// What curves of some numbers of devices say of `devices`, and how wrong that may be.
///
/// Between two, engines' own kernels take as long as their neighbours take for messages with as many bytes on the wire; NCCL, which chooses
/// its protocol by the size of the message, as they take for the message itself. Beyond, the nearest counts for as many bytes on the wire,
/// and the start of a message goes on as between the last two.
fn predicted(
    curves: &[&Curve],
    lines: &[(u32, Line)],
    operation: Operation,
    library: Library,
    devices: u32,
) -> (Timing, Option<Held>) {
    let after = lines.partition_point(|(count, _)| *count < devices);
    let wire = |other: u32| operation.sent_share(devices) / operation.sent_share(other);
    if let Some((_, line)) = lines.get(after).filter(|(count, _)| *count == devices) {
        return (Timing::Measured(line.clone()), curves[after].sizes);
    }
    let logarithm = |count: u32| libm::log(f64::from(count));
    let worst = |places: &mut dyn Iterator<Item = usize>| {
        let held = places.filter_map(|place| curves[place].others);
        held.max_by(|a, b| a.mean.total_cmp(&b.mean))
    };
    let last = lines.len() - 1;
    if after == 0 || after > last {
        let (near, far) = if after == 0 { (0, 1.min(last)) } else { (last, last.saturating_sub(1)) };
        let (count, line) = &lines[near];
        let (other, further) = &lines[far];
        let more_us = match near == far {
            true => 0.0,
            // The start grows by the same factor for each doubling.
            false => {
                let by = (logarithm(devices) - logarithm(*count)) / (logarithm(*count) - logarithm(*other));
                line.least_us() * (libm::pow(line.least_us() / further.least_us(), by) - 1.0)
            }
        };
        let near = Neighbour { weight: 1.0, share: wire(*count), line: line.clone() };
        return (Timing::Beyond(near, more_us), worst(&mut [0, last].into_iter()));
    }
    let (low, high) = (&lines[after - 1], &lines[after]);
    let weight = (logarithm(devices) - logarithm(low.0)) / (logarithm(high.0) - logarithm(low.0));
    let neighbour = |weight: f64, (count, line): &(u32, Line)| {
        let share = if library == Library::Nccl { 1.0 } else { wire(*count) };
        Neighbour { weight, share, line: line.clone() }
    };
    let two = [neighbour(1.0 - weight, low), neighbour(weight, high)];
    // Those that lie between others were predicted like this.
    let inner = worst(&mut (1..last)).or_else(|| worst(&mut (0..=last)));
    (Timing::Between(two), inner)
}
