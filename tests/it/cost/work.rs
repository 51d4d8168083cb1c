//! Work formulas that claim other flops or bytes than an execution takes: each kernel's oracle is run on counting
//! numbers, and its operations and distinct elements must be exactly what `Kernel::work` says.

use proptest::prelude::*;
use radialsim::kernel::{Attention, Density, ExpertLayer, ExpertLoad, Kernel, LatentAttention, Traffic};
use radialsim::reference::*;
use radialsim::rng::Stream;
use radialsim::units::Dtype;

/// Variants of `Kernel`; a new one makes [`number`] and [`execute`] incomplete, which the compiler says.
const KINDS: usize = 17;

fn number(kernel: &Kernel) -> usize {
    match kernel {
        Kernel::Embed { .. } => 0,
        Kernel::Norm { .. } => 1,
        Kernel::MatMul { .. } => 2,
        Kernel::GroupedMatMul { .. } => 3,
        Kernel::Rope { .. } => 4,
        Kernel::KvWrite { .. } => 5,
        Kernel::Attention(_) => 6,
        Kernel::Activation { .. } => 7,
        Kernel::ResidualAdd { .. } => 8,
        Kernel::Router { .. } => 9,
        Kernel::Gather { .. } => 10,
        Kernel::Scatter { .. } => 11,
        Kernel::Sample { .. } => 12,
        Kernel::ExpertSum { .. } => 13,
        Kernel::LatentAttention(_) => 14,
        Kernel::Quantise { .. } => 15,
        Kernel::ExpertLayer(_) => 16,
    }
}

/// A random small call of this kind.
fn draw(kind: usize, random: &mut Stream) -> Kernel {
    let mut upto = |most: u64| 1 + random.below(most) as u32;
    let (rows, width, columns) = (upto(6), upto(9), upto(7));
    let (groups, heads, kv_heads, head_dim) = (upto(rows.into()), upto(3), upto(2), 2 * upto(3));
    let (layer_norm, gated, decode, two_four) = (upto(2) == 1, upto(2) == 1, upto(2) == 1, upto(3) == 1);
    let mut dtype = || Dtype::ALL[upto(7) as usize - 1];
    let (activations, weights, kv) = (dtype(), dtype(), dtype());
    let quantised = [Dtype::Fp8, Dtype::Fp8Block, Dtype::Fp4][upto(3) as usize - 1];
    let inputs = if upto(2) == 1 { activations } else { quantised };
    let (inner, density) = if two_four { (4 * width, Density::TwoFour) } else { (width, Density::Dense) };
    match kind {
        0 => Kernel::Embed { rows, width, table: weights, activations },
        1 => Kernel::Norm { rows, width, groups, layer_norm, activations },
        2 => Kernel::MatMul { rows, inner, columns, weights, inputs, activations, density },
        3 => {
            let slices = groups;
            Kernel::GroupedMatMul {
                rows,
                groups,
                slices,
                inner,
                columns,
                weights,
                inputs,
                activations,
                density,
            }
        }
        4 => Kernel::Rope { rows, heads, head_dim, activations },
        5 => Kernel::KvWrite { rows, width: 2 * width, activations, kv },
        6 => Kernel::Attention(Attention {
            rows,
            heads: (heads * kv_heads) as u16,
            kv_heads: kv_heads as u16,
            head_dim: head_dim as u16,
            decode,
            beside: 0,
            waits: 0,
            // Filled in by `visible`.
            pairs: 0,
            entries: 0,
            activations,
            kv,
        }),
        7 => Kernel::Activation { rows, width, gated, activations },
        8 => Kernel::ResidualAdd { rows, width, activations },
        9 => {
            let hidden = if gated { 0 } else { columns };
            Kernel::Router { rows, width, hidden, options: groups + 1, weights, activations }
        }
        10 => Kernel::Gather { rows, width, activations },
        11 => Kernel::Scatter { rows, width, activations },
        12 => Kernel::Sample { rows, vocabulary: width, activations },
        13 => Kernel::ExpertSum { rows, width, top: columns, activations },
        14 => Kernel::LatentAttention(LatentAttention {
            rows,
            heads: (heads * kv_heads) as u16,
            kv_heads: kv_heads as u16,
            key_dim: (width + head_dim) as u16,
            value_dim: head_dim as u16,
            values_in_keys: gated,
            decode,
            pairs: 0,
            entries: 0,
            activations,
            kv,
        }),
        15 => Kernel::Quantise { rows, width: 30 * width + columns, activations, to: quantised },
        16 => {
            // Each expert that is needed has a row of its own first.
            let (own, top) = (groups + 1, 1 + columns % 2);
            let mut each = vec![0u32; own as usize];
            (0..rows * top).for_each(|copy| each[(copy % groups.min(rows * top)) as usize] += 1);
            Kernel::ExpertLayer(ExpertLayer {
                rows,
                width,
                inner: columns,
                count: own,
                own,
                top,
                gated,
                plain: true,
                load: ExpertLoad::of(&each),
                weights,
                inputs: activations,
                activations,
                density: Density::Dense,
            })
        }
        _ => unreachable!("the match of `number` has {KINDS} arms"),
    }
}

