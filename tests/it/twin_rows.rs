//! Norms, rotations, attention and what moves rows, that come out otherwise on the device than in the oracle.

use crate::twin_support::{POISON, Twin, assert_near, near, wide};
use radialsim::gpu::{Record, shaders as s};
use radialsim::reference::{self, Activation, Angles, Heads};

const ROWS: [u32; 5] = [1, 2, 7, 8, 9];
const WIDTHS: [u32; 5] = [4, 28, 32, 36, 172];

/// Rows without the padding behind them, which must be untouched.
fn inside(found: &[f32], width: u32, stride: u32) -> Vec<f32> {
    let rows = found.chunks_exact(stride as usize);
    assert!(
        rows.clone().all(|row| row[width as usize..].iter().all(|x| x.to_bits() == POISON)),
        "padding is touched"
    );
    rows.flat_map(|row| row[..width as usize].to_vec()).collect()
}

/// Rows of `width` out of rows of `stride`.
fn dense(values: &[f32], width: u32, stride: u32) -> Vec<f64> {
    values.chunks_exact(stride as usize).flat_map(|row| wide(&row[..width as usize])).collect()
}

#[test]
fn norms_with_the_weights_of_each_rows_layer() {
    let Some(mut twin) = Twin::new("norms") else { return };
    for (layer_norm, shader) in [(false, s::RMS_NORM), (true, s::LAYER_NORM)] {
        for (rows, width) in ROWS.into_iter().zip(WIDTHS) {
            for times in [1, 4] {
                let subgroup = twin.subgroup();
                let (from, to) = (width + 4, width + 8);
                let each = width * (1 + u32::from(layer_norm));
                let (input, weights) = (twin.values(rows * from), twin.values(3 * each));
                let layers: Vec<u32> = (0..rows).map(|_| twin.upto(3)).collect();
                let lists = twin.upload(&[&[8, 8], &layers[..]].concat());
                let epsilon = 1e-5;
                let parameters = s::Norm {
                    rows,
                    width4: width / 4,
                    input_stride4: from / 4,
                    output_stride4: to / 4,
                    layers: 2,
                    epsilon: 1e-5,
                };
                let run = |input: &[f32]| {
                    let output = twin.poisoned(rows * to);
                    let buffers = [&twin.upload(input), &twin.upload(&weights), &lists, &output];
                    let constants = [("WORKGROUP", f64::from(subgroup * times))];
                    twin.run((shader, &constants), &buffers, &parameters, [rows.div_ceil(times), 1, 1]);
                    inside(&twin.floats(&output, rows * to), width, to)
                };
                let wanted: Vec<f64> = (0..rows as usize)
                    .flat_map(|row| {
                        let x = dense(&input, width, from)[row * width as usize..][..width as usize].to_vec();
                        let own = wide(&weights[(layers[row] * each) as usize..][..each as usize]);
                        let (weight, bias) = own.split_at(width as usize);
                        match layer_norm {
                            false => reference::rms_norm(1, width as usize, &x, weight, epsilon),
                            true => reference::layer_norm(1, width as usize, &x, weight, bias, epsilon),
                        }
                    })
                    .collect();
                assert_near(&run(&input), &wanted, 2e-5, shader.name);
                let mut other = input.clone();
                other[0] = 3.0 - other[0];
                assert!(!near(&run(&other), &wanted, 2e-5), "a wrong input goes unnoticed");
            }
        }
    }
}

