//! Choices of tokens, layers and experts that come out otherwise on the device than in the oracle.

use crate::twin_support::{POISON, Twin, assert_near, near, wide};
use radialsim::gpu::shaders as s;
use radialsim::reference;

/// A row: logarithm of the sum, logit of the given token, numbers that are not finite, then tokens with their logits.
type Chosen = (f32, f32, u32, Vec<(u32, f32)>);

/// Samples rows of `vocabulary` logits in parts of `part`.
fn sampled(
    twin: &Twin,
    logits: &[f32],
    [rows, vocabulary, stride, top, part]: [u32; 5],
    targets: &[u32],
    (scale, cap): (f32, Option<f32>),
) -> Vec<Chosen> {
    let (input, lists) = (twin.upload(logits), twin.upload(&[&[9], targets].concat()));
    let (words, parts) = (3 + 2 * top, vocabulary.div_ceil(part));
    let chosen = twin.poisoned((rows + 1) * words);
    let between = twin.poisoned(rows * parts * (2 + 2 * top));
    let cap_value = cap.unwrap_or(1.0);
    let parameters =
        s::Sample { rows, vocabulary, stride, top, targets: 1, first: 1, part, parts, scale, cap: cap_value };
    let constants =
        [("WORKGROUP", f64::from(twin.subgroup())), ("CAPPED", f64::from(u8::from(cap.is_some())))];
    twin.run((s::SAMPLE_PARTS, &constants), &[&input, &between], &parameters, [parts, rows, 1]);
    twin.run((s::SAMPLE, &constants), &[&input, &between, &lists, &chosen], &parameters, [rows, 1, 1]);
    let found = twin.words(&chosen, (rows + 1) * words);
    assert!(found[..words as usize].iter().all(|&word| word == POISON));
    let row = |row: &[u32]| {
        let top = row[3..].chunks_exact(2).map(|pair| (pair[0], f32::from_bits(pair[1]))).collect();
        (f32::from_bits(row[0]), f32::from_bits(row[1]), row[2], top)
    };
    found[words as usize..].chunks_exact(words as usize).map(row).collect()
}

#[test]
fn the_likeliest_tokens_in_order() {
    let Some(mut twin) = Twin::new("sample") else { return };
    for (vocabulary, top, part) in [(1, 1, 8), (7, 3, 4), (8, 8, 64), (9, 5, 4), (100, 1, 33), (1003, 6, 64)]
    {
        let (rows, stride) = (3, vocabulary + 5);
        let mut logits = twin.values(rows * stride);
        // Equal logits: the first token wins; a row far from zero.
        logits.iter_mut().skip(stride as usize).take(stride as usize).for_each(|x| *x = (*x * 4.0).round());
        logits.iter_mut().skip(2 * stride as usize).for_each(|x| *x = *x * 50.0 - 300.0);
        let targets: Vec<u32> = (0..rows).map(|_| twin.upto(vocabulary)).collect();
        let shape = [rows, vocabulary, stride, top, part];
        for (row, found) in sampled(&twin, &logits, shape, &targets, (1.0, None)).into_iter().enumerate() {
            let logits = &logits[row * stride as usize..][..vocabulary as usize];
            let mut order: Vec<u32> = (0..vocabulary).collect();
            order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
            let (log_sum, target, infinite, best) = found;
            assert_eq!(best[0].0, reference::sample(1, vocabulary as usize, &wide(logits))[0]);
            for (place, &token) in order.iter().take(top as usize).enumerate() {
                assert_eq!(best[place], (token, logits[token as usize]), "row {row} of {vocabulary}");
            }
            let highest = wide(logits).into_iter().fold(f64::MIN, f64::max);
            let sum: f64 = logits.iter().map(|&x| libm::exp(f64::from(x) - highest)).sum();
            assert_near(&[log_sum], &[highest + libm::log(sum)], 1e-6, "log of the sum");
            assert_eq!((target, infinite), (logits[targets[row] as usize], 0));
        }
    }
}

