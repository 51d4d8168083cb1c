//! What a call over generated tokens waits for where their contexts are not equally long. `docs/COST_MODEL.md`, "Uneven contexts".

/// How many sequences attention must read at a time to keep the memory of a device busy. A kernel gives each sequence and head to one block, and
/// one block alone reads at a fraction of the bandwidth: while the last and longest contexts are read, the rest idles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Filling {
    /// Sequences that fill the memory in a call of generated tokens alone.
    pub alone: f64,
    /// From so many rows on, such a call gives a sequence and head to one block; below, it cuts contexts into parts, and waits for none.
    pub whole_from: f64,
    /// Sequences that fill it in a call with rows of prompts, which cuts no context.
    pub beside: f64,
}

impl Filling {
    /// So many of the longest contexts of a call say what it waits for.
    pub fn longest(&self) -> usize {
        self.alone.max(self.beside).ceil() as usize
    }

    /// Entries that the device could have read in the time that the call waits for its longest contexts, beyond those that an even call of the
    /// same mean would wait for. `longest`: entries of the longest contexts, descending; `rows`: sequences, and those after padding;
    /// `pairs`: entries of all; `beside`: whether rows of prompts are in the call.
    ///
    /// With s(v) contexts longer than v and S sequences that fill the memory, the call takes as long as the integral of max(S, s(v)) dv entries
    /// do, up to the longest context. Of n contexts with the sum E that is E + I, where I integrates max(0, S - s(v)); in an even call
    /// I is max(0, S - n) E / n. An even call as long as this one has E times the ratio of both.
    pub fn waits(&self, longest: &[u32], (rows, padded): (u32, u32), pairs: u64, beside: bool) -> u64 {
        let fill = match beside {
            true => self.beside,
            false if f64::from(padded) < self.whole_from => return 0,
            false => self.alone,
        };
        let room = |read: usize| (fill - read as f64).max(0.0);
        // The integral, context by context: while the j longest are left, there is room for S - j.
        let next = longest.iter().skip(1).chain(std::iter::once(&0));
        let idle: f64 = (1..)
            .zip(longest.iter().zip(next))
            .map(|(read, (long, next))| room(read) * f64::from(long - next))
            .sum();
        let all = pairs as f64;
        let even = room(rows as usize) * all / f64::from(rows.max(1));
        (all * (idle - even).max(0.0) / (all + even).max(1.0)).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Filling;
    use proptest::prelude::*;

    const FILLING: Filling = Filling { alone: 5.5, whole_from: 26.0, beside: 4.0 };

    fn waits(contexts: &[u32], beside: bool) -> u64 {
        let mut longest = contexts.to_vec();
        longest.sort_unstable_by(|a, b| b.cmp(a));
        longest.truncate(FILLING.longest());
        let rows = contexts.len() as u32;
        FILLING.waits(
            &longest,
            (rows, rows),
            contexts.iter().map(|&entries| u64::from(entries)).sum(),
            beside,
        )
    }

    /// By hand: one context of 1000 among 31 of 100. When 100 entries of each are read, one is left: 4.5 more could be read beside it for the
    /// time of 900 entries, so the call takes as long as 4100 + 4050 entries.
    #[test]
    fn one_long_context_is_waited_for() {
        let mut contexts = vec![100; 31];
        contexts.push(1000);
        assert_eq!(waits(&contexts, false), 4050);
        // Below 26 rows, contexts are cut.
        assert_eq!(waits(&contexts[10..], false), 0);
        // Two sequences beside a prompt, filled by four: 3 x 900 + 2 x 100 entries' worth idle, 2 x 550 in an even call. 1100 (1 + 1800 / 2200).
        assert_eq!(waits(&[100, 1000], true), 900);
        assert_eq!(waits(&[550, 550], true), 0);
    }

    proptest! {
        /// Nobody waits in an even call, nor longer than for a call of all the longest; a longer longest context is never waited for less; and the
        /// integral over single entries says the same.
        #[test]
        fn the_time_is_the_integral(contexts in prop::collection::vec(1_u32..400, 1..60), beside in any::<bool>()) {
            let (rows, pairs) = (contexts.len() as u32, contexts.iter().map(|&entries| u64::from(entries)).sum::<u64>());
            let most = *contexts.iter().max().expect("contexts");
            let got = waits(&contexts, beside);
            prop_assert_eq!(waits(&vec![most; contexts.len()], beside), 0);
            prop_assert!(pairs + got <= u64::from(most) * u64::from(rows) + 1);
            let fill = if beside { FILLING.beside } else { FILLING.alone };
            let time = |contexts: &[f64], until: u32| -> f64 {
                let alive = |at: u32| contexts.iter().filter(|&&entries| entries > f64::from(at)).count() as f64;
                (0..until).map(|at| alive(at).max(fill)).sum()
            };
            if beside || f64::from(rows) >= FILLING.whole_from {
                let lengths: Vec<f64> = contexts.iter().copied().map(f64::from).collect();
                let even = f64::from(rows).max(fill) * pairs as f64 / f64::from(rows);
                let naive = pairs as f64 * (time(&lengths, most) / even).max(1.0);
                prop_assert!((naive - (pairs + got) as f64).abs() < 1.0, "{naive} {}", pairs + got);
            }
            let mut longer = contexts.clone();
            let longest = longer.iter_mut().max().expect("contexts");
            *longest += 50;
            prop_assert!(got <= 51 + waits(&longer, beside));
        }
    }
}