#[test]
fn rotations_in_both_orders() {
    let Some(mut twin) = Twin::new("rope") else { return };
    for interleaved in [false, true] {
        for (rows, heads, head_dim) in [(1, 1, 4), (3, 5, 8), (9, 3, 64)] {
            for workgroup in [8, 64] {
                let stride = heads * head_dim + 12;
                let positions: Vec<u32> = (0..rows).map(|_| twin.upto(300)).collect();
                let angles = Angles::<f64>::new(&(0..300).collect::<Vec<_>>(), head_dim as usize, 10_000.0);
                let table: Vec<[f32; 2]> =
                    angles.cos.iter().zip(&angles.sin).map(|(&cos, &sin)| [cos as f32, sin as f32]).collect();
                let input = twin.values(rows * stride);
                let values = twin.upload(&input);
                let lists = twin.upload(&[&[1, 2, 3], &positions[..]].concat());
                let parameters = s::Rope { rows, heads, half: head_dim / 2, stride, positions: 3 };
                let constants =
                    [("WORKGROUP", f64::from(workgroup)), ("INTERLEAVED", f64::from(u8::from(interleaved)))];
                let groups = [(heads * head_dim / 2).div_ceil(workgroup), rows, 1];
                twin.run(
                    (s::ROPE, &constants),
                    &[&twin.upload(&table), &lists, &values],
                    &parameters,
                    groups,
                );
                let found = twin.floats(&values, rows * stride);
                let width = heads * head_dim;
                let mut x = dense(&input, width, stride);
                // The oracle turns halves; interleaved pairs are brought there and back.
                let half = |i: usize| if interleaved { i / 2 + i % 2 * (head_dim as usize / 2) } else { i };
                let place = |index: usize| {
                    index / head_dim as usize * head_dim as usize + half(index % head_dim as usize)
                };
                let mut halves = x.clone();
                (0..x.len()).for_each(|index| halves[place(index)] = x[index]);
                let turns = Angles::new(&positions, head_dim as usize, 10_000.0);
                let turned =
                    reference::rope(rows as usize, heads as usize, head_dim as usize, &halves, &turns);
                (0..x.len()).for_each(|index| x[index] = turned[place(index)]);
                let got: Vec<f32> = found
                    .chunks_exact(stride as usize)
                    .flat_map(|row| row[..width as usize].to_vec())
                    .collect();
                assert_near(&got, &x, 2e-6, "rope");
                for (row, before) in
                    found.chunks_exact(stride as usize).zip(input.chunks_exact(stride as usize))
                {
                    assert_eq!(
                        row[width as usize..],
                        before[width as usize..],
                        "what stands behind is left alone"
                    );
                }
            }
        }
    }
}

/// A cache of several sequences, and queries of some of them.
struct Cached {
    heads: Heads,
    cache: Vec<f32>,
    keys: Vec<f64>,
    values: Vec<f64>,
}

impl Cached {
    fn new(twin: &mut Twin, heads: Heads, entries: u32) -> Cached {
        let kv = heads.kv_heads * heads.head_dim;
        let cache = twin.values(entries * 2 * kv as u32);
        let side =
            |first: usize| cache.chunks_exact(2 * kv).flat_map(|row| wide(&row[first..first + kv])).collect();
        let (keys, values) = (side(0), side(kv));
        Cached { heads, cache, keys, values }
    }

    fn attention(&self, query: &[f64], entries: &[u32]) -> Vec<f64> {
        reference::attention(self.heads, query, &self.keys, &self.values, &[entries.to_vec()])
    }
}

const HEADS: [Heads; 5] = [
    Heads { heads: 1, kv_heads: 1, head_dim: 4 },
    Heads { heads: 8, kv_heads: 4, head_dim: 8 },
    Heads { heads: 9, kv_heads: 3, head_dim: 64 },
    Heads { heads: 4, kv_heads: 1, head_dim: 100 },
    Heads { heads: 2, kv_heads: 2, head_dim: 256 },
];

