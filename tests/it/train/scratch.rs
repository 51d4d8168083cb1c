//! Networks from nothing: what a hop computes, what it may see, and that training is the same each time.

use crate::small_models::{LAYERS, Small};
use radialsim::model::{Model, RadialDescription, RadialKv, Visibility};
use radialsim::quality::Texts;
use radialsim::rng::Stream;
use radialsim::train::{
    Begin, Device, DivergenceOf, Folder, Network, NetworkShape, RadialRouter, Rules, ScratchRecipe,
    ScratchStep, ScratchWay, SendRecipe, TrainStep, TrainedRouting, Walk, along, evaluate, hashed, measure,
    scratch, send, write_router,
};
use radialsim::weights::{Checkpoint, SkipKv};
use safetensors::Dtype;

pub const WORDS: u32 = 40;

fn small() -> Network {
    let folder = tempfile::tempdir().expect("a folder");
    Small::new(false).write(folder.path(), Dtype::F32, 1);
    let checkpoint = Checkpoint::open(folder.path()).expect("a valid folder");
    Network::read(&checkpoint, &Device::flex()).expect("a Llama")
}

fn texts(sequences: usize, seed: u64) -> Texts {
    let mut random = Stream::new(seed, "texts");
    let sequence = |_| (0..12).map(|_| random.below(97) as u32).collect();
    Texts { length: 12, sequences: (0..sequences).map(sequence).collect() }
}

/// A router of random weights, which lets tokens leave too.
fn drawn(layers: u32, width: u32, seed: u64) -> radialsim::weights::RadialRouter {
    let mut random = Stream::new(seed, "router");
    let mut values = |count: u32| (0..count).map(|_| random.normal() as f32).collect();
    let (options, hidden) = (layers + 1, 8);
    radialsim::weights::RadialRouter {
        described: RadialDescription {
            kind: "radial".into(),
            model: "small".into(),
            hops: 6,
            least_hops: 1,
            weighted: false,
            kv: RadialKv::Unified,
            visible: Visibility::OnePerToken,
        },
        layers,
        width,
        hidden,
        first: values(hidden * width),
        vectors: values(options * hidden),
        second: values(options * hidden),
        biases: values(options * options),
        words: Vec::new(),
    }
}

pub fn rules(hops: u32, least_hops: u32) -> Rules {
    Rules { hops, least_hops, weighted: false }
}

/// The route of all layers in order is the sequential network, whoever names it.
#[test]
fn the_route_of_all_layers_is_the_network() {
    let (network, texts) = (small(), texts(5, 1));
    let layers = LAYERS as u32;
    let dense =
        &measure(&network, &texts, SkipKv::ProjectOnly, &[DivergenceOf::As(TrainedRouting::Dense)])[0];
    let width = network.model().hidden;
    let device = network.device();
    let identity = RadialRouter::new(layers, width, 8, Begin::Identity, 1, device).fixed();
    let ordered = RadialRouter::in_order(layers, width, device).fixed();
    let leaving = rules(layers + 3, 0);
    let all = [
        along(&network, &texts, &Walk::InOrder, &rules(layers, layers)),
        along(&network, &texts, &Walk::Routed(&ordered), &rules(layers, layers)),
        along(&network, &texts, &Walk::Routed(&identity), &leaving),
    ];
    for (measured, walked) in &all {
        for (dense, walk) in dense.iter().zip(measured) {
            assert!((dense.nll - walk.nll).abs() < 1e-4 * dense.nll, "{dense:?} {walk:?}");
            assert_eq!(walk.depth, f64::from(layers));
        }
        for batch in walked {
            for (hop, at) in batch.0.iter().enumerate() {
                let expected = (hop < LAYERS).then_some(hop as u32);
                assert!(at.iter().all(|&layer| layer == expected), "hop {hop}: {at:?}");
            }
        }
    }
    // A control: one more hop than layers is another network.
    let more = along(&network, &texts, &Walk::InOrder, &rules(layers + 1, layers + 1));
    assert!(more.0.iter().zip(dense).all(|(more, dense)| (more.nll - dense.nll).abs() > 1e-3 * dense.nll));
}

