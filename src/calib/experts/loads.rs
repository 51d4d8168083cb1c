//! How the collector that measured expert layers spreads tokens over experts, drawn anew.
//!
//! NVIDIA's aiconfigurator (`collector/.../collect_moe.py`, `balanced_logits`, `power_law_logits_v3`): balanced rows are dealt out evenly.
//! A power law draws a number from [1, 0.8 tokens] (or [0.01, 2], where there are no more copies than experts) for each expert with a density
//! that falls as x^-alpha, scales the numbers to the copies and rounds them; times are means over five such draws, and with several devices
//! those of the one with most rows. What rounding left over goes to the experts with fewest rows here, as the times say: with that the
//! experts hit explain how measured times of few tokens grow, with the other order they do not.

use crate::kernel::ExpertLoad;
use crate::rng::Stream;

/// Draws of a power law whose mean stands for the five of the collector.
const DRAWS: usize = 24;
/// Tokens whose choices are followed one by one, where a choice is limited to groups; of more, so many stand for all.
const FOLLOWED: u32 = 1024;

/// Who chooses: tokens, experts of the layer, experts that a token takes, devices, and the groups of experts with how many of them a token may
/// choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GateShape {
    /// Tokens.
    pub rows: u32,
    /// Experts of the layer.
    pub count: u32,
    /// Experts that a token takes.
    pub top: u32,
    /// Devices that the experts are spread over, evenly.
    pub devices: u32,
    /// Groups, and how many a token may choose from.
    pub groups: Option<(u32, u32)>,
}

impl GateShape {
    fn copies(&self) -> u64 {
        u64::from(self.rows) * u64::from(self.top)
    }

    /// Rows of each expert of the first device, dealt out evenly.
    pub fn balanced(&self) -> ExpertLoad {
        let stride = self.count.div_ceil(self.top);
        let follows = self.rows.min(FOLLOWED);
        // Token t takes expert t of every stride; few tokens spread over the stride.
        let place = |token: u32, nth: u32| {
            let within = if self.rows >= stride { token } else { token * stride / self.rows };
            (within + nth * stride) % self.count
        };
        let chosen: Vec<Vec<u32>> =
            (0..follows).map(|token| (0..self.top).map(|nth| place(token, nth)).collect()).collect();
        ExpertLoad::of(&self.own(&self.counted(&chosen)))
    }

