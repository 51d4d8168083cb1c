//! What a kernel of the rig should have come to, by its oracle: a few rows and columns of large calls, all of small ones.

use super::ops_choice::chosen_words;
use super::rig::{Contexts, Rig, segments};
use crate::calib::Probe;
use crate::error::{Error, Result};
use crate::kernel::{Attention, Kernel};
use crate::reference::{self, Activation, Angles, Heads, RouterWeights, Scores};

/// Rows that are looked at: the first, the last, and one between.
const LOOKS: u32 = 3;
/// Columns of a product that are looked at.
const COLUMNS: usize = 48;
/// Difference that passes, as a share of the largest value: sums of some thousand f32 products.
const TOLERANCE: f64 = 1e-4;

impl Rig {
    /// # Errors
    /// [`Error::Gpu`] where a value is not what the oracle says. NaN is not near anything.
    pub(super) fn check(&self, probe: &Probe) -> Result<()> {
        let (places, wanted) = self.wanted(probe);
        let most = places.iter().max().map_or(0, |&last| last + 1);
        let found: Vec<f32> = match probe.kernel {
            Kernel::Rope { .. } | Kernel::ResidualAdd { .. } => self.gpu().read(&self.input, most)?,
            _ => self.gpu().read(&self.output, most)?,
        };
        let picked: Vec<f32> = match probe.kernel {
            // Tokens are whole numbers.
            Kernel::Sample { .. } | Kernel::Router { .. } => {
                places.iter().map(|&at| found[at].to_bits() as f32).collect()
            }
            _ => places.iter().map(|&at| found[at]).collect(),
        };
        if near(&picked, &wanted) { Ok(()) } else { Err(wrong(probe, &picked, &wanted)) }
    }

    fn row(&self, row: u32, width: u32) -> Vec<f64> {
        self.span(row as usize * width as usize, width as usize)
    }

    fn span(&self, from: usize, count: usize) -> Vec<f64> {
        self.values[from..from + count].iter().map(|&x| f64::from(x)).collect()
    }

    /// Places in the output, and what should stand there.
    fn wanted(&self, probe: &Probe) -> (Vec<usize>, Vec<f64>) {
        let mut places = Vec::new();
        let mut wanted = Vec::new();
        let mut add = |first: usize, values: Vec<f64>| {
            places.extend(first..first + values.len());
            wanted.extend(values);
        };
        let at = |row: u32, stride: u32| row as usize * stride as usize;
        match probe.kernel {
            // It never runs: `call` refuses it.
            Kernel::LatentAttention(_) | Kernel::Quantise { .. } | Kernel::ExpertLayer(_) => {}
            Kernel::Embed { rows, width, .. } => looks(rows).for_each(|row| {
                let index = 7 * row % (1 << 10);
                add(at(row, width), reference::embed_rows(width as usize, &self.matrix, &[index]));
            }),
            Kernel::Norm { rows, width, groups, layer_norm, .. } => looks(rows).for_each(|row| {
                let (group, w) = (group_of(rows, groups, row), width as usize);
                let (x, each) = (self.row(row, width), w * (1 + usize::from(layer_norm)));
                let weight = self.span(group as usize * each, w);
                add(
                    at(row, width),
                    match layer_norm {
                        false => reference::rms_norm(1, w, &x, &weight, 1e-5),
                        true => reference::layer_norm(
                            1,
                            w,
                            &x,
                            &weight,
                            &self.span(group as usize * each + w, w),
                            1e-5,
                        ),
                    },
                );
            }),
            // All layers have the same weights.
            Kernel::MatMul { rows, inner, columns, .. }
            | Kernel::GroupedMatMul { rows, inner, columns, .. } => {
                looks(rows).for_each(|row| {
                    let some = COLUMNS.min(columns as usize);
                    let from = if row % 2 == 0 { 0 } else { columns as usize - some };
                    let weights = &self.matrix[from * inner as usize..][..some * inner as usize];
                    let y = reference::matmul(1, inner as usize, some, &self.row(row, inner), weights);
                    add(at(row, columns.next_multiple_of(4)) + from, y);
                });
            }
            Kernel::Rope { rows, heads, head_dim, .. } => looks(rows).for_each(|row| {
                let (half, width) = (head_dim as usize / 2, heads * head_dim);
                let turns = self.span((row % 64) as usize * 2 * half, 2 * half);
                let angles = Angles {
                    cos: turns.iter().step_by(2).copied().collect(),
                    sin: turns.iter().skip(1).step_by(2).copied().collect(),
                };
                add(
                    at(row, width),
                    reference::rope(
                        1,
                        heads as usize,
                        head_dim as usize,
                        &self.row(row, width),
                        &angles,
                        false,
                    ),
                );
            }),
            Kernel::KvWrite { rows, width, .. } => {
                looks(rows).for_each(|row| add(at(3 * row, width), self.row(row, width)))
            }
            Kernel::Attention(shape) => {
                looks(shape.rows).for_each(|row| self.attended(&shape, probe.sequences, row, &mut add))
            }
            Kernel::Activation { rows, width, gated, .. } => looks(rows).for_each(|row| {
                let w = width as usize;
                let x = self.row(row, width * (1 + u32::from(gated)));
                add(
                    at(row, width),
                    match gated {
                        true => reference::gated_activation(Activation::Silu, &x[..w], &x[w..]),
                        false => reference::activation(Activation::Silu, &x),
                    },
                );
            }),
            // Stream and branch hold the same values.
            Kernel::ResidualAdd { rows, width, .. } => looks(rows).for_each(|row| {
                let mut sum = self.row(row, width);
                reference::residual_add(width as usize, &mut sum, &self.row(row, width), None);
                add(at(row, width), sum);
            }),
            Kernel::Gather { rows, width, .. } => {
                looks(rows).for_each(|row| add(at(row, width), self.row(2 * row + 1, width)));
            }
            Kernel::Scatter { rows, width, .. } => {
                looks(rows).for_each(|row| add(at(2 * row + 1, width), self.row(row, width)));
            }
            Kernel::Sample { rows, vocabulary, .. } => looks(rows).for_each(|row| {
                let logits = self.row(row, vocabulary.next_multiple_of(4));
                let best = reference::sample(1, vocabulary as usize, &logits[..vocabulary as usize]);
                add(at(row, chosen_words(super::rig::TOP)) + 3, vec![f64::from(best[0])]);
            }),
            Kernel::ExpertSum { rows, width, top, .. } => looks(rows).for_each(|row| {
                let said = self.span((row * top) as usize * width as usize, (top * width) as usize);
                let shares = self.span((row * top) as usize, top as usize);
                add(at(row, width), reference::sum_experts(width as usize, &said, &shares, top as usize));
            }),
            Kernel::Router { rows, width, hidden, options, .. } => looks(rows).for_each(|row| {
                let inside = if hidden == 0 { width } else { hidden };
                let second = self.span(0, options as usize * inside as usize);
                let first = self.span(0, hidden as usize * width as usize);
                let weights = match hidden {
                    0 => RouterWeights::Linear(&second[..]),
                    hidden => RouterWeights::Mlp { hidden: hidden as usize, first: &first, second: &second },
                };
                let chosen =
                    reference::router(1, width as usize, options as usize, &self.row(row, width), weights);
                add(at(row, 2), vec![f64::from(chosen[0])]);
            }),
        }
        (places, wanted)
    }

