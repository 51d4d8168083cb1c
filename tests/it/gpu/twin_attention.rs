//! Rotations, norms of heads and attention that come out otherwise on the device than in the oracle.

use crate::twin_support::{POISON, Twin, assert_near, dense, inside, near, wide};
use radialsim::gpu::shaders as s;
use radialsim::reference::{self, Angles, Heads, Scores};

#[test]
fn rotations_in_both_orders() {
    let Some(mut twin) = Twin::new("rope") else { return };
    for interleaved in [false, true] {
        for (rows, heads, head_dim, turning) in
            [(1, 1, 4, 4), (3, 5, 8, 8), (9, 3, 64, 64), (3, 2, 80, 32), (2, 3, 12, 2), (5, 1, 20, 6)]
        {
            for workgroup in [8, 64] {
                let stride = heads * head_dim + 12;
                let positions: Vec<u32> = (0..rows).map(|_| twin.upto(300)).collect();
                let angles = Angles::<f64>::new(&(0..300).collect::<Vec<_>>(), turning as usize, 10_000.0);
                let table: Vec<[f32; 2]> =
                    angles.cos.iter().zip(&angles.sin).map(|(&cos, &sin)| [cos as f32, sin as f32]).collect();
                let input = twin.values(rows * stride);
                let values = twin.upload(&input);
                let lists = twin.upload(&[&[1, 2, 3], &positions[..]].concat());
                let parameters =
                    s::Rope { rows, heads, half: turning / 2, head: head_dim, stride, positions: 3 };
                let constants =
                    [("WORKGROUP", f64::from(workgroup)), ("INTERLEAVED", f64::from(u8::from(interleaved)))];
                let groups = [(heads * turning / 2).div_ceil(workgroup), rows, 1];
                twin.run(
                    (s::ROPE, &constants),
                    &[&twin.upload(&table), &lists, &values],
                    &parameters,
                    groups,
                );
                let found = twin.floats(&values, rows * stride);
                let width = heads * head_dim;
                let turns = Angles::new(&positions, turning as usize, 10_000.0);
                let (rows, heads, head_dim) = (rows as usize, heads as usize, head_dim as usize);
                let x = dense(&input, width, stride);
                let x = reference::rope(rows, heads, head_dim, &x, &turns, interleaved);
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

#[test]
fn heads_are_normed_alone_or_together() {
    let Some(mut twin) = Twin::new("head_norm") else { return };
    for layer in [false, true] {
        for (rows, queries, keys, width, each) in
            [(1, 4, 2, 32, 0), (7, 3, 1, 20, 0), (5, 2, 2, 64, 1), (9, 1, 0, 172, 0), (3, 0, 3, 8, 0)]
        {
            for times in [1, 2] {
                let (heads, before) = (queries + keys, 8);
                let stride = before + heads * width + 4;
                let sets = if each == 1 { heads } else { 2 };
                let (input, weights) = (twin.values(rows * stride), twin.values(3 * sets * width + 4));
                let layers: Vec<u32> = (0..rows).map(|_| twin.upto(3)).collect();
                let lists = twin.upload(&[&[8, 8], &layers[..]].concat());
                let parameters = s::HeadNorm {
                    rows,
                    heads,
                    queries,
                    each,
                    width4: width / 4,
                    stride4: stride / 4,
                    first4: before / 4,
                    layers: 2,
                    layer4: sets * width / 4,
                    weight4: 1,
                    epsilon: 1e-5,
                };
                let subgroup = twin.subgroup();
                let constants =
                    [("WORKGROUP", f64::from(subgroup * times)), ("LAYER", f64::from(u8::from(layer)))];
                let run = |input: &[f32]| {
                    let values = twin.upload(input);
                    let groups = [heads.div_ceil(times), rows, 1];
                    twin.run(
                        (s::HEAD_NORM, &constants),
                        &[&twin.upload(&weights), &lists, &values],
                        &parameters,
                        groups,
                    );
                    twin.floats(&values, rows * stride)
                };
                let found = run(&input);
                for row in 0..rows as usize {
                    for head in 0..heads as usize {
                        let at = row * stride as usize + before as usize + head * width as usize;
                        let set = if each == 1 { head } else { usize::from(head >= queries as usize) };
                        let from = 4 + (layers[row] * sets * width) as usize + set * width as usize;
                        let (x, weight) =
                            (wide(&input[at..][..width as usize]), wide(&weights[from..][..width as usize]));
                        let none = vec![0.0; width as usize];
                        let wanted = match layer {
                            false => reference::rms_norm(1, width as usize, &x, &weight, 1e-5),
                            true => reference::layer_norm(1, width as usize, &x, &weight, &none, 1e-5),
                        };
                        assert_near(&found[at..][..width as usize], &wanted, 2e-5, "head_norm");
                        let mut other = input.clone();
                        other[at] = 3.0 - other[at];
                        assert!(!near(&run(&other)[at..][..width as usize], &wanted, 2e-5), "unnoticed");
                    }
                    let beside = |values: &[f32]| {
                        let row = &values[row * stride as usize..][..stride as usize];
                        [&row[..before as usize], &row[(before + heads * width) as usize..]].concat()
                    };
                    assert_eq!(beside(&found), beside(&input), "what stands beside is left alone");
                }
            }
        }
    }
}

/// A cache of several sequences, and queries of some of them.
struct Cached {
    heads: Heads,
    cap: Option<f64>,
    cache: Vec<f32>,
    keys: Vec<f64>,
    values: Vec<f64>,
}

impl Cached {
    fn new(twin: &mut Twin, heads: Heads, entries: u32, cap: Option<f64>) -> Cached {
        let kv = heads.kv_heads * heads.head_dim;
        let cache = twin.values(entries * 2 * kv as u32);
        let side =
            |first: usize| cache.chunks_exact(2 * kv).flat_map(|row| wide(&row[first..first + kv])).collect();
        let (keys, values) = (side(0), side(kv));
        Cached { heads, cap, cache, keys, values }
    }

    /// Scores of another scale than usual.
    fn scores(&self) -> Scores {
        Scores { scale: 1.3 / (self.heads.head_dim as f64).sqrt(), cap: self.cap }
    }

    fn attention(&self, query: &[f64], entries: &[u32]) -> Vec<f64> {
        reference::attention(self.heads, self.scores(), query, &self.keys, &self.values, &[entries.to_vec()])
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
        for (listed, times, cap) in [(false, 1, None), (true, 1, Some(0.4)), (false, 2, Some(2.0))] {
            let cached = Cached::new(&mut twin, heads, 80, cap);
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
                scale: cached.scores().scale as f32,
                count: rows.len() as u32,
                cap: cap.unwrap_or(1.0) as f32,
            };
            let run = |cache: &[f32]| {
                let output = twin.poisoned(6 * to);
                let buffers = [&twin.upload(&queries), &twin.upload(cache), &twin.upload(&lists), &output];
                let flag = |is: bool| f64::from(u8::from(is));
                let constants = [
                    ("WORKGROUP", f64::from(subgroup * times)),
                    ("LISTED", flag(listed)),
                    ("CAPPED", flag(cap.is_some())),
                ];
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
        // Rows, entries before them, the first entry, how many of the last a row sees; a step of 0 is a row that leaves a hole behind.
        for (rows, before, first, window, cap, listed) in [
            (1, 0, 0, 99, None, false),
            (7, 3, 2, 99, Some(0.4), false),
            (8, 0, 5, 3, None, false),
            (9, 20, 1, 12, Some(2.0), false),
            (20, 13, 30, 5, None, false),
            (20, 13, 30, 1, None, false),
            (1, 0, 0, 99, None, true),
            (9, 20, 1, 12, Some(2.0), true),
            (20, 13, 30, 99, None, true),
        ] {
            let cached = Cached::new(&mut twin, heads, 80, cap);
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
            // Where entries are named: any of the cache, each row some of its own, the first of all twice.
            let named: Vec<Vec<u32>> = (0..rows)
                .map(|row| {
                    let all =
                        first + counts[row as usize].saturating_sub(window)..first + counts[row as usize];
                    if !listed {
                        return all.collect();
                    }
                    let turned = |entry: u32| (entry * 29) % 80;
                    let start = turned(all.start);
                    let some = all.filter(|entry| (entry + row) % 3 > 0).map(turned);
                    some.chain([start, start]).collect()
                })
                .collect();
            let mut lists = vec![4; 3];
            let mut tiles = Vec::new();
            for eight in (0..rows).collect::<Vec<_>>().chunks(8).filter(|_| listed) {
                let full = |index: usize| eight[index.min(eight.len() - 1)];
                tiles.extend((0..8).map(full));
                tiles.push(lists.len() as u32);
                let mut count = 0;
                for (at, &row) in eight.iter().enumerate() {
                    // The last row stands for all that fill the tile.
                    let bits = if at + 1 == eight.len() { 0xff << at } else { 1 << at };
                    for &entry in &named[row as usize] {
                        lists.extend([entry, bits & 0xff]);
                        count += 1;
                    }
                }
                tiles.extend([count; 8]);
                tiles.extend([0; 8]);
            }
            let rows_at = lists.len() as u32;
            lists.extend(tiles);
            for eight in (0..rows).collect::<Vec<_>>().chunks(8).filter(|_| !listed) {
                let full = |index: usize| eight[index.min(eight.len() - 1)];
                lists.extend((0..8).map(full));
                lists.push(first);
                lists.extend((0..8).map(|index| counts[full(index) as usize]));
                lists.extend((0..8).map(|index| counts[full(index) as usize].saturating_sub(window)));
            }
            let (head4, subgroup) = (heads.head_dim as u32 / 4, twin.subgroup());
            let parameters = s::Attention {
                heads: heads.heads as u32,
                group: (heads.heads / heads.kv_heads) as u32,
                head4,
                kv4: heads.kv_heads as u32 * head4,
                query_stride4: from / 4,
                output_stride4: to / 4,
                rows_at,
                scale: cached.scores().scale as f32,
                count: rows.div_ceil(8),
                cap: cap.unwrap_or(1.0) as f32,
            };
            let run = |cache: &[f32]| {
                let output = twin.poisoned(rows * to);
                let buffers = [&twin.upload(&queries), &twin.upload(cache), &twin.upload(&lists), &output];
                let flag = |is: bool| f64::from(u8::from(is));
                let constants = [
                    ("WORKGROUP", f64::from(subgroup)),
                    ("LISTED", flag(listed)),
                    ("CAPPED", flag(cap.is_some())),
                ];
                let groups = [heads.heads as u32, rows.div_ceil(8), head4.div_ceil(subgroup)];
                twin.run((s::ATTENTION_PREFILL, &constants), &buffers, &parameters, groups);
                inside(&twin.floats(&output, rows * to), q, to)
            };
            let wanted: Vec<f64> = (0..rows)
                .flat_map(|row| {
                    let query = wide(&queries[(row * from) as usize..][..q as usize]);
                    cached.attention(&query, &named[row as usize])
                })
                .collect();
            assert_near(&run(&cached.cache), &wanted, 1e-5, "attention_prefill");
            let width = 2 * heads.kv_heads * heads.head_dim;
            let mut other = cached.cache.clone();
            let seen = named[0][named[0].len() - 1] as usize;
            other[seen * width..][..width].fill(2.0);
            assert!(!near(&run(&other), &wanted, 1e-5), "a wrong entry goes unnoticed");
        }
    }
}