#[test]
fn a_query_attends_to_its_entries_and_no_others() {
    let Some(mut twin) = Twin::new("decode") else { return };
    for heads in HEADS {
        for (listed, times) in [(false, 1), (true, 1), (false, 2)] {
            let cached = Cached::new(&mut twin, heads, 80);
            let (q, subgroup) = ((heads.heads * heads.head_dim) as u32, twin.subgroup());
            let (from, to) = (q + 8, q + 4);
            // Row of the block, first entry, entries, list: out of order, and one row that nobody asks about.
            let rows = [(3, 0, 1), (0, 5, 7), (1, 20, 8), (4, 40, 33)];
            let queries = twin.values(6 * from);
            let mut lists = vec![7; 5];
            let orders: Vec<Vec<u32>> = rows
                .iter()
                .map(|&(_, first, count)| {
                    (0..count).map(|at| if listed { (first + at * 29) % 80 } else { first + at }).collect()
                })
                .collect();
            let at: Vec<u32> = orders
                .iter()
                .map(|order| {
                    lists.extend(order);
                    (lists.len() - order.len()) as u32
                })
                .collect();
            let rows_at = lists.len() as u32;
            lists
                .extend(rows.iter().zip(&at).flat_map(|(&(row, first, count), &at)| [row, first, count, at]));
            let head4 = heads.head_dim as u32 / 4;
            let parameters = s::Attention {
                heads: heads.heads as u32,
                group: (heads.heads / heads.kv_heads) as u32,
                head4,
                kv4: heads.kv_heads as u32 * head4,
                query_stride4: from / 4,
                output_stride4: to / 4,
                rows_at,
                scale: (1.0 / (heads.head_dim as f64).sqrt()) as f32,
                count: rows.len() as u32,
            };
            let run = |cache: &[f32]| {
                let output = twin.poisoned(6 * to);
                let buffers = [&twin.upload(&queries), &twin.upload(cache), &twin.upload(&lists), &output];
                let constants =
                    [("WORKGROUP", f64::from(subgroup * times)), ("LISTED", f64::from(u8::from(listed)))];
                let groups =
                    [(heads.heads as u32).div_ceil(times), rows.len() as u32, head4.div_ceil(2 * subgroup)];
                twin.run((s::ATTENTION_DECODE, &constants), &buffers, &parameters, groups);
                twin.floats(&output, 6 * to)
            };
            let found = run(&cached.cache);
            for (&(row, ..), order) in rows.iter().zip(&orders) {
                let query = wide(&queries[(row * from) as usize..][..q as usize]);
                let got = &found[(row * to) as usize..][..q as usize];
                assert_near(got, &cached.attention(&query, order), 1e-5, "attention_decode");
            }
            for row in [2, 5] {
                assert!(found[(row * to) as usize..][..to as usize].iter().all(|x| x.to_bits() == POISON));
            }
            // An entry that nobody sees changes nothing; one that is seen does.
            let unseen = (0..80)
                .find(|entry| orders.iter().all(|order| !order.contains(entry)))
                .expect("some are left");
            let width = 2 * heads.kv_heads * heads.head_dim;
            let mut other = cached.cache.clone();
            other[unseen as usize * width..][..width].fill(f32::NAN);
            assert_eq!(bytes(&run(&other)), bytes(&found));
            other = cached.cache.clone();
            other[orders[1][2] as usize * width..][..width].fill(2.0);
            assert_ne!(bytes(&run(&other)), bytes(&found));
        }
    }
}

