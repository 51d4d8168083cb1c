//! Norms, non-linearities and what moves rows, that come out otherwise on the device than in the oracle.

use crate::twin_support::{POISON, Twin, assert_near, dense, inside, near, wide};
use radialsim::gpu::{BranchRecord, shaders as s};
use radialsim::reference::{self, Activation};

const ROWS: [u32; 5] = [1, 2, 7, 8, 9];
const WIDTHS: [u32; 5] = [4, 28, 32, 36, 172];

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
                // In place; the last row is told to stay.
                let mut listed = [&[8, 8], &layers[..]].concat();
                listed[1 + rows as usize] = u32::MAX;
                let same = s::Norm { output_stride4: from / 4, ..parameters };
                let values = twin.upload(&input);
                let buffers =
                    [&twin.upload(&weights), &twin.upload(&weights), &twin.upload(&listed), &values];
                let constants = [("WORKGROUP", f64::from(subgroup * times)), ("IN_PLACE", 1.0)];
                twin.run((shader, &constants), &buffers, &same, [rows.div_ceil(times), 1, 1]);
                let found = twin.floats(&values, rows * from);
                let last = ((rows - 1) * from) as usize;
                assert_eq!(found[last..], input[last..]);
                let got: Vec<f32> = found[..last]
                    .chunks_exact(from as usize)
                    .flat_map(|row| row[..width as usize].to_vec())
                    .collect();
                assert_near(&got, &wanted[..got.len()], 2e-5, "in place");
                let mut other = input.clone();
                other[0] = 3.0 - other[0];
                assert!(!near(&run(&other), &wanted, 2e-5), "a wrong input goes unnoticed");
            }
        }
    }
}

#[test]
fn non_linearities() {
    let Some(mut twin) = Twin::new("activation") else { return };
    let kinds = [
        (0, Activation::Silu),
        (1, Activation::GeluTanh),
        (2, Activation::Relu),
        (3, Activation::GeluErf),
        (4, Activation::QuickGelu),
        (5, Activation::Relu2),
    ];
    for (kind, oracle) in kinds {
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
                // The error function is off by 1.5e-7, times half the value and the other input, both up to 9.
                let scale = wanted.iter().fold(1e-3, |scale: f64, x| scale.max(x.abs()));
                let tolerance = if kind == 3 { 0.5 * 1.5e-7 * 81.0 / scale } else { 1e-6 };
                let tolerance = f64::max(tolerance, 1e-6);
                assert_near(&found, &wanted, tolerance, shader.name);
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

            for (masked, weighted) in [(false, false), (true, false), (false, true), (true, true)] {
                let (branch, stream) = (twin.values(rows * (width + 4)), twin.values(rows * stride));
                let mask: Vec<bool> = (0..rows).map(|_| twin.random.chance(0.5)).collect();
                let weights = twin.values(rows);
                let lists: Vec<u32> = std::iter::once(1)
                    .chain(mask.iter().map(|&taken| taken.into()))
                    .chain(weights.iter().map(|weight| weight.to_bits()))
                    .collect();
                let add = s::ResidualAdd {
                    rows,
                    width4: width / 4,
                    stream_stride4: stride / 4,
                    branch_stride4: width / 4 + 1,
                    mask: 1,
                    weights: 1 + rows,
                    scale: 0.22,
                };
                let flag = |is: bool| f64::from(u8::from(is));
                let constants = [constants[0], ("MASKED", flag(masked)), ("WEIGHTED", flag(weighted))];
                let sum = |lists: &[u32]| {
                    let sum = twin.upload(&stream);
                    let buffers = [&twin.upload(&branch), &twin.upload(lists), &sum];
                    twin.run((s::RESIDUAL_ADD, &constants), &buffers, &add, groups);
                    let found = twin.floats(&sum, rows * stride);
                    found
                        .chunks_exact(stride as usize)
                        .flat_map(|row| row[..width as usize].to_vec())
                        .collect::<Vec<f32>>()
                };
                let mut wanted = dense(&stream, width, stride);
                let mut scaled = dense(&branch, width, width + 4);
                for (values, &weight) in scaled.chunks_exact_mut(width as usize).zip(&weights) {
                    let weight = if weighted { f64::from(weight) } else { 1.0 };
                    values.iter_mut().for_each(|x| *x *= 0.22 * weight);
                }
                reference::residual_add(width as usize, &mut wanted, &scaled, masked.then_some(&mask[..]));
                assert_near(&sum(&lists), &wanted, 1e-6, "residual_add");
                if weighted && mask[0] {
                    let mut other = lists;
                    other[1 + rows as usize] = (weights[0] + 2.0).to_bits();
                    assert!(!near(&sum(&other), &wanted, 1e-6), "a wrong weight goes unnoticed");
                }
            }
        }
    }
}

