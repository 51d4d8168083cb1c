//! Quality of texts under a routing: against a naive model on the host, the trainer, and itself; the kernel against its oracle.

use crate::cli::cli_execute::execute;
use crate::gpu::skips::router;
use crate::small_models::{LAYERS, Small, VOCABULARY};
use crate::twin_support::{Twin, assert_near, wide};
use radialsim::batch::{Policy, Visibility};
use radialsim::gpu::shaders as s;
use radialsim::gpu::{Executor, ExecutorOptions, Oracle, Ratio, Routing, SequenceDivergence};
use radialsim::quality::{QualityTable, Texts};
use radialsim::reference;
use radialsim::rng::Stream;
use radialsim::trace::{KvAction, Route};
use radialsim::weights::{Checkpoint, SkipKv};
use safetensors::Dtype;
use std::path::Path;
use tempfile::TempDir;

const LENGTH: usize = 12;

fn written(opt: bool) -> (TempDir, Small, Checkpoint) {
    let folder = tempfile::tempdir().expect("a folder");
    let small = Small::new(opt);
    small.write(folder.path(), Dtype::F32, 1);
    let checkpoint = Checkpoint::open(folder.path()).expect("a valid folder");
    (folder, small, checkpoint)
}

fn texts(sequences: usize) -> Texts {
    let mut random = Stream::new(9, "texts");
    let sequence = |_| (0..LENGTH).map(|_| random.below(VOCABULARY as u64) as u32).collect();
    Texts { length: LENGTH, sequences: (0..sequences).map(sequence).collect() }
}

fn options() -> ExecutorOptions {
    ExecutorOptions { positions: 40, ..ExecutorOptions::default() }
}

/// NLL of the tokens behind the first, and divergence of each row from the teacher's but at the last token, in double precision.
fn naive(teacher: &[f64], own: &[f64], ids: &[u32]) -> (f64, f64) {
    let log = |row: &[f64]| -> Vec<f64> {
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        row.iter().map(|x| x - sum.ln()).collect()
    };
    let (mut nll, mut kl) = (0.0, 0.0);
    let rows = teacher.chunks_exact(VOCABULARY).zip(own.chunks_exact(VOCABULARY)).zip(&ids[1..]);
    for ((teacher, own), &next) in rows {
        let (teacher, own) = (log(teacher), log(own));
        nll -= own[next as usize];
        kl += teacher.iter().zip(&own).map(|(t, o)| t.exp() * (t - o)).sum::<f64>();
    }
    (nll, kl)
}

#[track_caller]
fn close(found: f64, wanted: f64, what: &str) {
    assert!((found - wanted).abs() <= 1e-4 * wanted.abs() + 1e-5, "{what}: {found} against {wanted}");
}

/// One route for all tokens, a Llama and an OPT, several sequences in a pass and in several passes.
#[test]
fn what_is_measured_is_what_a_naive_model_says() {
    let Some(gpu) = crate::gpu() else { return };
    let gpu = std::rc::Rc::new(gpu);
    for (opt, pass_tokens) in [(false, 512), (true, 512), (false, 17)] {
        let (_folder, small, checkpoint) = written(opt);
        let options = ExecutorOptions { pass_tokens, ..options() };
        let mut executor = Executor::new(gpu.clone(), &checkpoint, options).expect("fits");
        let texts = texts(21);
        let route = Route::parse("0 2").expect("a route");
        let routing = Routing::Fixed(route, KvAction::None);
        let mut heard = Vec::new();
        let SequenceDivergence { teacher, network } = executor
            .worth(None, &texts, (&routing, Policy::Aligned, Visibility::SameLayer), |done| heard.push(done))
            .expect("a measurement");
        assert_eq!(heard, [16, 21]);
        for ((ids, teacher), network) in texts.sequences.iter().zip(&teacher).zip(&network) {
            let dense = small.logits(ids, |_| true);
            let (nll, _) = naive(&dense, &dense, ids);
            close(teacher.nll, nll, "the teacher's likelihood");
            assert_eq!((teacher.kl, teacher.depth, teacher.count), (0.0, LAYERS as f64, 11.0));
            let (nll, kl) = naive(&dense, &small.logits(ids, |layer| layer != 1), ids);
            close(network.nll, nll, "likelihood");
            close(network.kl, kl, "divergence");
            assert!(kl > 0.1, "two networks that differ: {kl}");
            assert_eq!((network.depth, network.count), (2.0, 11.0));
        }
        // Every layer for every token is its own teacher, by another way of running it too.
        let dense = Routing::dense(LAYERS as u32);
        let same = executor
            .worth(None, &texts, (&dense, Policy::Aligned, Visibility::SameLayer), |_| ())
            .expect("a measurement");
        assert_eq!(same.network, same.teacher);
        assert_eq!(same.teacher, teacher);
        if !opt {
            let oracle =
                Oracle { attention: 0.0, feed_forward: 0.0, ratio: Ratio::OverOutput, always: vec![] };
            let routing = Routing::Oracle(oracle);
            let all = executor
                .worth(None, &texts, (&routing, Policy::DenseMasked, Visibility::SameLayer), |_| ())
                .expect("a measurement");
            for (all, dense) in all.network.iter().zip(&teacher) {
                assert!(all.kl.abs() < 1e-4 && all.depth == LAYERS as f64, "{all:?}");
                close(all.nll, dense.nll, "an oracle that leaves out nothing");
            }
        }
    }
}