/// Nothing of what a token becomes depends on later tokens, though every token goes its own way and leaves when it likes.
#[test]
fn no_token_sees_a_later_one() {
    let network = small();
    let device = network.device();
    let mut left_early = 0;
    for seed in 0..6 {
        let router =
            RadialRouter::with(&drawn(LAYERS as u32, network.model().hidden as u32, seed), device).fixed();
        let rules = Rules { hops: 6, least_hops: 1, weighted: seed % 2 == 0 };
        let whole = texts(4, seed);
        let mut other = whole.clone();
        other
            .sequences
            .iter_mut()
            .for_each(|sequence| sequence[9..].iter_mut().for_each(|id| *id = 96 - *id));
        let cut = |texts: &Texts, length: usize| {
            let sequences = texts.sequences.iter().map(|sequence| sequence[..length].to_vec()).collect();
            Texts { length, sequences }
        };
        let run = |texts: &Texts| along(&network, texts, &Walk::Routed(&router), &rules);
        let (short, begin, far) = (run(&cut(&whole, 9)), run(&whole), run(&other));
        for (walked, length) in [(&begin.1, 12), (&far.1, 12)] {
            for (batch, short) in walked.iter().zip(&short.1) {
                for (hop, short) in batch.0.iter().zip(&short.0) {
                    let begins = hop.chunks_exact(length).flat_map(|row| &row[..9]);
                    assert!(begins.eq(short.iter()), "another way after the tokens behind changed");
                    left_early += short.iter().filter(|layer| layer.is_none()).count();
                }
            }
        }
        for (a, b) in short.0.iter().zip(&run(&cut(&other, 9)).0) {
            assert_eq!(a.nll, b.nll);
        }
    }
    assert!(left_early > 20, "{left_early}");
}

/// A hashed way depends on the word and the hop alone, and with parts of the pool, each hop has its own.
#[test]
fn hashed_ways_are_of_words() {
    let (network, texts) = (small(), texts(6, 3));
    let layers = LAYERS as u32;
    for staged in [false, true] {
        let table = hashed(5, 97, layers, 2, staged);
        let walk = Walk::Words(&table);
        let (_, walked) = along(&network, &texts, &walk, &rules(2, 2));
        let mut known = std::collections::HashMap::new();
        let mut used = std::collections::HashSet::new();
        for (batch, sequences) in walked.iter().zip(texts.sequences.chunks(4)) {
            for (hop, at) in batch.0.iter().enumerate() {
                for (word, layer) in sequences.iter().flatten().zip(at) {
                    let layer = layer.expect("nobody leaves");
                    assert_eq!(*known.entry((hop, *word)).or_insert(layer), layer);
                    used.insert((hop, layer));
                    let border = layers / 2;
                    assert!(!staged || (layer >= border) == (hop == 1), "layer {layer} at hop {hop}");
                }
            }
        }
        assert_eq!(used.len() as u32, if staged { layers } else { 2 * layers });
    }
}

/// A folder that is to be, shapes and their `config.json`; the first goes when it is dropped.
pub fn shape(layers: u32) -> (tempfile::TempDir, Folder, Model, serde_json::Value) {
    let shape = NetworkShape { layers, width: 16, heads: 2, feed_forward: 24, words: WORDS, context: 16 };
    let parent = tempfile::tempdir().expect("a folder");
    let folder = Folder::create(&parent.path().join("network")).expect("a new folder");
    let config = shape.config();
    let model = folder.model(&config).expect("a Llama");
    (parent, folder, model, config)
}

/// Sequences in which each word says the next but for some noise.
pub fn lawful(sequences: usize, seed: u64) -> Texts {
    let mut random = Stream::new(seed, "lawful");
    let sequence = |_| {
        let mut word = random.below(u64::from(WORDS)) as u32;
        (0..12)
            .map(|_| {
                word = if random.uniform() < 0.1 {
                    random.below(u64::from(WORDS)) as u32
                } else {
                    (word * 7 + 3) % WORDS
                };
                word
            })
            .collect()
    };
    Texts { length: 12, sequences: (0..sequences).map(sequence).collect() }
}

pub fn recipe(way: ScratchWay) -> ScratchRecipe {
    ScratchRecipe {
        way,
        rules: rules(2, 2),
        hidden: 8,
        steps: 120,
        rows: 8,
        rate: 1e-2,
        router_rate: 0.3,
        decay: 0.1,
        clip: 1.0,
        noise: 0.1,
        balance: 0.01,
        depth: None,
        patience: 0,
        every: 40,
        seed: 1,
    }
}

fn values(trained: &radialsim::train::Trained, model: &Model) -> Vec<f32> {
    trained.parameters.values(model).into_iter().flat_map(|(_, _, values)| values).collect()
}