/// Rows as long as those of real vocabularies: a driver that ends loops early must not be asked for long ones.
#[test]
fn large_vocabularies_are_sampled_to_their_ends() {
    let Some(twin) = Twin::new("vocabulary") else { return };
    for vocabulary in [50_000, 90_000, 131_072, 151_936, 262_144] {
        let mut logits = vec![0f32; vocabulary as usize];
        let marks = [(vocabulary - 1, 5.0), (vocabulary / 2, 4.0), (4096, 3.0), (0, 2.0), (4095, 1.0)];
        marks.iter().for_each(|&(token, logit)| logits[token as usize] = logit);
        for top in [5, 64] {
            let shape = [1, vocabulary, vocabulary, top, 4096];
            let found = sampled(&twin, &logits, shape, &[vocabulary - 1], (1.0, None)).remove(0);
            let (log_sum, target, infinite, best) = found;
            assert_eq!(best[..5], marks, "{vocabulary}");
            let sum: f64 = f64::from(vocabulary) - 5.0 + (1..6).map(|x| f64::from(x).exp()).sum::<f64>();
            assert_near(&[log_sum], &[sum.ln()], 1e-5, "log of the sum");
            assert_eq!((target, infinite), (5.0, 0));
        }
    }
}

#[test]
fn logits_are_scaled_bounded_and_counted_where_they_are_no_numbers() {
    let Some(mut twin) = Twin::new("logits") else { return };
    let (vocabulary, top) = (301, 4);
    let mut logits = twin.values(vocabulary);
    logits.iter_mut().for_each(|x| *x *= 40.0);
    let (scale, cap) = (0.5, 7.0);
    let shape = [1, vocabulary, vocabulary, top, 64];
    let found = sampled(&twin, &logits, shape, &[17], (scale, Some(cap))).remove(0);
    let said = |x: f32| f64::from(cap) * libm::tanh(f64::from(x) * f64::from(scale) / f64::from(cap));
    let mut order: Vec<(f64, u32)> = logits.iter().map(|&x| said(x)).zip(0..).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    let sum: f64 = order.iter().map(|(x, _)| libm::exp(*x)).sum();
    assert_near(&[found.0, found.1], &[libm::log(sum), said(logits[17])], 1e-5, "bounded");
    assert_near(&[found.3[0].1], &[order[0].0], 1e-5, "the largest");
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut broken = logits.clone();
        (broken[300], broken[64]) = (odd, odd);
        assert_eq!(sampled(&twin, &broken, shape, &[17], (1.0, None))[0].2, 2, "{odd}");
    }
}