/// What each query row sees, as entries of one cache: a sequence a row (decode), or one prompt with holes.
fn visible(shape: &mut Attention, random: &mut Stream) -> Vec<Vec<u32>> {
    let rows = shape.rows;
    let seen = if shape.decode {
        let mut first = 0;
        let mut entries = |random: &mut Stream| {
            let range = first..first + 1 + random.below(5) as u32;
            first = range.end;
            range.collect()
        };
        (0..rows).map(|_| entries(random)).collect()
    } else {
        // Some tokens before the chunk left a hole; each token of the chunk sees itself.
        let cached: Vec<u32> = (0..8).filter(|_| random.chance(0.6)).chain(8..8 + rows).collect();
        causal(&(8..8 + rows).collect::<Vec<_>>(), &cached, None)
    };
    let seen: Vec<Vec<u32>> = seen;
    shape.pairs = seen.iter().map(|row| row.len() as u64).sum();
    shape.entries = seen.iter().flatten().map(|&entry| u64::from(entry) + 1).max().unwrap_or(0);
    seen
}

/// Arrays that an oracle reads, each at places of its own, and what was counted when it ran.
struct Run<'a> {
    random: &'a mut Stream,
    next: u32,
    counts: Counts,
}

/// An input and its first place.
type Input = (Vec<Counted>, u32);

impl Run<'_> {
    fn input(&mut self, count: u32) -> Input {
        let values: Vec<f64> = (0..count).map(|_| self.random.uniform() - 0.5).collect();
        let first = self.next;
        self.next += count;
        (Counted::load(&values, first), first)
    }

    /// Different numbers below `end`, in any order.
    fn choice(&mut self, count: u32, end: u32) -> Vec<u32> {
        let mut left: Vec<u32> = (0..end).collect();
        (0..count).map(|_| left.swap_remove(self.random.below(left.len() as u64) as usize)).collect()
    }

    fn count<T>(&mut self, oracle: impl FnOnce() -> T) -> T {
        let (results, counts) = Counted::count(oracle);
        self.counts.flops += counts.flops;
        self.counts.read.extend(counts.read);
        results
    }

    fn copied(&mut self, results: &[Counted]) {
        self.counts.read.extend(results.iter().filter_map(|result| result.place()));
    }

    /// Distinct elements of an input that were read, in bytes of this format.
    fn bytes(&self, (values, first): &Input, dtype: Dtype) -> u64 {
        dtype.bytes(self.counts.read.range(first..&(first + values.len() as u32)).count() as u64)
    }
}

/// Rows of each of `groups` groups, none empty.
fn split(rows: u32, groups: u32) -> Vec<usize> {
    let mut sizes = vec![1; groups as usize];
    sizes[groups as usize - 1] += (rows - groups) as usize;
    sizes
}