/// Another model as the teacher, on the same device.
#[test]
fn another_teacher_is_another_measure() {
    let Some(gpu) = crate::gpu() else { return };
    let gpu = std::rc::Rc::new(gpu);
    let ((_a, llama, first), (_b, opt, second)) = (written(false), written(true));
    let mut executor = Executor::new(gpu.clone(), &first, options()).expect("fits");
    let mut teacher = Executor::new(gpu, &second, options()).expect("fits");
    let texts = texts(3);
    let routing = Routing::dense(LAYERS as u32);
    let worth = executor
        .worth(Some(&mut teacher), &texts, (&routing, Policy::Aligned, Visibility::SameLayer), |_| ())
        .expect("a measurement");
    for ((ids, teacher), network) in texts.sequences.iter().zip(&worth.teacher).zip(&worth.network) {
        let (theirs, own) = (opt.logits(ids, |_| true), llama.logits(ids, |_| true));
        close(teacher.nll, naive(&theirs, &theirs, ids).0, "the teacher's likelihood");
        let (nll, kl) = naive(&theirs, &own, ids);
        close(network.nll, nll, "likelihood");
        close(network.kl, kl, "divergence");
    }
}

/// The same likelihoods, divergences and depths as the trainer's, decided by device and by host.
#[cfg(feature = "train")]
#[test]
fn what_is_measured_is_what_the_trainer_measures() {
    use radialsim::gpu::Skips;
    use radialsim::quality::{Quality, SequenceSums};
    use radialsim::trace::RouterDevice;
    use radialsim::train::{Device, Distilled, DivergenceOf, Network, measure};
    let Some(gpu) = crate::gpu() else { return };
    let (folder, _, checkpoint) = written(false);
    let network = Network::read(&checkpoint, &Device::flex()).expect("a Llama");
    let mut executor = Executor::new(gpu, &checkpoint, options()).expect("fits");
    let (texts, path) = (texts(6), folder.path().join("router.safetensors"));
    let mut apart = 0;
    for seed in 0..3 {
        for (kv, device, policy) in [
            (SkipKv::ProjectOnly, RouterDevice::Gpu, Policy::DenseMasked),
            (SkipKv::None, RouterDevice::Host, Policy::Aligned),
        ] {
            let weights = router(seed, kv);
            std::fs::write(&path, weights.bytes()).expect("a file");
            let (trained, _) = Distilled::read(&path, &network).expect("a router");
            let fixed = trained.router.fixed();
            let routing = radialsim::train::TrainedRouting::Router(&fixed, &trained.candidates);
            let wanted = measure(&network, &texts, kv, &[DivergenceOf::As(routing)]).remove(0);
            let routing = Routing::Skips(Box::new(Skips { router: weights, device }));
            let found = executor
                .worth(None, &texts, (&routing, policy, Visibility::SameLayer), |_| ())
                .expect("a measurement")
                .network;
            let mean = |all: &[SequenceSums], of: fn(&SequenceSums) -> f64| Quality::of(all, of, 1).mean;
            let mut same = |of, least: f64| {
                let (found, wanted) = (mean(&found, of), mean(&wanted, of));
                assert!((found - wanted).abs() <= 1e-3 * wanted + least, "{seed} {kv:?}: {found} {wanted}");
                apart += usize::from(found > 1e-3);
            };
            same(|row| row.nll, 0.0);
            same(|row| row.kl, 1e-6);
            let depths = found.iter().zip(&wanted).map(|(a, b)| (a.depth - b.depth).abs());
            assert!(depths.fold(0.0, f64::max) < 1e-9);
        }
    }
    assert!(apart > 8, "networks that differ from their teacher: {apart}");
}

