//! Files of routers: what was written comes back, and what is broken is named.

use radialsim::error::Result;
use radialsim::gpu::RouterMlp;
use radialsim::model::{Input, Model};
use radialsim::rng::Stream;
use radialsim::trace::RouterDevice;
use radialsim::weights::{
    AnyRouter, RadialDescription, RadialKv, RadialRouter, SkipDescription, SkipKv, SkipRouter,
    TableDescription, WordTable,
};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const LAYERS: u32 = 3;
const WIDTH: u32 = 4;
const HIDDEN: u32 = 8;
const WORDS: u32 = 5;

fn values(random: &mut Stream, count: u32) -> Vec<f32> {
    (0..count).map(|_| random.normal() as f32).collect()
}

fn radial() -> RadialRouter {
    let (mut random, options) = (Stream::new(5, "radial"), LAYERS + 1);
    RadialRouter {
        described: RadialDescription {
            kind: "radial".into(),
            model: "small".into(),
            hops: 5,
            least_hops: 1,
            weighted: true,
            kv: RadialKv::Unified,
            visible: radialsim::batch::Visibility::OnePerToken,
        },
        layers: LAYERS,
        width: WIDTH,
        hidden: HIDDEN,
        first: values(&mut random, HIDDEN * WIDTH),
        vectors: values(&mut random, options * HIDDEN),
        second: values(&mut random, options * HIDDEN),
        biases: values(&mut random, options * options),
        words: Vec::new(),
    }
}

fn skip() -> SkipRouter {
    let mut random = Stream::new(6, "skip");
    SkipRouter {
        described: SkipDescription {
            kind: "skip".into(),
            model: "small".into(),
            kv: SkipKv::None,
            candidates: vec![[true, false]; LAYERS as usize],
        },
        layers: LAYERS,
        width: WIDTH,
        hidden: HIDDEN,
        first: values(&mut random, HIDDEN * WIDTH),
        vectors: values(&mut random, LAYERS * HIDDEN),
        second: values(&mut random, LAYERS * 2 * HIDDEN),
        biases: values(&mut random, LAYERS * 2),
    }
}

fn table() -> WordTable {
    let described = TableDescription {
        kind: "table".into(),
        model: "small".into(),
        hops: 2,
        kv: RadialKv::Unified,
        visible: radialsim::batch::Visibility::OnePerToken,
    };
    let layers = (0..2 * WORDS).map(|at| at * 7 % LAYERS).collect();
    WordTable { described, words: WORDS, layers }
}

/// A model of these layers and this width, of `WORDS` words.
fn model(layers: u32, width: u32) -> Model {
    let mut model = Model::builtin("llama-2-7b").expect("a model");
    (model.layers, model.hidden) = (layers, width.into());
    model.input = Input::Tokens { vocabulary: WORDS.into(), width: width.into() };
    model
}

/// A file in pieces that can be broken one by one.
struct Pieces {
    described: Value,
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl Pieces {
    fn new() -> Pieces {
        let RadialRouter { described, first, vectors, second, biases, .. } = radial();
        let (options, hidden) = (LAYERS as usize + 1, HIDDEN as usize);
        let tensors = vec![
            ("first".into(), vec![hidden, WIDTH as usize], first),
            ("vectors".into(), vec![options, hidden], vectors),
            ("second".into(), vec![options, hidden], second),
            ("biases".into(), vec![options, options], biases),
        ];
        Pieces { described: serde_json::to_value(described).expect("JSON"), tensors }
    }

    fn set(mut self, key: &str, value: Value) -> Pieces {
        self.described[key] = value;
        self
    }

    fn tensor(mut self, name: &str, shape: &[usize]) -> Pieces {
        self.tensors.retain(|(other, ..)| other != name);
        self.tensors.push((name.into(), shape.into(), vec![0.0; shape.iter().product()]));
        self
    }

    fn write(&self, folder: &Path, described: &str) -> PathBuf {
        let raw: Vec<(&String, &Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, shape, values)| (name, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect()))
            .collect();
        let view =
            |shape: &[usize], bytes| TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("a tensor");
        let metadata = HashMap::from([("radial".to_owned(), described.to_owned())]);
        let path = folder.join("router.safetensors");
        let views = raw.iter().map(|(name, shape, bytes)| (*name, view(shape, bytes)));
        let bytes = safetensors::serialize(views, Some(metadata)).expect("a file");
        std::fs::write(&path, bytes).expect("a writable folder");
        path
    }