/// Every kind of network learns, and the router keeps all layers alive.
#[test]
fn networks_learn_and_layers_stay_alive() {
    let (_parent, _, model, _) = shape(4);
    let (train, held_out) = (lawful(160, 1), lawful(16, 2));
    let ways = [
        ScratchWay::InOrder,
        ScratchWay::Hashed { staged: false },
        ScratchWay::Routed(Begin::Random),
        ScratchWay::Routed(Begin::Staged { hops: 2 }),
        ScratchWay::Fixed(Begin::Random),
        ScratchWay::Depths(0.5),
    ];
    for way in ways {
        let depths = matches!(way, ScratchWay::Depths(_));
        let hops = if depths { 4 } else { 2 };
        let recipe = ScratchRecipe { rules: rules(hops, hops), ..recipe(way) };
        let mut steps: Vec<ScratchStep> = Vec::new();
        let trained = scratch(&model, &train, &held_out, &recipe, &Device::flex(), None, |step| {
            steps.push(step.clone());
        })
        .expect("trained");
        let evaluated: Vec<f64> = steps.iter().filter_map(|step| step.held_out).collect();
        assert_eq!(evaluated.len(), 3);
        // Nothing is known at the start: the logarithm of the words. The noise alone leaves .1 ln 40 + H(.1) = .69 nats.
        assert!((steps[0].nll - f64::from(WORDS).ln()).abs() < 0.1, "{way:?}: {}", steps[0].nll);
        assert!(evaluated[2] < 1.6 && evaluated[2] > 0.6, "{way:?}: {evaluated:?}");
        let (measured, walked) = evaluate(&model, &trained, &held_out, &recipe).expect("measured");
        let nll = measured.iter().map(|row| row.nll / row.count).sum::<f64>() / measured.len() as f64;
        assert!((nll - evaluated[2]).abs() < 1e-6, "{nll} {evaluated:?}");
        let mut loads = vec![0; 4];
        for walk in &walked {
            loads.iter_mut().zip(walk.loads(4)).for_each(|(sum, load)| *sum += load);
        }
        // Two hops; or two whole layers and, as the scores have learned to say, about half of two more.
        let (visits, tokens) = (loads.iter().sum::<u64>(), 16 * 12);
        if depths {
            assert!(loads[0] == tokens && loads[2] == tokens, "{loads:?}");
            assert!((visits as f64 / tokens as f64 - 3.0).abs() < 0.4, "{loads:?}");
        } else {
            assert_eq!(visits, 2 * tokens);
        }
        if way != ScratchWay::InOrder {
            assert!(loads.iter().all(|&load| load > 0), "{way:?}: {loads:?}");
        }
    }
}

/// With a price, tokens come to leave at about the depth that is wanted, and at different hops.
#[test]
fn a_price_sets_the_depth() {
    let (_parent, _, model, _) = shape(4);
    let (train, held_out) = (lawful(160, 1), lawful(16, 2));
    let recipe = ScratchRecipe {
        rules: rules(6, 1),
        depth: Some(3.0),
        steps: 300,
        ..recipe(ScratchWay::Routed(Begin::Random))
    };
    let trained =
        scratch(&model, &train, &held_out, &recipe, &Device::flex(), None, |_| ()).expect("trained");
    let (measured, _) = evaluate(&model, &trained, &held_out, &recipe).expect("measured");
    let depth = measured.iter().map(|row| row.depth).sum::<f64>() / measured.len() as f64;
    assert!((2.0..=4.0).contains(&depth), "{depth}");
}