/// Runs the oracle of a call and counts what it takes. Attention's pairs and entries are those that were drawn.
fn execute(kernel: &mut Kernel, random: &mut Stream) -> Traffic {
    let run = &mut Run { random, next: 0, counts: Counts::default() };
    let size = |n: u32| n as usize;
    let index_bytes = |rows: u32| 4 * u64::from(rows);
    let mut traffic = Traffic::default();
    match *kernel {
        Kernel::Embed { rows, width, table, activations } => {
            let (weights, tokens) = (run.input(20 * width), run.choice(rows, 20));
            let out = run.count(|| embed_rows(size(width), &weights.0, &tokens));
            run.copied(&out);
            traffic.weight_bytes = run.bytes(&weights, table);
            traffic.activation_bytes = index_bytes(rows) + activations.bytes(out.len() as u64);
        }
        Kernel::Norm { rows, width, groups, layer_norm, activations } => {
            let input = run.input(rows * width);
            let (weight, bias) = (run.input(groups * width), run.input(groups * width));
            let (mut out, mut first, width) = (0, 0, size(width));
            for (group, rows) in split(rows, groups).into_iter().enumerate() {
                let input = &input.0[first * width..(first + rows) * width];
                let weight = &weight.0[group * width..(group + 1) * width];
                let bias = &bias.0[group * width..(group + 1) * width];
                let result = run.count(|| match layer_norm {
                    true => radialsim::reference::layer_norm(rows, width, input, weight, bias, 1e-5),
                    false => rms_norm(rows, width, input, weight, 1e-5),
                });
                (out, first) = (out + result.len() as u64, first + rows);
            }
            traffic.weight_bytes = run.bytes(&weight, activations) + run.bytes(&bias, activations);
            traffic.activation_bytes = run.bytes(&input, activations) + activations.bytes(out);
        }
        Kernel::MatMul { rows, inner, columns, weights, inputs, activations, density } => {
            let formats = (weights, inputs, activations, density);
            product(run, &mut traffic, &[size(rows)], inner, columns, formats);
        }
        Kernel::GroupedMatMul {
            rows, groups, inner, columns, weights, inputs, activations, density, ..
        } => {
            let formats = (weights, inputs, activations, density);
            product(run, &mut traffic, &split(rows, groups), inner, columns, formats);
        }
        Kernel::Quantise { rows, width, activations, to } => {
            let input = run.input(rows * width);
            let shape = (size(rows), size(width));
            let values = run.count(|| match to {
                Dtype::Fp8Block => quantise_blocks(shape, 128, &input.0, 448.0, None).0,
                Dtype::Fp4 => quantise_blocks(shape, 16, &input.0, 6.0, Some(Counted::constant(3.0))).0,
                _ => quantise(&input.0, Counted::constant(0.5), 448.0),
            });
            assert_eq!(values.len(), input.0.len());
            traffic.activation_bytes = run.bytes(&input, activations) + row_bytes(to, shape.0, shape.1);
        }
        Kernel::Rope { rows, heads, head_dim, activations } => {
            let input = run.input(rows * heads * head_dim);
            let angles = Angles::new(&run.choice(rows, 50), size(head_dim), 1e4);
            let out = run.count(|| rope(size(rows), size(heads), size(head_dim), &input.0, &angles, false));
            traffic.activation_bytes = run.bytes(&input, activations) + activations.bytes(out.len() as u64);
        }
        Kernel::KvWrite { rows, width, activations, kv } => {
            let (values, mut cache) = (run.input(rows * width), run.input(10 * width).0);
            let slots = run.choice(rows, 10);
            run.count(|| kv_write(size(width), &values.0, &slots, &mut cache));
            let own = 0..rows * width;
            cache.retain(|value| value.place().is_some_and(|place| own.contains(&place)));
            run.copied(&cache);
            traffic.activation_bytes = run.bytes(&values, activations);
            traffic.kv_bytes = kv.bytes(cache.len() as u64);
        }
        Kernel::Attention(ref mut shape) => {
            let seen = visible(shape, run.random);
            let heads = Heads {
                heads: shape.heads.into(),
                kv_heads: shape.kv_heads.into(),
                head_dim: shape.head_dim.into(),
            };
            let queries = run.input(shape.rows * u32::from(shape.heads * shape.head_dim));
            let cache = run.input(2 * shape.entries as u32 * u32::from(shape.kv_heads * shape.head_dim));
            let (keys, values) = cache.0.split_at(cache.0.len() / 2);
            let out = run
                .count(|| attention(heads, Scores::plain(heads.head_dim), &queries.0, keys, values, &seen));
            traffic.kv_bytes = run.bytes(&cache, shape.kv);
            traffic.activation_bytes =
                run.bytes(&queries, shape.activations) + shape.activations.bytes(out.len() as u64);
        }
        Kernel::Activation { rows, width, gated, activations } => {
            let (gate, up) = (run.input(rows * width), run.input(rows * width));
            let out = run.count(|| match gated {
                true => gated_activation(Activation::Silu, &gate.0, &up.0),
                false => activation(Activation::Silu, &gate.0),
            });
            traffic.activation_bytes = run.bytes(&gate, activations)
                + run.bytes(&up, activations)
                + activations.bytes(out.len() as u64);
        }
        Kernel::ResidualAdd { rows, width, activations } => {
            let (stream, branch) = (run.input(rows * width), run.input(rows * width));
            let mut out = stream.0.clone();
            run.count(|| residual_add(size(width), &mut out, &branch.0, None));
            traffic.activation_bytes = run.bytes(&stream, activations)
                + run.bytes(&branch, activations)
                + activations.bytes(out.len() as u64);
        }
        Kernel::Router { rows, width, hidden, options, weights, activations } => {
            let input = run.input(rows * width);
            let matrix = run.input(if hidden == 0 { width * options } else { (width + options) * hidden });
            let (first, second) = matrix.0.split_at(size(width * hidden));
            let given = match hidden {
                0 => RouterWeights::Linear(&matrix.0),
                _ => RouterWeights::Mlp { hidden: size(hidden), first, second },
            };
            let out = run.count(|| router(size(rows), size(width), size(options), &input.0, given));
            traffic.weight_bytes = run.bytes(&matrix, weights);
            traffic.activation_bytes = run.bytes(&input, activations) + index_bytes(out.len() as u32);
        }
        Kernel::Gather { rows, width, activations } => {
            let (input, chosen) = (run.input(9 * width), run.choice(rows, 9));
            let out = run.count(|| gather_rows(size(width), &input.0, &chosen));
            run.copied(&out);
            traffic.activation_bytes =
                run.bytes(&input, activations) + activations.bytes(out.len() as u64) + index_bytes(rows);
        }
        Kernel::Scatter { rows, width, activations } => {
            let (block, stream, chosen) =
                (run.input(rows * width), run.input(9 * width), run.choice(rows, 9));
            let mut out = stream.0.clone();
            run.count(|| scatter_rows(size(width), &block.0, &chosen, &mut out));
            run.copied(&out);
            // What the stream holds of the block was written.
            let written =
                out.iter().filter(|value| value.place().is_some_and(|at| at < stream.1)).count() as u64;
            traffic.activation_bytes =
                run.bytes(&block, activations) + activations.bytes(written) + index_bytes(rows);
        }
        Kernel::Sample { rows, vocabulary, activations } => {
            let logits = run.input(rows * vocabulary);
            let out = run.count(|| sample(size(rows), size(vocabulary), &logits.0));
            traffic.activation_bytes = run.bytes(&logits, activations) + index_bytes(out.len() as u32);
        }
        Kernel::LatentAttention(ref mut shape) => {
            let mut plain = Attention {
                rows: shape.rows,
                heads: shape.heads,
                kv_heads: shape.kv_heads,
                head_dim: shape.key_dim,
                decode: shape.decode,
                beside: 0,
                waits: 0,
                pairs: 0,
                entries: 0,
                activations: shape.activations,
                kv: shape.kv,
            };
            let seen = visible(&mut plain, run.random);
            (shape.pairs, shape.entries) = (plain.pairs, plain.entries);
            let heads = LatentHeads {
                heads: shape.heads.into(),
                kv_heads: shape.kv_heads.into(),
                key_dim: shape.key_dim.into(),
                value_dim: shape.value_dim.into(),
                values_in_keys: shape.values_in_keys,
            };
            let queries = run.input(shape.rows * u32::from(shape.heads * shape.key_dim));
            let width = shape.key_dim + if shape.values_in_keys { 0 } else { shape.value_dim };
            let entries = run.input(shape.entries as u32 * u32::from(shape.kv_heads * width));
            let out = run.count(|| latent_attention(heads, 0.5, &queries.0, &entries.0, &seen));
            traffic.kv_bytes = run.bytes(&entries, shape.kv);
            traffic.activation_bytes =
                run.bytes(&queries, shape.activations) + shape.activations.bytes(out.len() as u64);
        }
        Kernel::ExpertLayer(shape) => {
            let add = |sum: Traffic, mut part: Kernel| {
                let part = execute(&mut part, run.random);
                Traffic {
                    flops: sum.flops + part.flops,
                    weight_bytes: sum.weight_bytes + part.weight_bytes,
                    kv_bytes: sum.kv_bytes + part.kv_bytes,
                    activation_bytes: sum.activation_bytes + part.activation_bytes,
                }
            };
            return shape.parts().into_iter().fold(Traffic::default(), add);
        }
        Kernel::ExpertSum { rows, width, top, activations } => {
            let (said, shares) = (run.input(rows * top * width), run.input(rows * top));
            let out = run.count(|| sum_experts(size(width), &said.0, &shares.0, size(top)));
            traffic.activation_bytes = run.bytes(&said, activations)
                + run.bytes(&shares, Dtype::F32)
                + activations.bytes(out.len() as u64);
        }
    }
    traffic.flops = run.counts.flops;
    traffic
}