    #[track_caller]
    fn refused(&self, parts: &[&str]) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = self.write(folder.path(), &self.described.to_string());
        said(RadialRouter::read(&path), parts);
        said(AnyRouter::read(&path), parts);
    }
}

#[track_caller]
fn said<T: std::fmt::Debug>(read: Result<T>, parts: &[&str]) {
    let error = read.expect_err("a refusal");
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    for part in [&["router.safetensors"], parts].concat() {
        assert!(text.contains(part) && !text.contains('\n'), "no {part:?} in: {text}");
    }
}

#[test]
fn what_is_written_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("router.safetensors");
    let (radial, skip) = (radial(), skip());
    std::fs::write(&path, radial.bytes()).expect("a writable folder");
    assert_eq!(RadialRouter::read(&path).expect("a router").as_ref(), Some(&radial));
    assert_eq!(AnyRouter::read(&path).expect("a router"), Some(AnyRouter::Radial(radial.clone())));
    said(SkipRouter::read(&path), &["__metadata__.radial.kind", "expected skip"]);
    said(RouterMlp::read(&path, 4, RouterDevice::Host), &["__metadata__.radial", "plain"]);
    std::fs::write(&path, skip.bytes()).expect("a writable folder");
    assert_eq!(SkipRouter::read(&path).expect("a router").as_ref(), Some(&skip));
    assert_eq!(AnyRouter::read(&path).expect("a router"), Some(AnyRouter::Skip(skip)));
    said(RadialRouter::read(&path), &["__metadata__.radial.kind", "expected radial"]);
    radial.check(&model(LAYERS, WIDTH)).expect("its own shapes");
    for (layers, width) in [(LAYERS + 1, WIDTH), (LAYERS, WIDTH + 4)] {
        let error = radial.check(&model(layers, width)).expect_err("other shapes").to_string();
        assert!(error.contains("3 layers") && error.contains("stream of 4"), "{error}");
    }
    // Pieces put together by hand are the same file.
    let pieces = Pieces::new();
    let path = pieces.write(folder.path(), &pieces.described.to_string());
    assert_eq!(RadialRouter::read(&path).expect("a router"), Some(radial));
}