fn bytes(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn rows_of_a_prompt_attend_to_what_came_before() {
    let Some(mut twin) = Twin::new("prefill") else { return };
    for heads in HEADS {
        // Rows, entries before them; a step of 0 is a row that leaves a hole behind.
        for (rows, before, first) in [(1, 0, 0), (7, 3, 2), (8, 0, 5), (9, 20, 1), (20, 13, 30)] {
            let cached = Cached::new(&mut twin, heads, 80);
            let q = (heads.heads * heads.head_dim) as u32;
            let (from, to) = (q + 4, q + 8);
            let queries = twin.values(rows * from);
            let mut seen = before;
            let counts: Vec<u32> = (0..rows)
                .map(|row| {
                    seen += u32::from(row == 0 || twin.random.chance(0.7));
                    seen
                })
                .collect();
            let mut lists = vec![4; 3];
            for eight in (0..rows).collect::<Vec<_>>().chunks(8) {
                let full = |index: usize| eight[index.min(eight.len() - 1)];
                lists.extend((0..8).map(full));
                lists.push(first);
                lists.extend((0..8).map(|index| counts[full(index) as usize]));
            }
            let (head4, subgroup) = (heads.head_dim as u32 / 4, twin.subgroup());
            let parameters = s::Attention {
                heads: heads.heads as u32,
                group: (heads.heads / heads.kv_heads) as u32,
                head4,
                kv4: heads.kv_heads as u32 * head4,
                query_stride4: from / 4,
                output_stride4: to / 4,
                rows_at: 3,
                scale: (1.0 / (heads.head_dim as f64).sqrt()) as f32,
                count: rows.div_ceil(8),
            };
            let run = |cache: &[f32]| {
                let output = twin.poisoned(rows * to);
                let buffers = [&twin.upload(&queries), &twin.upload(cache), &twin.upload(&lists), &output];
                let constants = [("WORKGROUP", f64::from(subgroup))];
                let groups = [heads.heads as u32, rows.div_ceil(8), head4.div_ceil(subgroup)];
                twin.run((s::ATTENTION_PREFILL, &constants), &buffers, &parameters, groups);
                inside(&twin.floats(&output, rows * to), q, to)
            };
            let wanted: Vec<f64> = (0..rows)
                .flat_map(|row| {
                    let query = wide(&queries[(row * from) as usize..][..q as usize]);
                    let entries: Vec<u32> = (first..first + counts[row as usize]).collect();
                    cached.attention(&query, &entries)
                })
                .collect();
            assert_near(&run(&cached.cache), &wanted, 1e-5, "attention_prefill");
            let width = 2 * heads.kv_heads * heads.head_dim;
            let mut other = cached.cache.clone();
            other[first as usize * width..][..width].fill(2.0);
            assert!(!near(&run(&other), &wanted, 1e-5), "a wrong entry goes unnoticed");
        }
    }
}

#[test]
fn non_linearities() {
    let Some(mut twin) = Twin::new("activation") else { return };
    for (kind, oracle) in [(0, Activation::Silu), (1, Activation::GeluTanh), (2, Activation::Relu)] {
        for (rows, width) in ROWS.into_iter().zip(WIDTHS) {
            for (gated, workgroup) in [(false, 8), (true, 64), (true, 8), (false, 64)] {
                let from = width * (1 + u32::from(gated)) + 4;
                let to = width + 4;
                let mut input = twin.values(rows * from);
                input.iter_mut().for_each(|x| *x *= 9.0);
                let output = twin.poisoned(rows * to);
                let parameters = s::Activation {
                    rows,
                    width4: width / 4,
                    input_stride4: from / 4,
                    output_stride4: to / 4,
                };
                let shader = if gated { s::GATED_ACTIVATION } else { s::ACTIVATION };
                let constants = [("WORKGROUP", f64::from(workgroup)), ("KIND", f64::from(kind))];
                let groups = [(width / 4).div_ceil(workgroup), rows, 1];
                twin.run((shader, &constants), &[&twin.upload(&input), &output], &parameters, groups);
                let found = inside(&twin.floats(&output, rows * to), width, to);
                let gate = dense(&input, width, from);
                let wanted = match gated {
                    false => reference::activation(oracle, &gate),
                    true => {
                        let shifted: Vec<f32> = input
                            .iter()
                            .skip(width as usize)
                            .copied()
                            .chain(vec![0.0; width as usize])
                            .collect();
                        reference::gated_activation(oracle, &gate, &dense(&shifted, width, from))
                    }
                };
                assert_near(&found, &wanted, 1e-6, shader.name);
            }
        }
    }
}

#[test]
fn rows_are_moved_added_and_written_where_they_belong() {
    let Some(mut twin) = Twin::new("rows") else { return };
    for (rows, width) in ROWS.into_iter().zip(WIDTHS) {
        for workgroup in [8, 64] {
            let constants = [("WORKGROUP", f64::from(workgroup))];
            let groups = [(width / 4).div_ceil(workgroup), rows, 1];
            let (stride, all) = (width + 4, rows + 3);
            let stream = twin.values(all * stride);
            let mut indices: Vec<u32> = (0..all).collect();
            let order: Vec<u32> = (0..rows)
                .map(|_| indices.swap_remove(twin.random.below(indices.len() as u64) as usize))
                .collect();
            let lists = twin.upload(&[&[3], &order[..]].concat());
            let gather = s::MoveRows {
                rows,
                width4: width / 4,
                from_stride4: stride / 4,
                to_stride4: width / 4,
                indices: 1,
            };
            let block = twin.poisoned(rows * width);
            let on_device = twin.upload(&stream);
            twin.run((s::GATHER_ROWS, &constants), &[&on_device, &lists, &block], &gather, groups);
            let found = twin.floats(&block, rows * width);
            assert_eq!(
                wide(&found),
                reference::gather_rows(width as usize, &dense(&stream, width, stride), &order)
            );

            let new = twin.values(rows * width);
            let scatter = s::MoveRows { from_stride4: width / 4, to_stride4: stride / 4, ..gather };
            twin.run(
                (s::SCATTER_ROWS, &constants),
                &[&twin.upload(&new), &lists, &on_device],
                &scatter,
                groups,
            );
            let found = twin.floats(&on_device, all * stride);
            let mut wanted = dense(&stream, width, stride);
            reference::scatter_rows(width as usize, &wide(&new), &order, &mut wanted);
            assert_eq!(dense(&found, width, stride), wanted);

            // The cache: some rows leave nothing.
            let slots: Vec<u32> =
                (0..).zip(&order).map(|(row, &slot)| if row % 3 == 2 { u32::MAX } else { slot }).collect();
            let (from, skipped) = (width + 8, 4);
            let input = twin.values(rows * from);
            let cache = twin.poisoned(all * width);
            let write =
                s::KvWrite { rows, width4: width / 4, stride4: from / 4, from4: skipped / 4, entries: 0 };
            let buffers = [&twin.upload(&input), &twin.upload(&slots), &cache];
            twin.run((s::KV_WRITE, &constants), &buffers, &write, groups);
            let found = twin.floats(&cache, all * width);
            for slot in 0..all {
                let row = slots.iter().position(|&at| at == slot);
                let got = &found[(slot * width) as usize..][..width as usize];
                match row {
                    Some(row) => {
                        assert_eq!(got, &input[row * from as usize + skipped as usize..][..width as usize])
                    }
                    None => assert!(got.iter().all(|x| x.to_bits() == POISON)),
                }
            }

            for masked in [false, true] {
                let (branch, stream) = (twin.values(rows * (width + 4)), twin.values(rows * stride));
                let mask: Vec<bool> = (0..rows).map(|_| twin.random.chance(0.5)).collect();
                let lists: Vec<u32> =
                    std::iter::once(1).chain(mask.iter().map(|&taken| taken.into())).collect();
                let sum = twin.upload(&stream);
                let add = s::ResidualAdd {
                    rows,
                    width4: width / 4,
                    stream_stride4: stride / 4,
                    branch_stride4: width / 4 + 1,
                    mask: 1,
                };
                let constants = [constants[0], ("MASKED", f64::from(u8::from(masked)))];
                let buffers = [&twin.upload(&branch), &twin.upload(&lists), &sum];
                twin.run((s::RESIDUAL_ADD, &constants), &buffers, &add, groups);
                let found = twin.floats(&sum, rows * stride);
                let mut wanted = dense(&stream, width, stride);
                let branch = dense(&branch, width, width + 4);
                reference::residual_add(width as usize, &mut wanted, &branch, masked.then_some(&mask[..]));
                let got: Vec<f32> = found
                    .chunks_exact(stride as usize)
                    .flat_map(|row| row[..width as usize].to_vec())
                    .collect();
                assert_near(&got, &wanted, 1e-6, "residual_add");
            }
        }
    }
}

#[test]
fn an_oracle_measures_and_decides_row_by_row() {
    let Some(mut twin) = Twin::new("oracle") else { return };
    for (rows, width) in ROWS.into_iter().zip(WIDTHS) {
        for (times, over_input) in [(1, 0), (4, 1)] {
            let mut branch = twin.values(rows * width);
            // Rows of different weight, so that some lie below the threshold.
            branch.chunks_exact_mut(width as usize).enumerate().for_each(|(row, values)| {
                values.iter_mut().for_each(|x| *x *= if row % 2 == 0 { 0.1 } else { 1.0 });
            });
            let (stream, starts) = (twin.values(rows * width), twin.values(rows * width));
            let subgroup = twin.subgroup();
            for begins in [1, 0] {
                let parameters = s::ResidualOracle {
                    rows,
                    width4: width / 4,
                    stream_stride4: width / 4,
                    branch_stride4: width / 4,
                    record: 1,
                    records: 3,
                    over_input,
                    threshold: 0.3,
                    begins,
                };
                let (sum, kept) = (twin.upload(&stream), twin.upload(&starts));
                let records = twin.poisoned(rows * 3 * 8);
                let constants = [("WORKGROUP", f64::from(subgroup * times))];
                let buffers = [&twin.upload(&branch), &sum, &kept, &records];
                twin.run(
                    (s::RESIDUAL_ORACLE, &constants),
                    &buffers,
                    &parameters,
                    [rows.div_ceil(times), 1, 1],
                );
                let found = twin.floats(&sum, rows * width);
                let records: Vec<Record> = twin.gpu.read(&records, (rows * 3) as usize).expect("records");
                for row in 0..rows as usize {
                    let part = |values: &[f32]| wide(&values[row * width as usize..][..width as usize]);
                    let (b, x) = (part(&branch), part(&stream));
                    let start = if begins == 1 { x.clone() } else { part(&starts) };
                    let square = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>();
                    let mut y = x.clone();
                    reference::residual_add(width as usize, &mut y, &b, None);
                    let ratio = (square(&b) / if over_input == 1 { square(&x) } else { square(&y) }).sqrt();
                    let out = if ratio >= 0.3 { y.clone() } else { x.clone() };
                    let along = out.iter().zip(&start).map(|(a, b)| a * b).sum();
                    let added: Vec<f64> = out.iter().zip(&start).map(|(a, b)| a - b).collect();
                    let record = records[row * 3 + 1];
                    assert_near(&found[row * width as usize..][..width as usize], &out, 1e-6, "stream");
                    assert_eq!(record.taken, f32::from(u8::from(ratio >= 0.3)));
                    let got = [
                        record.branch,
                        record.input,
                        record.output,
                        record.added,
                        record.along,
                        record.start,
                        record.ratio,
                    ];
                    let wanted =
                        [square(&b), square(&x), square(&y), square(&added), along, square(&start), ratio];
                    for (got, wanted) in got.into_iter().zip(wanted) {
                        assert_near(&[got], &[wanted], 1e-4, "record");
                    }
                    assert_eq!(records[row * 3].branch.to_bits(), POISON);
                }
            }
        }
    }
}

#[test]
fn decisions_become_lists() {
    let Some(mut twin) = Twin::new("place") else { return };
    for (rows, workgroup) in [(1, 8), (7, 8), (9, 64), (65, 8)] {
        let (layers, slots, hops) = (4, 10, 5);
        let bases: Vec<u32> = (0..rows).map(|row| row * 3).collect();
        let mut counts: Vec<u32> = (0..layers * rows).map(|_| twin.upto(3)).collect();
        let mut alive = vec![1; rows as usize];
        let at = |part: u32| 1 + part * rows;
        let mut lists = vec![POISON; (1 + (2 + layers + 6) * rows) as usize];
        lists[at(0) as usize..at(1) as usize].copy_from_slice(&alive);
        lists[at(1) as usize..at(2) as usize].copy_from_slice(&bases);
        lists[at(2) as usize..at(2 + layers) as usize].copy_from_slice(&counts);
        let on_device = twin.upload(&lists);
        for hop in 0..hops {
            let choices: Vec<u32> = (0..rows).map(|_| twin.upto(layers + 1)).collect();
            let mut decisions = vec![[9, 9]; 2];
            decisions.extend(choices.iter().map(|&choice| [choice, 0]));
            let parameters = s::PlaceRows {
                rows,
                layers,
                slots,
                decisions: 2,
                alive: at(0),
                bases: at(1),
                counts: at(2),
                layers_at: at(2 + layers),
                entries_at: at(3 + layers),
                seen_at: at(4 + layers),
            };
            let buffers = [&twin.upload(&decisions), &on_device];
            let constants = [("WORKGROUP", f64::from(workgroup))];
            twin.run((s::PLACE_ROWS, &constants), &buffers, &parameters, [rows.div_ceil(workgroup), 1, 1]);
            let found = twin.words(&on_device, lists.len() as u32);
            assert_eq!(found[0], POISON);
            for row in 0..rows as usize {
                let part = |which: u32| found[at(which) as usize + row];
                alive[row] &= u32::from(choices[row] < layers);
                let layer = if alive[row] == 1 { choices[row] } else { 0 };
                let count = &mut counts[layer as usize * rows as usize + row];
                let first = layer * slots + bases[row];
                let entry = if alive[row] == 1 { first + *count } else { u32::MAX };
                assert_eq!(
                    [part(0), part(2 + layers), part(3 + layers)],
                    [alive[row], layer, entry],
                    "hop {hop}"
                );
                let seen = &found[at(4 + layers) as usize + 4 * row..][..4];
                *count += alive[row];
                // A row that has left looks at something, whatever it is; its result is masked out.
                assert_eq!(seen, [row as u32, first, (*count).max(1), 0]);
            }
            assert_eq!(&found[at(2) as usize..at(2 + layers) as usize], &counts[..]);
        }
    }
}

#[test]
fn probes_do_what_they_are_timed_for() {
    let Some(mut twin) = Twin::new("probes") else { return };
    let input = twin.values(64 * 64 * 4);
    let on_device = twin.upload(&input);
    let copy = twin.poisoned(64 * 64 * 4);
    twin.run((s::PROBE_COPY, &[]), &[&on_device, &copy], &[0u32; 0], [64, 1, 1]);
    assert_eq!(twin.floats(&copy, 64 * 64 * 4), input);
    let sums = twin.poisoned(64);
    let constants = [("WORKGROUP", 8.0), ("EACH", 64.0)];
    twin.run((s::PROBE_READ, &constants), &[&on_device, &sums], &[0u32; 0], [8, 1, 1]);
    let wanted: Vec<f64> = input.chunks_exact(256).map(|run| wide(run).iter().sum()).collect();
    assert_near(&twin.floats(&sums, 64), &wanted, 1e-5, "probe_read");
    let start = twin.values(64 * 4);
    let values = twin.upload(&start);
    twin.run((s::PROBE_FMA, &[("ROUNDS", 3.0)]), &[&values], &[0u32; 0], [1, 1, 1]);
    let wanted: Vec<f64> = wide(&start)
        .into_iter()
        .map(|x| {
            let (mut a, mut b, mut c) = (x, x + 1.0, x + 2.0);
            for _ in 0..12 {
                a = a * 0.5 + b;
                b = b * 0.5 + c;
                c = c * 0.5 + a;
            }
            a + b + c
        })
        .collect();
    assert_near(&twin.floats(&values, 64 * 4), &wanted, 1e-5, "probe_fma");
    let untouched = twin.poisoned(8);
    twin.run((s::PROBE_EMPTY, &[]), &[&untouched], &[0u32; 0], [1, 1, 1]);
    assert_eq!(twin.words(&untouched, 8), [POISON; 8]);
}