#[test]
fn experts_are_chosen_and_summed_as_in_the_oracle() {
    let Some(mut twin) = Twin::new("experts") else { return };
    for (experts, top, width) in [(4, 2, 8), (8, 1, 36), (60, 6, 64), (128, 8, 128), (3, 3, 4)] {
        for (sigmoid, normalised, scale) in
            [(false, true, 1.0), (false, false, 2.5), (true, true, 1.5), (true, false, 1.0)]
        {
            let (rows, stride) = (9, experts + 4);
            let mut scores = twin.values(rows * stride);
            scores.iter_mut().for_each(|x| *x *= 6.0);
            let layers: Vec<u32> = (0..rows).map(|_| twin.upto(5)).collect();
            let mut lists = vec![3; 2];
            lists.extend(&layers);
            let chosen = lists.len() as u32;
            lists.extend(vec![POISON; (rows * top) as usize]);
            let (on_device, shares) = (twin.upload(&lists), twin.poisoned(rows * top));
            let parameters = s::ExpertChoice { rows, experts, stride, top, layers: 2, chosen, scale };
            let flag = |is: bool| f64::from(u8::from(is));
            let constants =
                [("WORKGROUP", 8.0), ("SIGMOID", flag(sigmoid)), ("NORMALISED", flag(normalised))];
            let run = |scores: &[f32]| {
                let buffers = [&twin.upload(scores), &on_device, &shares];
                twin.run((s::EXPERT_CHOICE, &constants), &buffers, &parameters, [rows.div_ceil(8), 1, 1]);
                (twin.words(&on_device, lists.len() as u32), twin.floats(&shares, rows * top))
            };
            let (found, share) = run(&scores);
            let dense: Vec<f64> =
                scores.chunks_exact(stride as usize).flat_map(|row| wide(&row[..experts as usize])).collect();
            let how = (sigmoid, normalised, f64::from(scale));
            let wanted = reference::choose_experts(experts as usize, top as usize, &dense, how);
            for (row, wanted) in wanted.iter().enumerate() {
                let at = row * top as usize;
                let experts_found: Vec<u32> = found[chosen as usize + at..][..top as usize].to_vec();
                let numbers: Vec<u32> =
                    wanted.iter().map(|(expert, _)| layers[row] * experts + expert).collect();
                assert_eq!(experts_found, numbers, "{experts} {top}");
                let shares: Vec<f64> = wanted.iter().map(|(_, share)| *share).collect();
                assert_near(&share[at..][..top as usize], &shares, 1e-5, "shares");
            }
            let said = twin.values(rows * top * (width + 4));
            let output = twin.poisoned(rows * (width + 8));
            let parameters = s::ExpertSum {
                rows,
                width4: width / 4,
                from_stride4: width / 4 + 1,
                to_stride4: width / 4 + 2,
                top,
            };
            let sum = |said: &[f32]| {
                let groups = [(width / 4).div_ceil(64), rows, 1];
                twin.run((s::EXPERT_SUM, &[]), &[&twin.upload(said), &shares, &output], &parameters, groups);
                let all = twin.floats(&output, rows * (width + 8));
                all.chunks_exact(width as usize + 8)
                    .flat_map(|row| row[..width as usize].to_vec())
                    .collect::<Vec<f32>>()
            };
            let rows_said: Vec<f64> =
                said.chunks_exact(width as usize + 4).flat_map(|row| wide(&row[..width as usize])).collect();
            let wanted = reference::sum_experts(width as usize, &rows_said, &wide(&share), top as usize);
            assert_near(&sum(&said), &wanted, 1e-5, "expert_sum");
            let mut other = said;
            other[0] += 9.0;
            assert!(!near(&sum(&other), &wanted, 1e-5), "a wrong input goes unnoticed");
        }
    }
}

