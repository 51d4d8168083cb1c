//! Other ways to train a skip router: labels that a search gives, and derivatives that the router's own draws give.

use crate::gpu::skips::router;
use crate::small_models::LAYERS;
use crate::train::{small, texts};
use radialsim::quality::Texts;
use radialsim::train::{
    BranchDecisions, Device, Distilled, Effects, Gates, Gradient, Network, Reach, Recipe, distill,
    policy_gradient, search,
};
use radialsim::weights::SkipKv;

const WORDS: usize = 97;

/// Probabilities of logits, row by row.
fn shares(logits: &[f64]) -> Vec<Vec<f64>> {
    let share = |row: &[f64]| {
        let all: f64 = row.iter().map(|logit| logit.exp()).sum();
        row.iter().map(|logit| logit.exp() / all).collect()
    };
    logits.chunks_exact(WORDS).map(share).collect()
}

fn divergence(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}

/// All subsets of all branches of the small model: bit 2 l + b leaves out branch b of layer l.
const SETS: usize = 1 << (2 * LAYERS);

/// For each set the divergence at each of these single tokens.
fn all_sets(network: &Network, texts: &Texts, kv: SkipKv) -> Vec<Vec<f64>> {
    let frame = network.frame(1);
    let rows: Vec<&[u32]> = texts.sequences.iter().map(Vec::as_slice).collect();
    let said = |set: usize| {
        let mut stream = network.embed(&rows);
        for layer in 0..LAYERS {
            let out = [0, 1].map(|branch| set >> (2 * layer + branch) & 1 == 1);
            let gates = Gates::equal(out, &stream);
            stream = network.layer(layer as u32, &frame, stream, Some(&gates), kv);
        }
        shares(&network.logits(stream).into_data().iter::<f64>().collect::<Vec<f64>>())
    };
    let whole = said(0);
    (0..SETS).map(|set| whole.iter().zip(said(set)).map(|(p, q)| divergence(p, &q)).collect()).collect()
}

/// Of sequences of one token, a search that keeps all sets finds the best of all, one that keeps a single set what trying all branches one after the other
/// finds, and what a branch does in company is the difference that it makes.
#[test]
fn a_search_of_single_tokens_is_exact() {
    let (_folder, checkpoint) = small();
    let network = Network::read(&checkpoint, &Device::flex()).expect("a Llama");
    let sequences = (0..7).map(|at| vec![at * 11 + 3]).collect();
    let texts = Texts { length: 1, sequences };
    let mut better = 0;
    for kv in [SkipKv::ProjectOnly, SkipKv::None] {
        let all = all_sets(&network, &texts, kv);
        for rounds in 1..=4usize {
            let sums = [64, 1].map(|width| {
                let found =
                    search(&network, &texts, &[[true; 2]; LAYERS], Reach { rounds, width }, kv, |_| ());
                let mut sum = 0.0;
                for token in 0..texts.sequences.len() {
                    let set = found.left_out[token].iter().fold(0, |set, (l, b)| set | 1 << (2 * l + b));
                    let kl = |set: usize| all[set][token];
                    let mut alone: Vec<usize> = (0..2 * LAYERS).collect();
                    alone.sort_by(|&a, &b| kl(1 << a).total_cmp(&kl(1 << b)));
                    let ranked = alone[..rounds].iter().fold(0, |set, at| set | 1 << at);
                    let best = if width > 1 {
                        let sets = (0..SETS).filter(|set| set.count_ones() as usize == rounds);
                        sets.min_by(|&a, &b| kl(a).total_cmp(&kl(b))).expect("some sets")
                    } else {
                        let greedy = (0..rounds).fold(0, |set, _| {
                            let more = (0..2 * LAYERS).map(|at| set | 1 << at).filter(|&more| more != set);
                            more.min_by(|&a, &b| kl(a).total_cmp(&kl(b))).expect("some branches")
                        });
                        if kl(ranked) < kl(greedy) { ranked } else { greedy }
                    };
                    assert_eq!(set, best, "{kv:?} {rounds} {width} {token}");
                    assert!((f64::from(found.kl[token]) - kl(best)).abs() < 1e-4);
                    for (at, effect) in found.effects.kl.iter().flatten().enumerate() {
                        let naive = kl(set | 1 << at) - kl(set & !(1 << at));
                        assert!((f64::from(effect[token]) - naive).abs() < 1e-4, "{} {naive}", effect[token]);
                    }
                    sum += kl(best);
                }
                sum
            });
            assert!(sums[0] <= sums[1]);
            better += usize::from(sums[0] < sums[1] - 1e-6);
        }
    }
    assert!(better > 0, "more sets were of no use");
}

