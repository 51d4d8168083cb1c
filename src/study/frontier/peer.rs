//! What a network costs beside a family of others at its own quality.
//!
//! A family is a line through its members, by quality: between two neighbours the cost is taken to change evenly with the quality in nats (of
//! perplexity, with its logarithm). Members that another one beats in both are left out, since nobody would take them. Outside of its members a
//! family has no cost.

use crate::metrics::Verdict;
use crate::quality::Quality;
use crate::study::worth::Worths;
use crate::study::{Measure, Objective, Row, Study, front};

/// A network against a family, in one objective.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerComparison {
    /// Number of the variant.
    pub variant: usize,
    /// Number of the family.
    pub family: usize,
    /// Number of the objective.
    pub objective: usize,
    /// What came of it.
    pub found: PeerFinding,
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PeerFinding {
    /// The network lies between members of the family.
    Gain {
        /// By how many percent it is better than the family at its quality; below zero where it is worse.
        percent: f64,
        /// How far that may be off, in percent, where what both share is off alike: kernels of a class, and the texts that quality was measured
        /// on. None where an error is not known.
        shared: Option<f64>,
        /// The same where errors are opposed. None where it is not known, or reaches beyond the family.
        opposed: Option<f64>,
        /// Whether the difference is more than its error.
        verdict: Verdict,
    },
    /// It does not.
    Beyond(Beyond),
}

/// Why a network cannot be placed in a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// Its quality is better than that of every member.
    Better,
    /// Its quality is worse than that of every member that counts.
    Worse,
    /// It, or every member of the family, failed or does not keep the constraints.
    Absent,
}

impl PeerFinding {
    /// Whether a gain is more than its error; none where there is no gain.
    pub fn verdict(&self) -> Option<Verdict> {
        match self {
            PeerFinding::Gain { verdict, .. } => Some(*verdict),
            PeerFinding::Beyond(_) => None,
        }
    }
}

impl Beyond {
    /// As tables say it.
    pub fn word(self) -> &'static str {
        match self {
            Beyond::Better => "better than every member",
            Beyond::Worse => "worse than every member that counts",
            Beyond::Absent => "no point to hold it against",
        }
    }
}

/// An end of an interval, or its middle.
#[derive(Clone, Copy)]
enum End {
    Low,
    Mean,
    High,
}

impl End {
    /// That of a quality, in nats; none where it has no interval.
    fn of(self, quality: &Quality, measure: Measure) -> Option<f64> {
        let value = match (self, quality.interval) {
            (End::Mean, _) => quality.mean,
            (End::Low, Some([low, _])) => low,
            (End::High, Some([_, high])) => high,
            (_, None) => return None,
        };
        Some(measure.nats(value))
    }
}

/// A member of a family that counts.
struct Member<'a> {
    row: &'a Row,
    quality: Quality,
    cost: f64,
    file: usize,
}

/// Members of a family from cheap to dear, and so from worse to better.
struct Peers<'a> {
    members: Vec<Member<'a>>,
    measure: Measure,
}

impl Peers<'_> {
    /// The cost of the family where its qualities are at one end and the quality is `at`, in nats; with the two members between which it lies.
    fn cost(&self, at: f64, end: End) -> Option<(f64, [usize; 2])> {
        let qualities: Vec<f64> =
            self.members.iter().map(|member| end.of(&member.quality, self.measure)).collect::<Option<_>>()?;
        if let Some(same) = qualities.iter().position(|quality| *quality == at) {
            return Some((self.members[same].cost, [same; 2]));
        }
        let between = |pair: &[f64]| (pair[0].min(pair[1])..=pair[0].max(pair[1])).contains(&at);
        let first = qualities.windows(2).position(between)?;
        let [from, to] = [qualities[first], qualities[first + 1]];
        let share = (at - from) / (to - from);
        let [cheap, dear] = [self.members[first].cost, self.members[first + 1].cost];
        Some((cheap + (dear - cheap) * share, [first, first + 1]))
    }

    /// On which side of all members a quality lies.
    fn side(&self, at: f64) -> Beyond {
        let best = self.members.iter().map(|member| self.measure.nats(member.quality.mean));
        if best.fold(f64::INFINITY, f64::min) > at { Beyond::Better } else { Beyond::Worse }
    }
}