#[test]
fn a_divergence_is_its_oracle_s() {
    let Some(mut twin) = Twin::new("divergence") else { return };
    let subgroup = f64::from(twin.subgroup());
    for (rows, vocabulary) in [(1u32, 1u32), (3, 7), (5, 64), (4, 1003)] {
        for (cap, teacher_cap) in [(None, None), (Some(1.5f32), None), (None, Some(2.0f32))] {
            let (scale, teacher_scale) = (3.0f32, 0.5f32);
            let own = twin.values(rows * vocabulary);
            // The teacher's rows lie elsewhere, and there are more of them.
            let teacher = twin.values((rows + 2) * vocabulary);
            let shaped = |values: &[f32], scale: f32, cap: Option<f32>| -> Vec<f64> {
                let shape = |x: &f64| {
                    cap.map_or(x * f64::from(scale), |cap| {
                        f64::from(cap) * (x * f64::from(scale) / f64::from(cap)).tanh()
                    })
                };
                wide(values).iter().map(shape).collect()
            };
            let (own_shaped, teacher_shaped) =
                (shaped(&own, scale, cap), shaped(&teacher, teacher_scale, teacher_cap));
            let place = |row: u32| (row + 1) % (rows + 2);
            let of = |values: &[f64], row: u32| {
                values[(row * vocabulary) as usize..][..vocabulary as usize].to_vec()
            };
            let sum = |row: &[f64]| row.iter().map(|x| x.exp()).sum::<f64>().ln();
            let (mut theirs, mut sums, mut lists) = (Vec::new(), Vec::new(), vec![77u32]);
            for row in 0..rows {
                let teacher = of(&teacher_shaped, place(row));
                let pair = [sum(&teacher), sum(&of(&own_shaped, row))];
                lists.extend([place(row), (pair[0] as f32).to_bits(), (pair[1] as f32).to_bits()]);
                theirs.extend(teacher);
                sums.push(pair);
            }
            let wanted = reference::divergence(vocabulary as usize, &theirs, &own_shaped, &sums);
            let capped = |cap: Option<f32>| f64::from(u8::from(cap.is_some()));
            let constants =
                [("WORKGROUP", subgroup), ("CAPPED", capped(cap)), ("TEACHER_CAPPED", capped(teacher_cap))];
            let parameters = s::Divergence {
                rows,
                vocabulary,
                rows_at: 1,
                scale,
                cap: cap.unwrap_or(1.0),
                teacher_scale,
                teacher_cap: teacher_cap.unwrap_or(1.0),
            };
            let found = twin.poisoned(rows + 1);
            let buffers = [&twin.upload(&own), &twin.upload(&teacher), &twin.upload(&lists), &found];
            twin.run((s::DIVERGENCE, &constants), &buffers, &parameters, [rows, 1, 1]);
            let words = twin.words(&found, rows + 1);
            assert_eq!(words[rows as usize], crate::twin_support::POISON, "no row beyond the last");
            // The logarithms of the sums are rounded to single precision.
            assert_near(&twin.floats(&found, rows), &wanted, 1e-4, "divergence");
        }
    }
}

fn run(weights: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let out = execute(weights, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&out.stderr)
        .lines()
        .filter(|line| !line.contains("XDG_RUNTIME_DIR"))
        .collect::<Vec<_>>()
        .join("\n");
    (out.status.code(), text(&out.stdout), said)
}

/// A tokenizer of single letters: `a` is 0.
const LETTERS: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
"pre_tokenizer":{"type":"Split","pattern":{"Regex":"."},"behavior":"Isolated","invert":false},"post_processor":null,"decoder":null,
"model":{"type":"WordLevel","unk_token":"a","vocab":VOCAB}}"#;

fn with_words(folder: &Path, letters: &str) {
    let vocab: serde_json::Map<String, serde_json::Value> =
        letters.chars().enumerate().map(|(id, letter)| (letter.to_string(), id.into())).collect();
    let text = LETTERS.replace("VOCAB", &serde_json::Value::Object(vocab).to_string());
    std::fs::write(folder.join("tokenizer.json"), text).expect("a writable folder");
}