/// Where tokens see each other, what is found for a sequence never costs more than as many branches by their single effects, mostly less, and what it is said to.
#[test]
fn branches_found_together_cost_less_than_those_of_single_effects() {
    let (_folder, checkpoint) = small();
    let network = Network::read(&checkpoint, &Device::flex()).expect("a Llama");
    let mut worse = Vec::new();
    for (seed, kv) in [(1, SkipKv::ProjectOnly), (2, SkipKv::None), (3, SkipKv::ProjectOnly)] {
        let texts = texts(4, seed);
        let (rows, tokens) = (texts.sequences.len(), texts.length);
        let (frame, batch) = (network.frame(tokens), texts.batch(0, rows));
        let said = |takes: &dyn Fn(usize, usize, usize) -> bool| {
            let decisions = BranchDecisions::of([LAYERS, rows, tokens], |layer, branch, row, token| {
                takes(layer, branch, row * tokens + token)
            });
            let mut stream = network.embed(&batch);
            for layer in 0..LAYERS {
                let gates = decisions.gates(layer, &network);
                stream = network.layer(layer as u32, &frame, stream, Some(&gates), kv);
            }
            shares(&network.logits(stream).into_data().iter::<f64>().collect::<Vec<f64>>())
        };
        let whole = said(&|_, _, _| true);
        let cost = |takes: &dyn Fn(usize, usize, usize) -> bool| -> Vec<f64> {
            let kl: Vec<f64> = whole.iter().zip(said(takes)).map(|(p, q)| divergence(p, &q)).collect();
            kl.chunks_exact(tokens).map(|row| row.iter().sum()).collect()
        };
        let effects = Effects::measure(&network, &texts, kv, |_| ());
        for rounds in [2, 3] {
            let ranked = cost(&|layer, branch, token| {
                let own = effects.kl[layer][branch][token];
                effects.kl.iter().flatten().filter(|other| other[token] < own).count() >= rounds
            });
            for width in [1, 3] {
                let found =
                    search(&network, &texts, &[[true; 2]; LAYERS], Reach { rounds, width }, kv, |_| ());
                assert!(found.left_out.iter().all(|set| set.len() == rounds));
                let costs = cost(&|layer, branch, token| !found.left_out[token].contains(&(layer, branch)));
                for (row, (cost, ranked)) in costs.iter().zip(&ranked).enumerate() {
                    let said = found.kl[row * tokens..(row + 1) * tokens].iter().map(|&kl| f64::from(kl));
                    assert!((said.sum::<f64>() - cost).abs() < 1e-3 * cost.max(1.0));
                    assert!(
                        *cost <= ranked * (1.0 + 1e-4),
                        "{seed} {kv:?} {rounds} {width}: {cost} {ranked}"
                    );
                    worse.push(ranked / cost);
                }
            }
        }
    }
    assert!(worse.iter().sum::<f64>() / worse.len() as f64 > 1.1, "{worse:?}");
}

/// The mean of many estimates is the derivative of the expected cost, enumerated over all decisions; the discount weighs what later tokens cost.
#[test]
fn draws_estimate_the_exact_gradient() {
    let (folder, checkpoint) = small();
    let network = Network::read(&checkpoint, &Device::flex()).expect("a Llama");
    let path = folder.path().join("router.safetensors");
    let sequence = [5u32, 61];
    let batch = [&sequence[..]; 64];
    for kv in [SkipKv::None, SkipKv::ProjectOnly] {
        let weights = router(3, kv);
        let read = |weights: &radialsim::weights::SkipRouter| {
            std::fs::write(&path, weights.bytes()).expect("a file");
            Distilled::read(&path, &network).expect("a router").0
        };
        let recipe = |discount| Recipe {
            noise: 1.5,
            price: 0.3,
            crowding: 0.05,
            kv,
            gradient: Gradient::Policy { draws: 4, discount },
            ..Recipe::new(2.0, 1)
        };
        let (means, scatters) = {
            let Distilled { router, candidates } = read(&weights);
            let all: Vec<Vec<f32>> = (0..160)
                .map(|seed| {
                    policy_gradient(&network, &batch, &router, &candidates, &recipe(1.0), seed)
                        .expect("estimated")
                })
                .collect();
            let count = all.len() as f64;
            let mean = |at: usize| all.iter().map(|one| f64::from(one[at])).sum::<f64>() / count;
            let means: Vec<f64> = (0..all[0].len()).map(mean).collect();
            let scatter = |at: usize| {
                let off = all.iter().map(|one| (f64::from(one[at]) - means[at]).powi(2)).sum::<f64>();
                (off / (count - 1.0) / count).sqrt()
            };
            let scatters: Vec<f64> = (0..means.len()).map(scatter).collect();
            (means, scatters)
        };
        let hidden = weights.hidden as usize;
        let vectors = weights.width as usize * hidden;
        let biases = vectors + LAYERS * hidden + LAYERS * 2 * hidden;
        assert_eq!(means.len(), biases + LAYERS * 2);
        let mut sure = 0;
        let places = (hidden..LAYERS * hidden).map(|at| (vectors + at, at, true));
        for (place, at, vector) in places.chain((0..LAYERS * 2).map(|at| (biases + at, at, false))) {
            let step = 0.02f32;
            let at_step = |by: f32| {
                let mut moved = weights.clone();
                let part = if vector { &mut moved.vectors } else { &mut moved.biases };
                part[at] += by;
                expected(&network, &sequence, &read(&moved), &recipe(1.0))
            };
            let exact = (at_step(step) - at_step(-step)) / (2.0 * f64::from(step));
            let scatter = scatters[place];
            assert!(
                (means[place] - exact).abs() <= 4.0 * scatter + 1e-4,
                "{kv:?} {place}: {} +- {scatter}, {exact}",
                means[place]
            );
            sure += usize::from(exact.abs() > 10.0 * scatter && scatter > 0.0);
        }
        assert!(sure >= 5, "{sure} derivatives stand out of the scatter");
        // Of two tokens the first answers for the second by the discount, and of one token there is nothing to discount.
        let Distilled { router, candidates } = read(&weights);
        let one = |batch: &[&[u32]], discount: f64| {
            policy_gradient(&network, batch, &router, &candidates, &recipe(discount), 7).expect("estimated")
        };
        let [none, half, all] = [0.0, 0.5, 1.0].map(|discount| one(&batch, discount));
        assert!(none != all);
        for ((none, half), all) in none.iter().zip(&half).zip(&all) {
            assert!((half - 0.5 * (none + all)).abs() < 1e-5, "{none} {half} {all}");
        }
        let alone = [&sequence[..1]; 64];
        assert!(one(&alone, 0.0) == one(&alone, 1.0));
    }
}