/// All comparisons of a setting: each variant with each family that it is not of, in each objective.
pub fn compare(study: &Study, measure: Measure, worths: &Worths, rows: &[Row]) -> Vec<PeerComparison> {
    let mut all = Vec::new();
    for variant in 0..rows.len() {
        let name = &study.base.variants[variant].name;
        for (family, about) in study.spec.families.iter().enumerate() {
            if about.variants.contains(name) {
                continue;
            }
            let of = |row: usize| about.variants.contains(&study.base.variants[row].name);
            let members: Vec<usize> = (0..rows.len()).filter(|row| of(*row)).collect();
            for (objective, wanted) in study.spec.objectives.iter().enumerate() {
                let found = against(study, measure, worths, rows, variant, &members, wanted);
                all.push(PeerComparison { variant, family, objective, found });
            }
        }
    }
    all
}

fn against(
    study: &Study,
    measure: Measure,
    worths: &Worths,
    rows: &[Row],
    variant: usize,
    members: &[usize],
    objective: &Objective,
) -> PeerFinding {
    let cost = |row: usize| {
        let cost = rows[row].figure(objective.metric())?.value;
        study.is_feasible(&rows[row]).then_some(cost)
    };
    let quality = |row: usize| worths.qualities[row];
    let Some(own) = cost(variant) else { return PeerFinding::Beyond(Beyond::Absent) };
    let points: Vec<(f64, f64)> =
        members.iter().filter_map(|&row| Some((cost(row)?, quality(row).mean))).collect();
    let counts = front(&points, objective, &measure.objective());
    let member = |point: &(f64, f64)| {
        let row = members
            .iter()
            .copied()
            .find(|&row| cost(row) == Some(point.0) && quality(row).mean == point.1)?;
        Some(Member { row: &rows[row], quality: quality(row), cost: point.0, file: worths.files[row] })
    };
    let peers = Peers { members: counts.iter().filter_map(member).collect(), measure };
    if peers.members.is_empty() {
        return PeerFinding::Beyond(Beyond::Absent);
    }
    let own_quality = quality(variant);
    let at = measure.nats(own_quality.mean);
    let Some((peer, between)) = peers.cost(at, End::Mean) else {
        return PeerFinding::Beyond(peers.side(at));
    };
    let sign = if objective.less_is_better() { -1.0 } else { 1.0 };
    let percent = |peer: f64| 100.0 * sign * (own / peer - 1.0);
    // How far the gain moves where the network's quality is at one end of its interval and the family's at another.
    let moved = |ends: [[End; 2]; 2]| -> Option<f64> {
        let by = |[end, others]: [End; 2]| {
            let (other, _) = peers.cost(end.of(&own_quality, measure)?, others)?;
            Some((percent(other) - percent(peer)).abs())
        };
        Some(by(ends[0])?.max(by(ends[1])?))
    };
    let opposed_quality = moved([[End::Low, End::High], [End::High, End::Low]]);
    let same_texts = between.iter().all(|&at| peers.members[at].file == worths.files[variant]);
    let shared_quality = match same_texts {
        true => moved([[End::Low; 2], [End::High; 2]]),
        false => opposed_quality,
    };
    // Errors of the ratio to each of the two members, as shares of it; the interpolated member is no surer than the worse of both.
    let ratio = own / peer;
    let relative = between.map(|at| {
        let member = &peers.members[at];
        let gain = rows[variant].gain(member.row, objective.metric(), objective.less_is_better())?;
        let scale = ratio / (own / member.cost);
        let seeds = gain.seeds_percent.unwrap_or(0.0);
        Some([(gain.shared_percent? + seeds) * scale, (gain.opposed_percent? + seeds) * scale])
    });
    let prices = match relative {
        [Some(a), Some(b)] => Some([a[0].max(b[0]), a[1].max(b[1])]),
        _ => None,
    };
    let shared = prices.zip(shared_quality).map(|(prices, quality)| prices[0] + quality);
    let opposed = prices.zip(opposed_quality).map(|(prices, quality)| prices[1] + quality);
    let percent = percent(peer);
    let verdict =
        Verdict::of(percent, shared.unwrap_or(0.0), opposed.unwrap_or(f64::INFINITY), shared.is_some());
    PeerFinding::Gain { percent, shared, opposed, verdict }
}