    /// The mean over draws of the rows of each expert of the device with most of them.
    pub fn power_law(&self, alpha: f64) -> ExpertLoad {
        let name = format!("experts {} {} {} {} {alpha}", self.rows, self.count, self.top, self.devices);
        let mut random = Stream::new(0, &name);
        let draws = if self.groups.is_some() { DRAWS / 4 } else { DRAWS };
        let draws: Vec<Vec<u32>> = (0..draws).map(|_| self.drawn(alpha, &mut random)).collect();
        ExpertLoad::mean(&draws.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn drawn(&self, alpha: f64, random: &mut Stream) -> Vec<u32> {
        let mut rows = self.rounded(alpha, random);
        // The device with most rows is measured: its experts come first.
        let own = (self.count / self.devices) as usize;
        let sums: Vec<u64> = rows.chunks(own).map(|rows| rows.iter().copied().map(u64::from).sum()).collect();
        let hot = (0..sums.len()).rev().max_by_key(|&device| sums[device]).unwrap_or(0);
        (0..own).for_each(|expert| rows.swap(expert, hot * own + expert));
        if self.groups.is_some() {
            // Copies in the order of the experts, most rows first: token t takes every `rows`-th of them from t on.
            let mut order: Vec<u32> = (0..self.count).collect();
            order.sort_by_key(|&expert| std::cmp::Reverse(rows[expert as usize]));
            let copies: Vec<u32> = order
                .into_iter()
                .flat_map(|expert| std::iter::repeat_n(expert, rows[expert as usize] as usize))
                .collect();
            let step = (self.rows / FOLLOWED).max(1);
            let token = |t: u32| {
                (0..self.top).map(|nth| copies[(nth * self.rows + t) as usize]).collect::<Vec<u32>>()
            };
            let follows = self.rows.min(FOLLOWED);
            rows = self.counted(&(0..follows).map(|t| token(t * step)).collect::<Vec<_>>());
        }
        self.own(&rows)
    }

    /// Numbers of a power law scaled to the copies, whole, none above the tokens.
    fn rounded(&self, alpha: f64, random: &mut Stream) -> Vec<u32> {
        let (tokens, copies, count) = (f64::from(self.rows), self.copies(), self.count as usize);
        let (low, high) =
            if copies > u64::from(self.count) { (1.0, (0.8 * tokens).max(1.000_1)) } else { (0.01, 2.0) };
        let power = |x: f64| libm::pow(x, 1.0 - alpha);
        let numbers: Vec<f64> = (0..count)
            .map(|_| {
                let inside = (power(high) - power(low)) * random.uniform() + power(low);
                libm::pow(inside, 1.0 / (1.0 - alpha))
            })
            .collect();
        let scale = copies as f64 / numbers.iter().sum::<f64>();
        let mut rows: Vec<u32> = numbers.iter().map(|x| libm::rint(x * scale) as u32).collect();
        if rows.iter().all(|&rows| rows == 0) {
            // Sorting equal numbers leaves what is left over spread evenly.
            (0..copies).for_each(|copy| rows[(copy as usize * count) / copies as usize] += 1);
        }
        let mut order: Vec<usize> = (0..count).collect();
        random.shuffle(&mut order);
        order.sort_by_key(|&expert| rows[expert]);
        let mut sum: u64 = rows.iter().copied().map(u64::from).sum();
        let mut turn = 0;
        while sum < copies {
            rows[order[turn % count]] += 1;
            sum += 1;
            turn += 1;
        }
        while sum > copies {
            let expert = order[count - 1 - turn % count];
            let most = (0..count).max_by_key(|&expert| rows[expert]).unwrap_or(0);
            let from = if rows[expert] > 0 { expert } else { most };
            rows[from] -= 1;
            sum -= 1;
            turn += 1;
        }
        // No token takes an expert twice: what is above goes to those with fewest.
        let mut over: u64 = rows.iter().map(|&rows| u64::from(rows.saturating_sub(self.rows))).sum();
        rows.iter_mut().for_each(|rows| *rows = (*rows).min(self.rows));
        for &expert in order.iter().cycle().take(count * 64) {
            if over == 0 {
                break;
            }
            let more = u64::from(self.rows - rows[expert]).min(over.div_ceil(count as u64));
            rows[expert] += more as u32;
            over -= more;
        }
        rows
    }

    /// Rows of each expert, of tokens that chose so, as many times as there are tokens for each that was followed.
    fn counted(&self, chosen: &[Vec<u32>]) -> Vec<u32> {
        let mut rows = vec![0u32; self.count as usize];
        for token in chosen {
            match self.groups {
                None => token.iter().for_each(|&expert| rows[expert as usize] += 1),
                Some(groups) => {
                    self.limited(token, groups).iter().for_each(|&expert| rows[expert as usize] += 1);
                }
            }
        }
        let times = f64::from(self.rows) / chosen.len().max(1) as f64;
        rows.iter().map(|&rows| libm::rint(f64::from(rows) * times) as u32).collect()
    }

    /// What a token takes whose scores are equal for the experts of `wanted` and lower for all others, if it may choose from a few groups only: the
    /// groups are those whose two best scores have the largest sum (DeepSeek-V3, arXiv 2412.19437, section 2.1.2), and ties go to the
    /// lower number. So groups without a wanted expert are never taken, but those that are fill up with others.
    fn limited(&self, wanted: &[u32], (groups, from): (u32, u32)) -> Vec<u32> {
        let each = self.count / groups;
        let hits = |group: u32| wanted.iter().filter(|&&expert| expert / each == group).count().min(2);
        let mut order: Vec<u32> = (0..groups).collect();
        order.sort_by_key(|&group| std::cmp::Reverse(hits(group)));
        order.truncate(from as usize);
        order.sort_unstable();
        let inside = |expert: u32| order.contains(&(expert / each));
        let mut taken: Vec<u32> = wanted.iter().copied().filter(|&expert| inside(expert)).collect();
        let others = order.iter().flat_map(|&group| group * each..(group + 1) * each);
        let missing = (self.top as usize).saturating_sub(taken.len());
        let fill: Vec<u32> = others.filter(|expert| !wanted.contains(expert)).take(missing).collect();
        taken.extend(fill);
        taken
    }

    fn own(&self, rows: &[u32]) -> Vec<u32> {
        rows[..(self.count / self.devices) as usize].to_vec()
    }
}
