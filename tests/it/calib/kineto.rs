//! Profiles of PyTorch: which calls become rows, whose time they take, what is left out, and that a device is learned from them.

use radialsim::calib::kineto::{self, TorchProfile};
use radialsim::calib::{Fit, Operator};
use radialsim::error::Error;
use radialsim::hw::{Hardware, Source};
use radialsim::kernel::Kernel;
use radialsim::units::Dtype;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A profile as it is made up.
#[derive(Default)]
struct Made {
    events: Vec<Value>,
    now: f64,
    devices: Value,
}

impl Made {
    /// A call that takes `us`, with calls inside it; returns its id.
    fn call(&mut self, name: &str, us: f64, args: Value, inside: impl FnOnce(&mut Made)) -> u64 {
        let id = self.events.len() as u64 + 1;
        let mut args = args;
        args["External id"] = json!(id);
        let (begin, place) = (self.now, self.events.len());
        self.events.push(json!({"ph": "X", "cat": "cpu_op", "name": name, "pid": 7, "tid": 7, "ts": begin, "dur": us, "args": args}));
        self.now += 0.01;
        inside(self);
        assert!(self.now <= begin + us, "event {place} holds what it calls");
        self.now = begin + us + 1.0;
        id
    }

    fn mm(&mut self, us: f64, [rows, inner, columns]: [u32; 3], dtype: &str) -> u64 {
        let dims = json!([[rows, inner], [inner, columns]]);
        self.call(
            "aten::mm",
            us,
            json!({"Input Dims": dims, "Input type": [dtype, dtype], "Concrete Inputs": ["", ""]}),
            |_| {},
        )
    }

    fn attention(
        &mut self,
        us: f64,
        query: [u32; 4],
        keys: [u32; 4],
        causal: bool,
        mask: Value,
        inside: impl FnOnce(&mut Made),
    ) -> u64 {
        let causal = if causal { "True" } else { "False" };
        let args = json!({
            "Input Dims": [query, keys, keys, mask, [], [], [], []],
            "Input type": ["float", "float", "float", "", "Scalar", "Scalar", "", "Scalar"],
            "Concrete Inputs": ["", "", "", "", "0.", causal, "", "False"],
        });
        self.call("aten::scaled_dot_product_attention", us, args, inside)
    }

    fn kernel(&mut self, us: f64, id: u64) {
        let args = json!({"External id": id, "device": 0});
        self.events.push(json!({"ph": "X", "cat": "kernel", "name": "some_kernel", "pid": 0, "tid": 7, "ts": self.now, "dur": us, "args": args}));
    }

    fn text(&self) -> String {
        json!({"schemaVersion": 1, "deviceProperties": self.devices, "traceEvents": self.events}).to_string()
    }