    fn attended(&self, shape: &Attention, sequences: u32, row: u32, add: &mut impl FnMut(usize, Vec<f64>)) {
        let layout = Contexts::of(shape, sequences);
        let (heads, kv_heads, dim) = (shape.heads as usize, shape.kv_heads as usize, shape.head_dim as usize);
        let (sequence, within) = (row / layout.rows, row % layout.rows);
        let (first, seen) = ((sequence * layout.entries) as usize, (layout.before + within + 1) as usize);
        let kv = kv_heads * dim;
        // The buffer repeats its first entries.
        let entry = |index: usize, from: usize| {
            let start = (first + index) % 64 * 2 * kv + from;
            self.matrix[start..start + kv].iter().copied()
        };
        let keys: Vec<f64> = (0..seen).flat_map(|index| entry(index, 0)).collect();
        let values: Vec<f64> = (0..seen).flat_map(|index| entry(index, kv)).collect();
        let query = self.row(row, (heads * dim) as u32);
        let heads = Heads { heads, kv_heads, head_dim: dim };
        let visible = [(0..seen as u32).collect()];
        add(
            row as usize * query.len(),
            reference::attention(heads, Scores::plain(dim), &query, &keys, &values, &visible),
        );
    }
}

/// First, last and a middle row.
fn looks(rows: u32) -> impl Iterator<Item = u32> {
    let some = rows.min(LOOKS);
    (0..some).map(move |index| if some == 1 { 0 } else { index * (rows - 1) / (some - 1) })
}

/// Group of a row.
fn group_of(rows: u32, groups: u32, row: u32) -> u32 {
    let mut end = 0;
    let found = segments(rows, groups, 0, groups).iter().position(|segment| {
        end += segment.rows;
        row < end
    });
    found.expect("every row is in a group") as u32
}

fn near(found: &[f32], wanted: &[f64]) -> bool {
    let scale = wanted.iter().fold(1e-3, |scale: f64, x| scale.max(x.abs()));
    let all = found.iter().zip(wanted);
    found.len() == wanted.len()
        && all.into_iter().all(|(&found, wanted)| (f64::from(found) - wanted).abs() <= TOLERANCE * scale)
}

fn wrong(probe: &Probe, found: &[f32], wanted: &[f64]) -> Error {
    let worst = found.iter().zip(wanted).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
    Error::Gpu(format!("{:?} is off by up to {worst}, so it is not timed", probe.kernel))
}

#[cfg(test)]
mod tests {
    use super::near;

    #[test]
    fn one_wrong_value_or_nan_is_noticed() {
        let wanted = [1.0, -0.5, 0.25];
        assert!(near(&[1.0, -0.5, 0.25], &wanted));
        for wrong in [1.001, f32::NAN, f32::INFINITY] {
            assert!(!near(&[1.0, -0.5, 0.25 * wrong + wrong - 0.25], &wanted), "{wrong}");
        }
    }
}