/// The same seed gives the same weights, also after a stop; another seed gives others; a checkpoint of another training is refused.
#[test]
fn a_stop_changes_no_weight() {
    let (folder, _, model, _) = shape(3);
    let (train, held_out) = (lawful(40, 1), lawful(4, 2));
    let keep = folder.path().join("network.checkpoint");
    let recipe = ScratchRecipe { steps: 60, every: 20, ..recipe(ScratchWay::Routed(Begin::Random)) };
    let run = |recipe: &ScratchRecipe, keep: Option<&std::path::Path>| {
        scratch(&model, &train, &held_out, recipe, &Device::flex(), keep, |_| ())
    };
    let whole = values(&run(&recipe, None).expect("trained"), &model);
    let stopped = std::panic::catch_unwind(|| {
        let stop = |step: &ScratchStep| assert!(step.step < 55, "stopped");
        scratch(&model, &train, &held_out, &recipe, &Device::flex(), Some(&keep), stop).map(drop)
    });
    assert!(stopped.is_err() && keep.exists());
    let mut first = None;
    let gone_on = scratch(&model, &train, &held_out, &recipe, &Device::flex(), Some(&keep), |step| {
        first.get_or_insert(step.step);
    })
    .expect("trained");
    assert_eq!(first, Some(50));
    assert!(values(&gone_on, &model) == whole);
    let other = ScratchRecipe { seed: 2, ..recipe.clone() };
    assert!(values(&run(&other, None).expect("trained"), &model) != whole);
    let refused = run(&other, Some(&keep)).map(drop).expect_err("another training");
    assert!(refused.to_string().contains("checkpoint of this training"), "{refused}");
}

/// How a radial router of a small model is trained.
fn sending(steps: u32) -> SendRecipe {
    SendRecipe {
        depth: 2.25,
        rules: rules(LAYERS as u32, 1),
        hidden: 8,
        steps,
        rows: 4,
        rate: 1e-2,
        noise: 1.0,
        clip: 0.5,
        seed: 1,
    }
}

/// A radial router for a frozen model sets out from the model itself, comes to the depth that is wanted, and is written and read again.
#[test]
fn a_frozen_model_is_sent_through_its_layers() {
    let network = small();
    let (texts, layers) = (texts(24, 2), LAYERS as u32);
    let recipe = sending(12);
    let mut steps = Vec::new();
    let router =
        send(&network, &texts, &SendRecipe { noise: 0.0, ..recipe.clone() }, None, |step| steps.push(*step))
            .expect("trained");
    assert!(steps[0].kl.abs() < 1e-6 && steps[0].depth == f64::from(layers), "{:?}", steps[0]);
    assert_eq!(steps.len(), 12);
    let fixed = router.fixed();
    let choice = DivergenceOf::Along(Walk::Routed(&fixed), recipe.rules);
    let all = measure(&network, &texts.some(8), SkipKv::ProjectOnly, &[choice]);
    let depth = all[0].iter().map(|row| row.depth).sum::<f64>() / all[0].len() as f64;
    assert!((depth - recipe.depth).abs() < 0.2, "{depth}");
    let path = tempfile::tempdir().expect("a folder").keep().join("router.safetensors");
    write_router(&router, "small", &recipe.rules, &path).expect("written");
    let read = radialsim::weights::RadialRouter::read(&path).expect("readable").expect("a router");
    let again = RadialRouter::with(&read, network.device()).fixed();
    let choice = DivergenceOf::Along(Walk::Routed(&again), recipe.rules);
    assert_eq!(measure(&network, &texts.some(8), SkipKv::ProjectOnly, &[choice]), all);
}

/// A radial router whose training was stopped comes to the same bytes, and a checkpoint of another training is refused.
#[test]
fn a_stop_changes_no_byte_of_a_radial_router() {
    let network = small();
    let folder = tempfile::tempdir().expect("a folder");
    let texts = texts(24, 2);
    let recipe = sending(25);
    let file = folder.path().join("router.safetensors");
    let bytes = |router: &RadialRouter| {
        write_router(router, "small", &recipe.rules, &file).expect("written");
        std::fs::read(&file).expect("a file")
    };
    let mut course = Vec::new();
    let whole = send(&network, &texts, &recipe, None, |step| course.push(*step)).expect("trained");
    let keep = folder.path().join("router.checkpoint");
    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let stop = |step: &TrainStep| assert!(step.step < 16, "stopped");
        send(&network, &texts, &recipe, Some(&keep), stop).map(drop)
    }));
    assert!(stopped.is_err() && keep.exists());
    let mut rest = Vec::new();
    let again = send(&network, &texts, &recipe, Some(&keep), |step| rest.push(*step)).expect("trained");
    assert_eq!(rest, course[10..]);
    assert!(bytes(&again) == bytes(&whole));
    let other = SendRecipe { seed: 2, ..recipe.clone() };
    let refused =
        send(&network, &texts, &other, Some(&keep), |_| ()).map(drop).expect_err("another training");
    assert!(refused.to_string().contains("a checkpoint of this training"), "{refused}");
    let other = send(&network, &texts, &other, None, |_| ()).expect("trained");
    assert!(bytes(&other) != bytes(&whole));
}