#[test]
fn a_skip_router_decides_as_its_oracle() {
    let Some(mut twin) = Twin::new("skip_router") else { return };
    for (width, hidden, layers, layer) in [(4, 4, 1, 0), (36, 12, 3, 2), (576, 64, 5, 1), (128, 1024, 2, 1)] {
        let (rows, stride) = (7, width + 8);
        let input = twin.values(rows * stride);
        let (first, rest) = (twin.values(hidden * width), twin.values(layers * (3 * hidden + 2)));
        let [vectors, second] = [layer * hidden, layers * hidden + layer * 2 * hidden];
        let biases = layers * hidden * 3 + 2 * layer;
        let of = |from: u32, count: u32| wide(&rest[from as usize..][..count as usize]);
        let (vector, both, bias) = (of(vectors, hidden), of(second, 2 * hidden), of(biases, 2));
        let weights =
            reference::ScoreWeights { first: &wide(&first), vector: &vector, second: &both, biases: &bias };
        for candidates in 0..4 {
            let buffers = [twin.upload(&input), twin.upload(&first), twin.upload(&rest)];
            let (scores, lists) = (twin.poisoned(2 * (rows + 2)), twin.poisoned(2 * rows + 2));
            let parameters = s::SkipRouter {
                rows,
                width4: width / 4,
                stride4: stride / 4,
                hidden,
                vectors,
                second,
                biases,
                scores: 1,
                masks: 1,
                candidates,
                epsilon: 1e-6,
            };
            let constants = [("WORKGROUP", f64::from(twin.subgroup()))];
            let bound = [&buffers[0], &buffers[1], &buffers[2], &scores, &lists];
            twin.run((s::SKIP_ROUTER, &constants), &bound, &parameters, [rows, 1, 1]);
            let (found, masks) = (twin.words(&scores, 2 * (rows + 2)), twin.words(&lists, 2 * rows + 2));
            assert!([0, 1, 16, 17].iter().all(|&at| found[at] == POISON));
            assert!([0, 15].iter().all(|&at| masks[at] == POISON));
            for row in 0..rows as usize {
                let x = wide(&input[row * stride as usize..][..width as usize]);
                let wanted = reference::router_scores(1, width as usize, &x, weights, 1e-6);
                let said = [2 + 2 * row, 3 + 2 * row].map(|at| f32::from_bits(found[at]));
                assert_near(&said, &wanted, 1e-4, "skip_router");
                let mut other = wanted.clone();
                other[0] += 1e-2 * (1.0 + other[0].abs());
                assert!(!near(&said, &other, 1e-4), "a wrong score goes unnoticed");
                for branch in 0..2 {
                    let out = wanted[branch] < 0.0 && candidates >> branch & 1 == 1;
                    let mask = masks[1 + branch * rows as usize + row];
                    assert!(
                        wanted[branch].abs() < 1e-3 || mask == u32::from(!out),
                        "{candidates} {row} {branch}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_router_chooses_as_its_oracle() {
    let Some(mut twin) = Twin::new("router") else { return };
    for (width, hidden, options) in
        [(4, 0, 1), (36, 0, 7), (64, 4, 2), (36, 12, 31), (128, 1024, 9), (2048, 256, 3)]
    {
        let (rows, stride) = (5, width + 8);
        let input = twin.values(rows * stride);
        let inside = if hidden == 0 { width } else { hidden };
        let (first, second) = (twin.values(hidden.max(1) * width), twin.values(options * inside));
        let buffers = [twin.upload(&input), twin.upload(&first), twin.upload(&second)];
        let decisions = twin.poisoned(2 * (rows + 2));
        let parameters = s::Router {
            rows,
            width4: width / 4,
            stride4: stride / 4,
            hidden,
            options,
            allowed: options,
            decisions: 1,
            before: u32::MAX,
            words: u32::MAX,
            epsilon: 0.0,
        };
        let constants =
            [("WORKGROUP", f64::from(twin.subgroup())), ("LINEAR", f64::from(u8::from(hidden == 0)))];
        let lists = twin.upload(&[POISON]);
        let bound = [&buffers[0], &buffers[1], &buffers[2], &decisions, &lists];
        twin.run((s::ROUTER, &constants), &bound, &parameters, [rows, 1, 1]);
        let found = twin.words(&decisions, 2 * (rows + 2));
        assert!([0, 1, 12, 13].iter().all(|&at| found[at] == POISON));
        for row in 0..rows as usize {
            let x = wide(&input[row * stride as usize..][..width as usize]);
            let (first, second) = (wide(&first), wide(&second));
            let weights = match hidden {
                0 => reference::RouterWeights::Linear(&second[..]),
                hidden => {
                    reference::RouterWeights::Mlp { hidden: hidden as usize, first: &first, second: &second }
                }
            };
            let wanted = reference::router(1, width as usize, options as usize, &x, weights)[0];
            assert_eq!(found[2 + 2 * row], wanted, "{width} {hidden} {options}");
            let probability = f32::from_bits(found[3 + 2 * row]);
            assert!(probability >= 1.0 / options as f32 - 1e-6 && probability <= 1.0 + 1e-6);
        }
    }
}

#[test]
fn a_radial_router_decides_as_its_oracle() {
    let Some(mut twin) = Twin::new("router") else { return };
    let (mut noticed, mut words_noticed) = (0, 0);
    for (width, hidden, options) in [(4, 4, 2), (36, 12, 31), (576, 64, 5), (128, 1024, 3)] {
        let (rows, stride) = (7, width + 8);
        let input = twin.values(rows * stride);
        let first = twin.values(hidden * width);
        const WORDS: u32 = 11;
        let rest = twin.values(options * (2 * hidden + options) + WORDS * hidden);
        let words: Vec<u32> = (0..rows).map(|row| row * 4 % WORDS).collect();
        let lists = twin.upload(&[&[POISON; 3], &words[..]].concat());
        let of = |from: u32, count: u32| wide(&rest[from as usize..][..count as usize]);
        let before: Vec<u32> = (0..rows).map(|row| row % options).collect();
        for (allowed, told, seen) in [
            (options, true, false),
            (options - 1, true, false),
            (options, false, false),
            (options, true, true),
            (options - 1, false, true),
        ] {
            let buffers = [twin.upload(&input), twin.upload(&first), twin.upload(&rest)];
            // A word that nobody writes, the decisions before, these decisions, and another.
            let said: Vec<u32> = [POISON; 2]
                .into_iter()
                .chain(before.iter().flat_map(|&layer| [layer, POISON]))
                .chain(std::iter::repeat_n(POISON, 2 * rows as usize + 2))
                .collect();
            let decisions = twin.upload(&said);
            let parameters = s::Router {
                rows,
                width4: width / 4,
                stride4: stride / 4,
                hidden,
                options,
                allowed,
                decisions: 1 + rows,
                before: if told { 1 } else { u32::MAX },
                words: if seen { 3 } else { u32::MAX },
                epsilon: 1e-6,
            };
            let constants = [("WORKGROUP", f64::from(twin.subgroup())), ("RADIAL", 1.0)];
            let bound = [&buffers[0], &buffers[1], &buffers[2], &decisions, &lists];
            twin.run((s::ROUTER, &constants), &bound, &parameters, [rows, 1, 1]);
            let found = twin.words(&decisions, 4 * rows + 4);
            assert_eq!(found[..2 + 2 * rows as usize], said[..2 + 2 * rows as usize]);
            assert_eq!(found[2 + 4 * rows as usize..], [POISON; 2]);
            for row in 0..rows {
                let from = if told { before[row as usize] } else { options - 1 };
                let vector_of = |from: u32, word: u32| -> Vec<f64> {
                    let word = of(options * (2 * hidden + options) + word * hidden, hidden);
                    let own = of(from * hidden, hidden).into_iter().zip(word);
                    own.map(|(own, word)| if seen { own + word } else { own }).collect()
                };
                let word = words[row as usize];
                let weights = reference::ScoreWeights {
                    first: &wide(&first),
                    vector: &vector_of(from, word),
                    second: &of(options * hidden, options * hidden),
                    biases: &of(2 * options * hidden + from * options, options),
                };
                let x = wide(&input[(row * stride) as usize..][..width as usize]);
                let mut scores = reference::router_scores(1, width as usize, &x, weights, 1e-6);
                scores.truncate(allowed as usize);
                let best = reference::sample(1, allowed as usize, &scores)[0];
                let share = |scores: &[f64]| {
                    1.0 / scores.iter().map(|x| libm::exp(x - scores[best as usize])).sum::<f64>()
                };
                let at = (2 + 2 * (rows + row)) as usize;
                assert_eq!(found[at], best, "{width} {hidden} {options} {allowed} {told} {row}");
                let said = f32::from_bits(found[at + 1]);
                assert!((f64::from(said) - share(&scores)).abs() < 1e-4, "{said} {}", share(&scores));
                // The decision before counts, and so does what is allowed.
                let other = reference::ScoreWeights {
                    vector: &vector_of((from + 1) % options, word),
                    biases: &of(2 * options * hidden + (from + 1) % options * options, options),
                    ..weights
                };
                let mut other = reference::router_scores(1, width as usize, &x, other, 1e-6);
                other.truncate(allowed as usize);
                let differs = |other: &[f64]| {
                    let best_of_other = reference::sample(1, allowed as usize, other)[0];
                    best_of_other != best || (f64::from(said) - share(other)).abs() > 1e-4
                };
                noticed += u32::from(differs(&other));
                // So does the word.
                if seen {
                    let vector = vector_of(from, (word + 1) % WORDS);
                    let other = reference::ScoreWeights { vector: &vector, ..weights };
                    let mut other = reference::router_scores(1, width as usize, &x, other, 1e-6);
                    other.truncate(allowed as usize);
                    words_noticed += u32::from(differs(&other));
                }
            }
        }
    }
    assert!(noticed > 20, "a wrong layer before goes unnoticed: {noticed} of 140 rows");
    assert!(words_noticed > 20, "a wrong word goes unnoticed: {words_noticed} of 56 rows");
}