    fn read(&self) -> TorchProfile {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made.json");
        std::fs::write(&path, self.text()).unwrap();
        kineto::read(&path).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn made() -> Made {
    Made { devices: json!([]), ..Made::default() }
}

fn refused(text: &[u8], name: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    let error = kineto::read(&path).expect_err("a bad file");
    assert_eq!(error.exit_code(), 2);
    if let Error::Input(error) = &error {
        assert_eq!(error.file.as_deref(), Some(path.as_path()));
    }
    error.to_string().replace(&*path.to_string_lossy(), name)
}

fn seconds(profile: &TorchProfile, operator: Operator) -> Vec<(Kernel, f64)> {
    let table = profile.tables.iter().find(|table| table.operator == operator).expect("a table");
    table.rows.iter().map(|row| (row.kernel, (row.seconds * 1e9).round() / 1e3)).collect()
}

#[test]
fn calls_of_one_shape_are_one_row_with_their_median() {
    let mut made = made();
    for us in [30.0, 10.0, 500.0, 20.0] {
        made.mm(us, [3, 64, 128], "float");
    }
    made.mm(9.0, [4, 64, 128], "float");
    let profile = made.read();
    assert_eq!((profile.calls, profile.device.as_deref()), (5, None));
    let found = seconds(&profile, Operator::Gemm);
    assert_eq!(found.len(), 2);
    let Kernel::MatMul { rows, inner, columns, weights, inputs, activations, .. } = found[0].0 else {
        panic!()
    };
    assert_eq!((rows, inner, columns), (3, 64, 128));
    assert_eq!([weights, inputs, activations], [Dtype::F32; 3]);
    assert_eq!([found[0].1, found[1].1], [25.0, 9.0]);
}

#[test]
fn what_a_call_calls_is_not_counted_again() {
    let mut made = made();
    let addmm = json!({"Input Dims": [[32], [5, 16], [16, 32], [], []], "Input type": ["float", "float", "float", "Scalar", "Scalar"]});
    made.call("aten::linear", 100.0, json!({"Input Dims": [[5, 16], [32, 16], [32]]}), |made| {
        made.call("aten::addmm", 80.0, addmm, |_| {});
    });
    made.attention(70.0, [1, 2, 6, 8], [1, 2, 6, 8], true, json!([]), |made| {
        made.mm(20.0, [6, 8, 6], "float");
    });
    let profile = made.read();
    let [(Kernel::MatMul { rows: 5, inner: 16, columns: 32, .. }, us)] =
        seconds(&profile, Operator::Gemm)[..]
    else {
        panic!()
    };
    assert_eq!((us, profile.calls), (80.0, 2));
    assert_eq!(seconds(&profile, Operator::ContextAttention)[0].1, 70.0);
    assert!(profile.left.is_empty(), "{:?}", profile.left);
}

#[test]
fn on_a_device_the_kernels_count_whoever_started_them() {
    let mut made = made();
    made.devices = json!([{"id": 0, "name": "Some GPU"}]);
    let product = made.mm(900.0, [3, 64, 128], "c10::BFloat16");
    let mut inner = 0;
    let attention = made.attention(900.0, [2, 8, 1, 64], [2, 2, 300, 64], false, json!([]), |made| {
        inner = made.call("aten::_flash_attention_forward", 500.0, json!({}), |_| {});
    });
    let idle = made.mm(900.0, [7, 64, 128], "c10::BFloat16");
    // A product in two kernels, attention by what it called, and a kernel of nobody.
    for (us, id) in [(5.0, product), (2.0, product), (40.0, inner), (1.0, attention), (77.0, 10_000)] {
        made.kernel(us, id);
    }
    assert!(idle > 0);
    let profile = made.read();
    assert_eq!(profile.device.as_deref(), Some("Some GPU"));
    let [(Kernel::MatMul { weights: Dtype::Bf16, .. }, us)] = seconds(&profile, Operator::Gemm)[..] else {
        panic!()
    };
    assert_eq!(us, 7.0, "not the 900 us of the host");
    let [(Kernel::Attention(shape), us)] = seconds(&profile, Operator::GenerationAttention)[..] else {
        panic!()
    };
    assert_eq!(
        (us, shape.rows, shape.entries, shape.pairs, shape.heads, shape.kv_heads),
        (41.0, 2, 600, 600, 8, 2)
    );
    assert_eq!(profile.left.get("no kernel on the device"), Some(&1));
}

#[test]
fn attention_counts_where_its_mask_is_known() {
    let mut made = made();
    let mut ask = |query, keys, causal, mask| {
        made.attention(50.0, query, keys, causal, mask, |_| {});
    };
    let none = || json!([]);
    ask([1, 4, 9, 64], [1, 4, 9, 64], true, none());
    ask([3, 4, 1, 64], [3, 4, 9, 64], false, none());
    ask([1, 4, 9, 64], [1, 4, 9, 64], false, none());
    ask([1, 4, 9, 64], [1, 4, 12, 64], true, none());
    ask([1, 4, 9, 64], [1, 4, 12, 64], false, json!([1, 1, 9, 12]));
    let profile = made.read();
    let [(Kernel::Attention(prompt), _)] = seconds(&profile, Operator::ContextAttention)[..] else {
        panic!()
    };
    assert_eq!((prompt.rows, prompt.pairs, prompt.entries, prompt.decode), (9, 45, 9, false));
    let [(Kernel::Attention(step), _)] = seconds(&profile, Operator::GenerationAttention)[..] else {
        panic!()
    };
    assert_eq!((step.rows, step.pairs, step.entries, step.decode), (3, 27, 27, true));
    let said: Vec<(&str, usize)> = profile.left.iter().map(|(why, count)| (why.as_str(), *count)).collect();
    assert_eq!(
        said,
        [
            ("attention of several tokens without a causal mask", 1),
            ("attention with a causal mask that does not end with the last entry", 1),
            ("attention with a mask, whose values the profile does not have", 1),
        ]
    );
}

#[test]
fn what_is_left_out_is_counted_by_why() {
    let mut made = made();
    made.mm(9.0, [3, 64, 128], "float");
    made.mm(9.0, [4, 64, 128], "float");
    made.mm(9.0, [4, 64, 128], "c10::Half");
    made.mm(9.0, [4, 64, 128], "double");
    let bmm =
        |batch: u32| json!({"Input Dims": [[batch, 3, 4], [batch, 4, 5]], "Input type": ["float", "float"]});
    made.call("aten::bmm", 9.0, bmm(1), |_| {});
    made.call("aten::bmm", 9.0, bmm(2), |_| {});
    made.call(
        "aten::mm",
        9.0,
        json!({"Input Dims": [[3, 4], [4, 5]], "Input type": ["float", "c10::Half"]}),
        |_| {},
    );
    made.call(
        "aten::mm",
        9.0,
        json!({"Input Dims": [[3, 4], [5, 5]], "Input type": ["float", "float"]}),
        |_| {},
    );
    made.call("aten::mm", 9.0, json!({}), |_| {});
    made.mm(1.0, [5, 64, 128], "float");
    made.events.last_mut().unwrap()["dur"] = json!(0.0);
    let profile = made.read();
    assert_eq!(profile.tables[0].rows.len(), 3, "two shapes of mm, and a bmm of one");
    assert_eq!(profile.calls, 3);
    assert_eq!(profile.left.values().sum::<usize>(), 7, "{:?}", profile.left);
    for why in
        ["fewer shapes", "another format", "bmm", "two formats", "none of a product", "no shapes", "no time"]
    {
        assert_eq!(
            profile.left.iter().filter(|(said, _)| said.contains(why)).count(),
            1,
            "{why}: {:?}",
            profile.left
        );
    }
}

#[test]
fn bad_files_are_named() {
    assert!(refused(b"m,n,k\n1,2,3\n", "a.json").starts_with("a.json:1: found m,n,k"));
    assert!(refused(b"{\"traceEvents\": 3}", "a.json").contains("a list of events"));
    assert!(refused(b"[]", "a.json").contains("an object with traceEvents"));
    let said = refused(b"{\"schemaVersion\": 1}", "a.json");
    assert_eq!(said, "a.json: traceEvents: found none, expected the events of a profile of PyTorch");
    assert!(
        refused(b"{\"traceEvents\": [{\"ph\": \"X\", \"ts\": \"now\"}]}", "a.json")
            .starts_with("a.json:1: ts: found")
    );
    let mut made = made();
    made.call("aten::mm", 9.0, json!({}), |_| {});
    made.call("aten::empty", 9.0, json!({}), |_| {});
    let said = refused(made.text().as_bytes(), "a.json");
    assert!(said.contains("found 2 operators, none of them a product or attention with shapes"), "{said}");
    assert!(said.contains("record_shapes=True"), "{said}");
    made.call("aten::mm", 9.0, json!({"Input Dims": "[[1, 2]]"}), |_| {});
    assert!(
        refused(made.text().as_bytes(), "a.json").starts_with("a.json: traceEvents[2].args: expected shapes")
    );
    let mut negative = self::made();
    negative.mm(9.0, [3, 64, 128], "float");
    negative.events[0]["dur"] = json!(-4.0);
    assert_eq!(
        refused(negative.text().as_bytes(), "a.json"),
        "a.json: traceEvents[0].dur: found -4, expected microseconds"
    );
    let mut odd = self::made();
    odd.mm(9.0, [3, 64, 128], "double");
    assert!(
        refused(odd.text().as_bytes(), "a.json")
            .contains("found 1: another format than float32, bfloat16 and float16")
    );
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(odd.text().as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    assert!(refused(&packed[..packed.len() / 2], "a.json.gz").contains("cannot unpack"));
}

/// A device that is known: what it takes for a product, in microseconds.
fn known([rows, inner, columns]: [u32; 3]) -> f64 {
    let [rows, inner, columns] = [rows, inner, columns].map(f64::from);
    4.0 + (2.0 * rows * inner * columns / 0.9e6).max(4.0 * inner * columns / 15e3)
}

fn shapes() -> Vec<[u32; 3]> {
    let widths = [192, 256, 320, 512, 640, 768, 1024, 1536];
    let pairs = widths.iter().flat_map(|inner| widths.map(|columns| (*inner, columns)));
    pairs
        .flat_map(|(inner, columns)| [1, 2, 4, 7, 16, 30, 64, 100].map(|rows| [rows, inner, columns]))
        .collect()
}

fn base() -> Hardware {
    Hardware::datasheet("generic-cpu-2core").unwrap()
}

#[test]
fn a_device_that_is_known_is_learned() {
    let mut made = made();
    shapes().into_iter().for_each(|shape| {
        made.mm(known(shape), shape, "float");
    });
    let mut hardware = base();
    assert!(hardware.compute.matrix_f32_tflops.value < 0.5);
    let learned = kineto::fit(&mut hardware, &made.read(), &Fit::default()).unwrap();
    let [report] = &learned.reports[..] else { panic!("products alone") };
    assert!(report.corrected.rows > 50 && report.held_families > 5);
    assert!(report.corrected.mean < 6.0, "{:.2} % on families that no fit has seen", report.corrected.mean);
    // The best of those that are not kept aside, to four digits.
    let held = |[_, inner, columns]: [u32; 3]| Fit::default().holds(Operator::Gemm, [columns, inner, 0]);
    let rate = |shape: [u32; 3]| 2.0 * shape.map(f64::from).iter().product::<f64>() / known(shape) * 1e-6;
    let of = |wanted: bool| {
        shapes().into_iter().filter(|&shape| held(shape) == wanted).map(rate).fold(0.0, f64::max)
    };
    let peak = &hardware.compute.matrix_f32_tflops;
    assert!(
        (peak.value / of(false) - 1.0).abs() < 1e-3 && of(true) > 0.0,
        "{} and {}",
        peak.value,
        of(false)
    );
    assert!(matches!(&peak.source, Source::Measured(words) if words.contains("made.json")));
    assert_eq!(learned.remarks.len(), 1, "{:?}", learned.remarks);
    assert_eq!(Hardware::parse(&hardware.text(), Path::new("mine.ron")).unwrap().text(), hardware.text());
}

#[test]
fn times_that_depend_on_nothing_are_refused() {
    let mut made = made();
    for (index, shape) in (0u64..).zip(shapes()) {
        made.mm(10.0 + (index * 7919 % 1000) as f64, shape, "float");
    }
    let error = kineto::fit(&mut base(), &made.read(), &Fit::default()).unwrap_err().to_string();
    assert!(error.contains("times that depend on shapes"), "{error}");
}

#[test]
fn an_operator_with_few_shapes_is_left_with_a_remark() {
    let mut made = made();
    shapes().into_iter().for_each(|shape| {
        made.mm(known(shape), shape, "float");
    });
    made.attention(50.0, [1, 4, 9, 64], [1, 4, 9, 64], true, json!([]), |_| {});
    let learned = kineto::fit(&mut base(), &made.read(), &Fit::default()).unwrap();
    assert_eq!(learned.reports.len(), 1);
    assert!(
        learned.remarks.iter().any(|said| said.contains("Not fitted: context_attention: found 1 rows")),
        "{:?}",
        learned.remarks
    );

    let mut alone = self::made();
    alone.mm(50.0, [3, 64, 128], "float");
    let error = kineto::fit(&mut base(), &alone.read(), &Fit::default()).unwrap_err().to_string();
    assert!(error.contains("made.json: gemm: found"), "{error}");
}

/// 1,078 shapes under PyTorch 2.15 on one core of an AMD EPYC, recorded by `python/examples/profile_kernels.py`.
fn recorded() -> PathBuf {
    PathBuf::from("python/tests/fixtures/kineto-cpu.json.gz")
}

#[test]
fn products_of_a_real_device_are_predicted_on_shapes_kept_aside() {
    let profile = kineto::read(&recorded()).unwrap();
    let rows: Vec<usize> = profile.tables.iter().map(|table| table.rows.len()).collect();
    assert_eq!(rows, [658, 210, 210]);
    let learned = kineto::fit(&mut base(), &profile, &Fit::default()).unwrap();
    let gemm = &learned.reports[0];
    assert_eq!((gemm.name.as_str(), gemm.fitted.0 + gemm.corrected.rows), ("gemm", 658));
    assert!(gemm.corrected.mean < 15.0, "{:.2} %", gemm.corrected.mean);
    assert!(gemm.constants.mean > gemm.corrected.mean, "the correction is worth something");
}