#[test]
fn a_branch_that_is_not_a_number_is_taken() {
    let Some(twin) = Twin::new("nan") else { return };
    let width = 36;
    for (odd, over_input) in [(f32::NAN, 0), (f32::NAN, 1), (f32::INFINITY, 0), (f32::NEG_INFINITY, 1)] {
        let mut branch = vec![0f32; 2 * width as usize];
        branch[5] = odd;
        let parameters = s::ResidualOracle {
            rows: 2,
            width4: width / 4,
            stream_stride4: width / 4,
            branch_stride4: width / 4,
            record: 0,
            records: 1,
            over_input,
            threshold: 0.3,
            begins: 1,
            scale: 1.0,
        };
        let sum = twin.upload(&vec![1f32; 2 * width as usize]);
        let (kept, records) = (twin.poisoned(2 * width), twin.poisoned(16));
        let buffers = [&twin.upload(&branch), &sum, &kept, &records];
        let constants = [("WORKGROUP", f64::from(twin.subgroup()))];
        twin.run((s::RESIDUAL_ORACLE, &constants), &buffers, &parameters, [2, 1, 1]);
        let records: Vec<BranchRecord> = twin.gpu.read(&records, 2).expect("records");
        let found = twin.floats(&sum, 2 * width);
        assert_eq!((records[0].taken, records[1].taken), (1.0, 0.0), "{odd}");
        assert!(!found[5].is_finite() && found[width as usize..].iter().all(|&x| x == 1.0));
        // And it is found.
        let notes = twin.upload(&[0u32; 4]);
        for (rows, first) in [(2, 0), (1, 1)] {
            let values = twin.upload(&found[first * width as usize..]);
            let parameters =
                s::FiniteRows { rows, width4: width / 4, stride4: width / 4, note: 2 - first as u32 };
            twin.run((s::FINITE_ROWS, &constants), &[&values, &notes], &parameters, [rows, 1, 1]);
        }
        assert_eq!(twin.words(&notes, 4), [0, 0, 1, 0], "{odd}");
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
                values.iter_mut().for_each(|x| *x *= if row % 2 == 0 { 0.2 } else { 2.0 });
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
                    scale: 0.5,
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
                let records: Vec<BranchRecord> =
                    twin.gpu.read(&records, (rows * 3) as usize).expect("records");
                for row in 0..rows as usize {
                    let part = |values: &[f32]| wide(&values[row * width as usize..][..width as usize]);
                    let b: Vec<f64> = part(&branch).into_iter().map(|x| 0.5 * x).collect();
                    let x = part(&stream);
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
        let mut lists = vec![POISON; (1 + (2 + layers + 7) * rows) as usize];
        lists[at(0) as usize..at(1) as usize].copy_from_slice(&alive);
        lists[at(1) as usize..at(2) as usize].copy_from_slice(&bases);
        lists[at(2) as usize..at(2 + layers) as usize].copy_from_slice(&counts);
        let on_device = twin.upload(&lists);
        for hop in 0..hops {
            let choices: Vec<u32> = (0..rows).map(|_| twin.upto(layers + 1)).collect();
            let mut decisions = vec![[9, 9]; 2];
            decisions.extend(choices.iter().zip(100..).map(|(&choice, probability)| [choice, probability]));
            let parameters = s::PlaceRows {
                rows,
                layers,
                slots,
                hop,
                bucket: 0,
                decisions: 2,
                alive: at(0),
                bases: at(1),
                counts: at(2),
                lists_at: 0,
                layers_at: at(2 + layers),
                entries_at: at(3 + layers),
                seen_at: at(4 + layers),
                weights_at: at(8 + layers),
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
                assert_eq!(part(8 + layers), 100 + row as u32);
                // A row that has left looks at something, whatever it is; its result is masked out.
                assert_eq!(seen, [row as u32, first, (*count).max(1), 0]);
            }
            assert_eq!(&found[at(2) as usize..at(2 + layers) as usize], &counts[..]);
        }
    }
}

/// Each row has lists of the entries that it sees, one for each hop or one for all, and its own entries join them.
#[test]
fn decisions_join_lists_of_entries() {
    let Some(mut twin) = Twin::new("place") else { return };
    for (rows, workgroup, each) in [(1, 8, false), (7, 8, true), (9, 64, false), (65, 8, true)] {
        let (layers, hops, room) = (3, 4, 7);
        let lists_of_a_row = if each { hops } else { 1 };
        let buckets = lists_of_a_row * rows;
        let (alive_at, bases_at, counts_at) = (1, 1 + rows, 1 + 2 * rows);
        let begins_at = counts_at + buckets;
        let (layers_at, lists_from) = (begins_at + buckets, begins_at + buckets + 7 * rows);
        let [entries_at, seen_at, weights_at] = [1, 2, 6].map(|part| layers_at + part * rows);
        let mut counts: Vec<u32> = (0..buckets).map(|_| twin.upto(3)).collect();
        let mut lists = vec![POISON; (lists_from + buckets * room) as usize];
        lists[alive_at as usize..][..rows as usize].fill(1);
        let bases: Vec<u32> = (0..rows).map(|row| 50 + row * hops).collect();
        lists[bases_at as usize..][..rows as usize].copy_from_slice(&bases);
        lists[counts_at as usize..][..buckets as usize].copy_from_slice(&counts);
        let begins: Vec<u32> = (0..buckets).map(|bucket| lists_from + bucket * room).collect();
        lists[begins_at as usize..][..buckets as usize].copy_from_slice(&begins);
        let mut wanted: Vec<Vec<u32>> = Vec::new();
        for (&begin, &count) in begins.iter().zip(&counts) {
            let known: Vec<u32> = (0..count).map(|entry| 7 * entry).collect();
            lists[begin as usize..][..known.len()].copy_from_slice(&known);
            wanted.push(known);
        }
        let on_device = twin.upload(&lists);
        let mut alive = vec![true; rows as usize];
        for hop in 0..hops {
            let choices: Vec<u32> = (0..rows).map(|_| twin.upto(layers + 1)).collect();
            let decisions: Vec<[u32; 2]> = choices.iter().map(|&choice| [choice, hop]).collect();
            let bucket = if each { hop } else { 0 };
            let parameters = s::PlaceRows {
                rows,
                layers,
                slots: 999,
                hop,
                bucket,
                decisions: 0,
                alive: alive_at,
                bases: bases_at,
                counts: counts_at,
                lists_at: begins_at,
                layers_at,
                entries_at,
                seen_at,
                weights_at,
            };
            let buffers = [&twin.upload(&decisions), &on_device];
            let constants = [("WORKGROUP", f64::from(workgroup)), ("LISTED", 1.0)];
            twin.run((s::PLACE_ROWS, &constants), &buffers, &parameters, [rows.div_ceil(workgroup), 1, 1]);
            let found = twin.words(&on_device, lists.len() as u32);
            for row in 0..rows as usize {
                alive[row] &= choices[row] < layers;
                let at = bucket as usize * rows as usize + row;
                let own = bases[row] + hop;
                if alive[row] {
                    wanted[at].push(own);
                    counts[at] += 1;
                }
                let entry = if alive[row] { own } else { u32::MAX };
                let layer = if alive[row] { choices[row] } else { 0 };
                let said = [layers_at, entries_at, weights_at].map(|at| found[at as usize + row]);
                assert_eq!(said, [layer, entry, hop], "{each} {hop}");
                let seen = &found[seen_at as usize + 4 * row..][..4];
                // A row that has left looks at something, whatever it is.
                assert_eq!([seen[0], seen[2], seen[3]], [row as u32, counts[at].max(1), begins[at]]);
                let list = &found[begins[at] as usize..][..room as usize];
                assert_eq!(list[..wanted[at].len()], wanted[at][..]);
                assert!(
                    list[0] != POISON && list[wanted[at].len().max(1)..].iter().all(|&word| word == POISON)
                );
            }
            assert_eq!(&found[counts_at as usize..][..buckets as usize], &counts[..]);
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
    for turns in [0, 1, 1000] {
        let counted = twin.poisoned(2);
        twin.run((s::PROBE_TURNS, &[]), &[&counted], &s::ProbeTurns { turns }, [1, 1, 1]);
        let number = |x: u32, _| x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        assert_eq!(twin.words(&counted, 2), [turns, (0..turns).fold(1, number)]);
    }
    assert!(twin.gpu.turns().expect("a count") >= 65_535, "fewer turns than the kernels are made for");
    let untouched = twin.poisoned(8);
    twin.run((s::PROBE_EMPTY, &[]), &[&untouched], &[0u32; 0], [1, 1, 1]);
    assert_eq!(twin.words(&untouched, 8), [POISON; 8]);
}