#[test]
fn broken_descriptions_are_named() {
    let new = Pieces::new;
    new().set("kind", json!("spiral")).refused(&[
        "__metadata__.radial.kind",
        "spiral",
        "skip, radial or table",
    ]);
    new().set("kind", json!(7)).refused(&["__metadata__.radial.kind", "7"]);
    new().set("hops", json!(0)).refused(&["__metadata__.radial.hops", "found 0", "1 to 1024"]);
    new().set("hops", json!(1025)).refused(&["__metadata__.radial.hops", "1025"]);
    new().set("hops", json!(-1)).refused(&["__metadata__.radial", "hops"]);
    new().set("least_hops", json!(6)).refused(&["__metadata__.radial.least_hops", "found 6", "5"]);
    new().set("weighted", json!(1)).refused(&["__metadata__.radial", "weighted"]);
    new().set("kv", json!("write")).refused(&["__metadata__.radial", "write", "unified"]);
    new().set("visible", json!("newest")).refused(&["__metadata__.radial", "newest", "one_per_token"]);
    new().set("temperature", json!(1)).refused(&["__metadata__.radial", "temperature"]);
    let pieces = new();
    let folder = tempfile::tempdir().expect("a folder");
    for (text, parts) in [
        ("[]", ["__metadata__.radial", "description"]),
        ("{", ["__metadata__.radial", "description"]),
        ("{}", ["__metadata__.radial.kind", "none"]),
        (r#"{"kind":"radial","kind":"radial"}"#, ["__metadata__.radial.kind", "once"]),
        (r#"{"kind":"radial","model":"x"}"#, ["__metadata__.radial", "missing field"]),
    ] {
        said(RadialRouter::read(&pieces.write(folder.path(), text)), &parts);
    }
}

#[test]
fn broken_tensors_are_named() {
    let new = Pieces::new;
    new().tensor("third", &[1, 1]).refused(&["third", "only first, vectors, second, biases, words"]);
    new().tensor("first", &[8]).refused(&["first", "F32 with 2 dimensions"]);
    new().tensor("first", &[0, 4]).refused(&["first", "at least one"]);
    new().tensor("biases", &[1, 1]).refused(&["first", "at least one layer"]);
    new().tensor("biases", &[4, 3]).refused(&["biases", "[4, 3]", "[4, 4]"]);
    new().tensor("vectors", &[3, 8]).refused(&["vectors", "[3, 8]", "[4, 8]"]);
    new().tensor("second", &[4, 4]).refused(&["second", "[4, 4]", "[4, 8]"]);
    let mut pieces = new();
    pieces.tensors.remove(3);
    pieces.refused(&["biases", "a tensor of this name"]);
    let mut pieces = new();
    pieces.tensors[2].2[5] = f32::NAN;
    pieces.refused(&["second", "finite"]);
}

#[test]
fn routers_that_see_words_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("router.safetensors");
    let words = values(&mut Stream::new(7, "words"), WORDS * HIDDEN);
    let router = RadialRouter { words, ..radial() };
    std::fs::write(&path, router.bytes()).expect("a writable folder");
    assert_eq!(RadialRouter::read(&path).expect("a router").as_ref(), Some(&router));
    assert_eq!((router.seen_words(), radial().seen_words()), (Some(WORDS), None));
    router.check(&model(LAYERS, WIDTH)).expect("its own shapes");
    let more = RadialRouter { words: vec![0.0; (WORDS * HIDDEN + HIDDEN) as usize], ..router };
    let error = more.check(&model(LAYERS, WIDTH)).expect_err("other words").to_string();
    assert!(error.contains("words") && error.contains("found 6") && error.contains("5 words"), "{error}");
    Pieces::new().tensor("words", &[5, 7]).refused(&["words", "[5, 7]", "[5, 8]"]);
    Pieces::new().tensor("words", &[40]).refused(&["words", "F32 with 2 dimensions"]);
}

#[test]
fn tables_come_back_and_broken_ones_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("router.safetensors");
    let good = table();
    std::fs::write(&path, good.bytes()).expect("a writable folder");
    assert_eq!(AnyRouter::read(&path).expect("a table"), Some(AnyRouter::Table(good.clone())));
    said(RadialRouter::read(&path), &["__metadata__.radial.kind", "expected radial"]);
    assert_eq!(good.of(3), [6 * 7 % LAYERS, 7 * 7 % LAYERS]);
    good.check(&model(LAYERS, WIDTH)).expect("its own shapes");
    let refused = |layers: u32, words: u32| {
        let mut model = model(layers, WIDTH);
        model.input = Input::Tokens { vocabulary: words.into(), width: WIDTH.into() };
        good.check(&model).expect_err("other shapes").to_string()
    };
    assert!(refused(LAYERS - 1, WORDS).contains("layers below 2"));
    assert!(refused(LAYERS, WORDS + 1).contains("rows for 6 words"));
    // Another number of hops than it says, and values that are no layers.
    let said_hops = |hops: u32| {
        let mut wrong = good.clone();
        wrong.described.hops = hops;
        (wrong.words, wrong.layers) = (10 / hops.max(1), good.layers.clone());
        wrong
    };
    let mut five = said_hops(5).bytes();
    let at = five.windows(8).position(|part| part == b"hops\\\":5").expect("it is there") + 7;
    five[at] = b'1';
    std::fs::write(&path, five).expect("a writable folder");
    said(AnyRouter::read(&path), &["layers", "words x 1"]);
    let mut floats =
        Pieces { described: serde_json::to_value(&good.described).expect("JSON"), tensors: vec![] };
    floats = floats.tensor("layers", &[5, 2]);
    said(AnyRouter::read(&floats.write(folder.path(), &floats.described.to_string())), &["layers", "U32"]);
    floats = floats.set("hops", json!(0));
    said(
        AnyRouter::read(&floats.write(folder.path(), &floats.described.to_string())),
        &["hops", "1 to 1024"],
    );
}