#[test]
fn texts_of_any_kind_give_the_same_rows() {
    if crate::gpu().is_none() {
        return;
    }
    let (folder, ..) = written(false);
    with_words(folder.path(), "abcdefghij\n");
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let one = "abcjihdefgabcdadhaedbhfcgiejabibadjfi";
    std::fs::write(at("t.txt"), one).unwrap();
    std::fs::write(at("t.jsonl"), format!("{{\"text\":\"{one}\"}}\n\n{{\"text\":\"ab\"}}\n")).unwrap();
    let rows = |file: &str, more: &[&str]| {
        let csv = at("q.csv");
        let words = [&["--perplexity", file, "--length", "8", "--csv", &csv, "-q"], more].concat();
        let (code, out, said) = run(folder.path(), &words);
        assert_eq!((code, said.as_str()), (Some(0), ""));
        let table = QualityTable::read(Path::new(&csv)).expect("a table");
        assert!(table.rows.iter().all(|row| out.contains(&row.network)), "{out}");
        table.rows
    };
    let dense = rows(&at("t.txt"), &[]);
    assert_eq!(
        (dense.len(), dense[0].network.as_str(), dense[0].kl.expect("measured").mean),
        (1, "dense", 0.0)
    );
    assert_eq!(rows(&at("t.jsonl"), &[]), dense, "what is left over is left out");
    #[cfg(feature = "parquet")]
    {
        write_parquet(Path::new(&at("t.parquet")), &["aside", "aside"], &[one, "ab"]);
        assert_eq!(rows(&at("t.parquet"), &[]), dense);
    }
    let routed = rows(&at("t.txt"), &["--route", "0 1", "--name", "two"]);
    let names: Vec<&str> = routed.iter().map(|row| row.network.as_str()).collect();
    assert_eq!((names, routed[1].depth), (vec!["dense", "two"], 2.0));
    assert_eq!(routed[0], dense[0]);
    assert!(routed[1].kl.is_some_and(|kl| kl.mean > 0.05 && kl.interval.is_some()));
    // Of fewer tokens fewer sequences: one, of which no interval follows.
    assert_eq!(rows(&at("t.txt"), &["--tokens", "8"])[0].perplexity.interval, None);
    // By a router's file name, and against itself as another teacher.
    let aside = tempfile::tempdir().expect("a folder");
    let file = aside.path().join("r.safetensors");
    std::fs::write(&file, router(1, SkipKv::ProjectOnly).bytes()).unwrap();
    let path = folder.path().to_string_lossy().into_owned();
    let skips = rows(&at("t.txt"), &["--router", &file.to_string_lossy(), "--teacher", &path]);
    assert_eq!(skips[1].network, "r");
    assert_eq!(skips[0].perplexity, dense[0].perplexity);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    if crate::gpu().is_none() {
        return;
    }
    let (folder, ..) = written(false);
    with_words(folder.path(), "abc");
    let other = tempfile::tempdir().expect("a folder");
    Small::new(true).write(other.path(), Dtype::F32, 1);
    with_words(other.path(), "cba");
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    std::fs::write(at("t.txt"), "abcabcabcacb").unwrap();
    std::fs::write(at("bad.jsonl"), "{\"text\":\"abc\"}\n{\"words\":\"abc\"}\n").unwrap();
    let teacher = other.path().to_string_lossy().into_owned();
    let (text, bad, none) = (at("t.txt"), at("bad.jsonl"), at("none.txt"));
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (
            vec![&text, "--length", "8", "--teacher", &teacher],
            "--teacher: found other tokens, expected a teacher that cuts these texts",
        ),
        (vec![&text, "--length", "13"], "text: found none, expected texts with at least 13 tokens"),
        (vec![&bad], "bad.jsonl:2: text: expected an object with a text"),
        (vec![&none], "none.txt: cannot read"),
        (
            vec![&text, "--length", "8", "--route", "0", "--name", "dense"],
            "--name: found dense, expected a name of its own",
        ),
        (vec![&text, "--length", "8", "--csv", "/no/such/folder/q.csv"], "/no/such/folder/q.csv"),
    ];
    for (words, wanted) in cases {
        let (code, out, said) = run(folder.path(), &[&["--perplexity"], &words[..], &["-q"]].concat());
        assert_eq!((code, out.as_str(), said.lines().count()), (Some(2), "", 1), "{said}");
        assert!(said.contains(wanted), "{said}\nwanted: {wanted}");
    }
    for words in [["--json", "x.jsonl"], ["--prompt", "a"], ["--top-k", "3"]] {
        let (code, _, said) = run(folder.path(), &[&["--perplexity", &text][..], &words].concat());
        assert_eq!(code, Some(2));
        assert!(said.contains("cannot be used with"), "{said}");
    }
}

/// A file with two columns of texts, the second named `text`.
#[cfg(feature = "parquet")]
fn write_parquet(path: &Path, aside: &[&str], texts: &[&str]) {
    use parquet::data_type::{ByteArray, ByteArrayType};
    let schema = "message m { required binary aside (UTF8); required binary text (UTF8); }";
    let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(schema).expect("a schema"));
    let file = std::fs::File::create(path).expect("a file");
    let writer = parquet::file::writer::SerializedFileWriter::new(file, schema, std::sync::Arc::default());
    let mut writer = writer.expect("a writer");
    let mut group = writer.next_row_group().expect("a group");
    for column in [aside, texts] {
        let values: Vec<ByteArray> = column.iter().map(|text| ByteArray::from(*text)).collect();
        let mut to = group.next_column().expect("a column").expect("two columns");
        to.typed::<ByteArrayType>().write_batch(&values, None, None).expect("written");
        to.close().expect("closed");
    }
    group.close().expect("closed");
    writer.close().expect("closed");
}