/// The expected cost of a sequence over all decisions of a router, each with its probability.
fn expected(network: &Network, sequence: &[u32], trained: &Distilled, recipe: &Recipe) -> f64 {
    let (frame, tokens) = (network.frame(sequence.len()), sequence.len());
    let fixed = trained.router.fixed();
    let choices: Vec<(usize, usize, usize)> = (0..LAYERS)
        .flat_map(|layer| [(layer, 0), (layer, 1)])
        .filter(|&(layer, branch)| trained.candidates[layer][branch])
        .flat_map(|(layer, branch)| (0..tokens).map(move |token| (layer, branch, token)))
        .collect();
    let mut whole = network.embed(&[sequence]);
    for layer in 0..LAYERS {
        whole = network.layer(layer as u32, &frame, whole, None, recipe.kv);
    }
    let whole = shares(&network.logits(whole).into_data().iter::<f64>().collect::<Vec<f64>>());
    let mut sum = 0.0;
    for outcome in 0..1usize << choices.len() {
        let taken = |layer: usize, branch: usize, token: usize| {
            let place = choices.iter().position(|&choice| choice == (layer, branch, token));
            place.is_none_or(|place| outcome >> place & 1 == 1)
        };
        let (mut stream, mut share, mut left) = (network.embed(&[sequence]), 1.0, vec![0.0; tokens]);
        for layer in 0..LAYERS {
            let scores: Vec<f64> =
                fixed.scores(layer as u32, stream.clone()).into_data().iter::<f64>().collect();
            let decisions =
                BranchDecisions::of([1, 1, tokens], |_, branch, _, token| taken(layer, branch, token));
            for &(_, branch, token) in choices.iter().filter(|(at, ..)| *at == layer) {
                let up = 1.0 / (1.0 + (-scores[2 * token + branch] / recipe.noise).exp());
                let took = taken(layer, branch, token);
                share *= if took { up } else { 1.0 - up };
                left[token] += if took { 0.0 } else { 0.5 };
            }
            let gates = decisions.gates(0, network);
            stream = network.layer(layer as u32, &frame, stream, Some(&gates), recipe.kv);
        }
        let said = shares(&network.logits(stream).into_data().iter::<f64>().collect::<Vec<f64>>());
        let cost = (0..tokens).map(|token| {
            let left = left[token];
            divergence(&whole[token], &said[token]) + recipe.crowding * left * left - recipe.price * left
        });
        sum += share * cost.sum::<f64>() / tokens as f64;
    }
    sum
}

/// What nothing can be learned of is refused; another seed draws otherwise.
#[test]
fn draws_that_teach_nothing_are_refused() {
    let (_folder, checkpoint) = small();
    let network = Network::read(&checkpoint, &Device::flex()).expect("a Llama");
    let texts = texts(8, 1);
    let recipe = Recipe { first_steps: 1, steps: 1, hidden: 4, ..Recipe::new(2.0, 1) };
    let none = || -> Effects { panic!("effects are measured") };
    for (noise, draws, discount, said) in [
        (0.0, 4, 1.0, "noise: found 0, expected noise above 0"),
        (0.5, 1, 1.0, "--draws: found 1, expected at least 2 draws"),
        (0.5, 4, 1.5, "--discount: found 1.5, expected a discount of 0 to 1"),
    ] {
        let gradient = Gradient::Policy { draws, discount };
        let refused =
            distill(&network, &texts, &Recipe { noise, gradient, ..recipe.clone() }, none, None, |_| ())
                .expect_err("refused")
                .to_string();
        assert!(refused.contains(said), "{refused}");
    }
}