/// A product whose groups have weights of their own.
fn product(
    run: &mut Run,
    traffic: &mut Traffic,
    group_rows: &[usize],
    inner: u32,
    columns: u32,
    (weights, inputs, activations, density): (Dtype, Dtype, Dtype, Density),
) {
    let rows: usize = group_rows.iter().sum();
    let input = run.input(rows as u32 * inner);
    let (width, columns) = (inner as usize, columns as usize);
    let kept = if density == Density::TwoFour { inner / 2 } else { inner } * columns as u32;
    let (mut first, mut out) = (0, 0);
    let matrices: Vec<Input> = group_rows.iter().map(|_| run.input(kept)).collect();
    if density == Density::Dense && group_rows.len() > 1 {
        let all: Vec<Counted> = matrices.iter().flat_map(|matrix| matrix.0.clone()).collect();
        out = run.count(|| grouped_matmul(group_rows, width, columns, &input.0, &all)).len();
    } else {
        for (&rows, matrix) in group_rows.iter().zip(&matrices) {
            let input = &input.0[first * width..(first + rows) * width];
            out += match density {
                Density::TwoFour => {
                    // Both of the first two places of one four, and of the last two of the next, and so on.
                    let places: Vec<u8> = (0..kept).map(|k| (k % 2 + 2 * (k / 2 % 2)) as u8).collect();
                    traffic.weight_bytes += (2 * u64::from(kept)).div_ceil(8);
                    let sparse = TwoFour { kept: matrix.0.clone(), places };
                    // These places need all of the input where a column has two fours; with one, another column would.
                    run.copied(input);
                    run.count(|| matmul_two_four(rows, width, columns, input, &sparse)).len()
                }
                _ => run.count(|| matmul(rows, width, columns, input, &matrix.0)).len(),
            };
            first += rows;
        }
    }
    traffic.weight_bytes += matrices.iter().map(|matrix| run.bytes(matrix, weights)).sum::<u64>();
    // One block, so that formats with scales round once.
    assert_eq!(run.bytes(&input, Dtype::F32), Dtype::F32.bytes(input.0.len() as u64));
    traffic.activation_bytes = if inputs == activations {
        activations.bytes((input.0.len() + out) as u64)
    } else {
        row_bytes(inputs, rows, width) + activations.bytes(out as u64)
    };
}

/// Bytes of quantised rows, counted block by block: a byte or half a byte a value, and the scales.
fn row_bytes(format: Dtype, rows: usize, width: usize) -> u64 {
    let row: usize = match format {
        Dtype::Fp8Block => (0..width).step_by(128).map(|first| (width - first).min(128) + 4).sum(),
        Dtype::Fp4 => {
            let bits: usize = (0..width).step_by(16).map(|first| 4 * (width - first).min(16)).sum();
            // Blocks are whole, their scales a byte each; the last one counts by its share, as with weights.
            (bits * 9).div_ceil(8 * 8)
        }
        _ => width,
    };
    (rows * row) as u64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_execution_takes_the_work_that_the_formula_says(seed in any::<u64>()) {
        for kind in 0..KINDS {
            let random = &mut Stream::new(seed, "work");
            let mut kernel = draw(kind, random);
            prop_assert_eq!(number(&kernel), kind);
            let counted = execute(&mut kernel, random);
            prop_assert_eq!(counted, kernel.work(), "{:?}", kernel);
        }
    }
}

#[test]
fn an_effective_density_is_a_share_of_the_dense_product() {
    let product = |density| {
        let (weights, activations) = (Dtype::F16, Dtype::F16);
        Kernel::MatMul {
            rows: 7,
            inner: 100,
            columns: 20,
            weights,
            inputs: activations,
            activations,
            density,
        }
        .work()
    };
    let (dense, quarter) = (product(Density::Dense), product(Density::Effective(250)));
    assert_eq!((quarter.flops * 4, quarter.weight_bytes * 4), (dense.flops, dense.weight_bytes));
    assert_eq!(quarter.activation_bytes, dense.activation_bytes);
    assert_eq!(product(Density::Effective(1000)), dense);
}
