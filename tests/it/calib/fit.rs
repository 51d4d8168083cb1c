//! Fits of measured tables: what they keep aside, what they learn, what they refuse.

use proptest::prelude::*;
use radialsim::calib::{CallTable, Fit, Operator, TableFormat, fit, predict, read, transfer};
use radialsim::cost::{Device, Limits};
use radialsim::hw::Hardware;
use radialsim::kernel::{Attention, Density, Kernel};
use radialsim::units::{Dtype, SourceKind};
use std::fmt::Write as _;
use std::sync::LazyLock;

fn product(rows: u32, columns: u32, inner: u32) -> Kernel {
    let (weights, activations, density) = (Dtype::Bf16, Dtype::Bf16, Density::Dense);
    Kernel::MatMul { rows, inner, columns, weights, inputs: activations, activations, density }
}

fn device(hw: &Hardware) -> Device {
    Device::new(hw, Limits::default()).expect("no limits")
}

fn h100() -> Hardware {
    Hardware::datasheet("nvidia-h100-sxm").expect("a shipped profile")
}

/// A device whose products take `bend` times what the formulas of an H100 say, as a table.
fn table(bend: impl Fn(u32, u32, u32) -> f64) -> CallTable {
    let truth = device(&h100());
    let mut text = "m,n,k,latency_ms\n".to_owned();
    for n in [128u32, 512, 768, 1024, 2048, 3072, 4096, 8192] {
        for k in [128u32, 256, 1024, 1536, 2048, 4096, 8192] {
            for m in [1u32, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048] {
                let ms = truth.price(&product(m, n, k)).time.s() * 1e3 * bend(m, n, k);
                writeln!(text, "{m},{n},{k},{ms}").expect("a string");
            }
        }
    }
    written(&text)
}

fn written(text: &str) -> CallTable {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gemm.csv");
    std::fs::write(&path, text).expect("written");
    read(&path, Operator::Gemm, TableFormat::Sixteen, true).expect("a table")
}

/// A law that four constants cannot follow.
fn law(m: u32, n: u32, _: u32) -> f64 {
    (if n > 1000 { 1.0 } else { 1.6 }) * (if m > 100 { 1.0 } else { 1.3 })
}

static LEARNED: LazyLock<Hardware> = LazyLock::new(|| {
    let mut hw = h100();
    fit(&mut hw, &table(law), &Fit::default()).expect("a fit");
    hw
});

#[test]
fn a_correction_learns_what_four_constants_cannot() {
    let mut hw = h100();
    let report = fit(&mut hw, &table(law), &Fit::default()).expect("a fit");
    assert!(report.constants.mean > 8.0, "{report:?}");
    assert!(report.corrected.mean < 0.5 * report.constants.mean, "{:?}", report.corrected);
    assert!(report.corrected.explained > 0.9, "{report:?}");
    // What the profile states is what it does.
    let stated = device(&hw).price(&product(100, 1000, 1000)).error.expect("a correction");
    let close = |stated: u32, was: f64| (f64::from(stated) / 100.0 - was).abs() < 0.02;
    assert!(
        close(stated.mean, report.corrected.mean) && close(stated.same_source, report.corrected.interval)
    );
}

/// The order of the times is all that is changed, by a fixed shuffle.
#[test]
fn a_fit_of_shuffled_times_says_that_it_explains_nothing() {
    let mut shuffled = table(law);
    let times: Vec<f64> = shuffled.rows.iter().map(|row| row.seconds).collect();
    let count = times.len();
    for (index, row) in shuffled.rows.iter_mut().enumerate() {
        // 389 and the number of rows, 672 = 2^5 * 3 * 7, have no common factor.
        row.seconds = times[(index * 389 + 17) % count];
    }
    let error = fit(&mut h100(), &shuffled, &Fit::default()).expect_err("noise");
    assert!(error.to_string().contains("variance"), "{error}");
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn rows_kept_aside_are_never_read_by_a_fit() {
    let how = Fit::default();
    let mut changed = table(law);
    let mut held = 0;
    for row in &mut changed.rows {
        if how.holds(Operator::Gemm, row.family) {
            held += 1;
            // Far off, but not noise: the fit must not refuse it.
            row.seconds *= 1.5;
        }
    }
    assert!(held > 50, "{held}");
    let mut hw = h100();
    let report = fit(&mut hw, &changed, &how).expect("a fit");
    assert!(report.corrected.mean > 25.0, "{report:?}");
    let learned = |hw: &Hardware| {
        let gemm = hw.corrections.as_ref().and_then(|all| all.gemm.clone()).expect("a correction");
        (gemm.forest, gemm.range, gemm.rows, hw.kernels.matmul.clone())
    };
    assert_eq!(learned(&hw), learned(&LEARNED));
}

#[test]
fn fewer_rows_are_a_subset_and_another_seed_another_split() {
    let table = table(law);
    let fitted = |share, seed| {
        let report = fit(&mut h100(), &table, &Fit { share, seed, ..Fit::default() }).expect("a fit");
        (report.fitted.0, report.corrected.rows)
    };
    let (all, held) = fitted(1.0, 0);
    let (half, same) = fitted(0.5, 0);
    assert_eq!((all + held, same), (table.rows.len(), held));
    assert!((all / 3..all * 2 / 3).contains(&half), "{half} of {all}");
    let how = |seed| Fit { seed, ..Fit::default() };
    let split = |seed| table.rows.iter().map(move |row| how(seed).holds(Operator::Gemm, row.family));
    assert!(!split(0).eq(split(1)));
}

#[test]
fn a_fitted_profile_is_small_and_reads_back_as_it_was() {
    let text = LEARNED.text();
    assert!(text.len() <= 256 * 1024, "{} bytes", text.len());
    let again = Hardware::parse(&text, "fitted").expect("a profile");
    assert_eq!(again, *LEARNED);
    assert_eq!(again.text(), text);
}

#[test]
fn shapes_beyond_the_table_say_so() {
    let own = device(&LEARNED);
    let source = |device: &Device, kernel| device.price(&kernel).source;
    assert_eq!(source(&own, product(100, 1000, 1000)), SourceKind::Fitted);
    assert_eq!(source(&own, product(3000, 1000, 1000)), SourceKind::Extrapolated);
    assert_eq!(source(&own, product(100, 100_000, 1000)), SourceKind::Extrapolated);
    let Kernel::MatMul { rows, inner, columns, activations, density, .. } = product(100, 1000, 1000) else {
        unreachable!("a product")
    };
    let weights = Dtype::Int8;
    let quantised =
        Kernel::MatMul { rows, inner, columns, weights, inputs: activations, activations, density };
    assert_eq!(source(&own, quantised), SourceKind::Extrapolated);
    let mut other = Hardware::datasheet("nvidia-h200-sxm").expect("a shipped profile");
    transfer(&LEARNED, &mut other, |_| 30.0).expect("lent");
    let other = device(&other);
    assert_eq!(source(&other, product(100, 1000, 1000)), SourceKind::Transferred);
    assert_eq!(other.price(&product(100, 1000, 1000)).error.map(|error| error.mean), Some(3000));
}

proptest! {
    #[test]
    fn corrected_products_are_monotone_in_rows(a in 1u32..6000, b in 1u32..6000, n in 1u32..20_000, k in 1u32..20_000) {
        let device = device(&LEARNED);
        let time = |m| device.price(&product(m, n, k)).time;
        prop_assert!(time(a.min(b)) <= time(a.max(b)));
    }

    /// On the shipped profile, for decode over rows and contexts, and for whole prompts over their number and length.
    #[test]
    fn corrected_attention_is_monotone_in_rows_and_context(
        a in (1u32..600, 1u64..40_000), b in (1u32..600, 1u64..40_000),
        heads in 1u16..9, group in 1u16..9, wide in any::<bool>(), decode in any::<bool>(),
    ) {
        let device = &*SHIPPED;
        let time = |batch: u32, length: u64| {
            let length = if decode { length } else { length.min(8192) };
            let (rows, pairs, entries) = match decode {
                true => (batch, u64::from(batch) * length, u64::from(batch) * length),
                false => (batch * length as u32, u64::from(batch) * length * (length + 1) / 2, u64::from(batch) * length),
            };
            let head_dim = if wide { 128 } else { 64 };
            let (activations, kv) = (Dtype::Bf16, Dtype::Bf16);
            let shape = Attention { rows, heads: heads * group, kv_heads: heads, head_dim, decode, beside: 0, waits: 0, pairs, entries, activations, kv };
            device.price(&Kernel::Attention(shape)).time
        };
        prop_assert!(time(a.0.min(b.0), a.1) <= time(a.0.max(b.0), a.1), "rows");
        prop_assert!(time(a.0, a.1.min(b.1)) <= time(a.0, a.1.max(b.1)), "context");
    }
}

/// The shipped profiles begin with waves of tiles, which the learned law above does not need.
static SHIPPED_THREE: LazyLock<Vec<Device>> = LazyLock::new(|| {
    let names = ["nvidia-h100-sxm", "nvidia-a100-sxm-80gb", "nvidia-l40s"];
    names.map(|name| device(&Hardware::shipped(name).expect("a shipped profile"))).into()
});

proptest! {
    #[test]
    fn shipped_products_are_monotone_in_rows(a in 1u32..40_000, b in 1u32..40_000, n in 1u32..70_000, k in 1u32..70_000) {
        for device in &*SHIPPED_THREE {
            let time = |m| device.price(&product(m, n, k)).time;
            prop_assert!(time(a.min(b)) <= time(a.max(b)));
            prop_assert!(time(a) <= time(a + 1));
        }
    }
}

static SHIPPED: LazyLock<Device> =
    LazyLock::new(|| device(&Hardware::shipped("nvidia-h100-sxm").expect("a shipped profile")));

/// Every shipped fit, with the rows it kept aside: the errors it states are the errors it has. Where a table was measured without captured
/// graphs they are those of the rows that the host does not hide, of which [`formats`](crate::formats) knows more.
#[test]
fn shipped_fits_are_as_wrong_as_they_say() {
    for (name, folder) in [
        ("nvidia-h100-sxm", "h100_sxm"),
        ("nvidia-a100-sxm-80gb", "a100_sxm"),
        ("nvidia-l40s", "l40s"),
        ("nvidia-b200-sxm", "b200_sxm"),
    ] {
        let hw = Hardware::shipped(name).expect("a shipped profile");
        assert!(hw.text().len() <= 768 * 1024, "{name}: {} bytes", hw.text().len());
        let corrections = hw.corrections.as_ref().expect("a fitted profile");
        let lent = |stem: &str| {
            corrections.transferred_from.is_some() && !corrections.own.iter().any(|own| own == stem)
        };
        for (stem, correction) in corrections.named().filter(|(stem, _)| !lent(stem)) {
            let formats =
                TableFormat::ALL.iter().flat_map(|&format| Operator::ALL.map(|(of, _)| (of, format)));
            let (operator, format) = formats
                .into_iter()
                .find(|(of, format)| of.in_format(*format).as_deref() == Some(stem))
                .expect(stem);
            let file = if format == TableFormat::Sixteen { format!("{stem}_bf16") } else { stem.to_owned() };
            let Some(path) = crate::data(&format!("timings/{folder}/{file}.csv")) else { return };
            let mut table = read(&path, operator, format, true).expect("a table");
            assert_eq!(table.sha256, correction.evidence.sha256, "{name} {stem}");
            table.rows.retain(|row| Fit::default().holds(operator, row.family));
            let device = device(&hw);
            if correction.host.is_some() {
                table.rows.retain(|row| device.shows(&row.kernel, row.seconds));
            }
            assert_eq!(table.rows.len() as u64, correction.evidence.held_rows, "{name} {stem}");
            let prices = predict(&device, &table);
            let errors =
                prices.iter().zip(&table.rows).map(|(price, row)| (price.time.s() / row.seconds - 1.0).abs());
            let mean = 100.0 * errors.sum::<f64>() / table.rows.len() as f64;
            assert!((mean - correction.evidence.held_error).abs() < 1e-3, "{name} {stem}: {mean}");
        }
    }
}

#[test]
fn broken_tables_are_refused_with_line_and_column() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gemm.csv");
    for (text, say) in [
        ("", "a column of this name"),
        ("m,n,latency_ms\n1,2,3\n", "k: found m,n,latency_ms"),
        ("m,n,k\n1,2,3\n", "latency_ms"),
        ("m,n,k,latency_ms\n1,2,3,0.1\n1,2,x,0.1\n", "3"),
        ("m,n,k,latency_ms\n1,2,3,-1\n", "milliseconds above 0"),
        ("m,n,k,latency_ms\n1,2,3,nan\n", "milliseconds above 0"),
        ("m,n,k,latency_ms\n1,2,99999999999,1\n", "a whole number"),
        ("m,n,k,latency_ms\n1,2,3\n", "CSV with a header"),
    ] {
        std::fs::write(&path, text).expect("written");
        let error = read(&path, Operator::Gemm, TableFormat::Sixteen, true).expect_err(text);
        assert!(
            error.to_string().contains(say) && error.to_string().contains("gemm.csv"),
            "{text:?}: {error}"
        );
        assert_eq!(error.exit_code(), 2);
    }
    let few = written("m,n,k,latency_ms\n1,2,3,0.1\n");
    assert!(fit(&mut h100(), &few, &Fit::default()).expect_err("one row").to_string().contains("50 rows"));
}

#[test]
fn broken_corrections_are_refused() {
    let text = LEARNED.text();
    for (old, new) in [
        // Two leaves without a split; a split with one leaf; a threshold that is not there.
        ("trees: [", "trees: [\"AMAAwA\","),
        ("trees: [", "trees: [\"AAAAwA\","),
        ("trees: [", "trees: [\"/38AwADA\","),
        ("rows: [1, 2,", "rows: [2, 1,"),
        ("held_error: ", "held_error: -"),
    ] {
        let broken = text.replacen(old, new, 1);
        assert_ne!(broken, text, "{old} is in the text");
        let error = Hardware::parse(&broken, "broken.ron").expect_err(new);
        assert!(error.to_string().contains("corrections.gemm"), "{new}: {error}");
    }
    for (tree, say) in [("AA", "two bytes"), ("A*", "Base64")] {
        let broken = text.replacen("trees: [", &format!("trees: [\"{tree}\","), 1);
        let error = Hardware::parse(&broken, "broken.ron").expect_err(tree).to_string();
        assert!(error.contains(say) && error.contains("broken.ron"), "{tree}: {error}");
    }
}

/// Columns that say which kernel ran, rows of other formats, windows and beams, and the same shape twice.
#[test]
fn other_columns_and_rows_of_other_kernels_do_no_harm() {
    let plain = table(law);
    let mut text = "framework,kernel_source,gemm_dtype,window_size,m,n,k,latency\n".to_owned();
    for (index, row) in plain.rows.iter().enumerate() {
        let Kernel::MatMul { rows, inner, columns, .. } = row.kernel else { unreachable!("a product") };
        let ms = row.seconds * 1e3;
        writeln!(text, "TRTLLM,torch,bfloat16,0,{rows},{columns},{inner},{ms}").expect("a string");
        writeln!(text, "TRTLLM,torch,fp8,0,{rows},{columns},{inner},{}", 0.1 * ms).expect("a string");
        writeln!(text, "TRTLLM,torch,bfloat16,128,{rows},{columns},{inner},{}", 9.0 * ms).expect("a string");
        if index % 10 == 0 {
            writeln!(text, "TRTLLM,torch,float16,0,{rows},{columns},{inner},{ms}").expect("a string");
        }
    }
    let read = written(&text);
    assert_eq!(read.rows.len(), plain.rows.len() + plain.rows.len().div_ceil(10));
    let report = fit(&mut h100(), &read, &Fit::default()).expect("a fit");
    assert!(report.corrected.explained > 0.9, "{report:?}");
    let other = written(&text.replace("bfloat16", "nvfp4").replace("float16", "nvfp4"));
    let error = fit(&mut h100(), &other, &Fit::default()).expect_err("no rows").to_string();
    assert!(error.contains("0 rows") && error.contains("the table's format"), "{error}");
}

/// What a loan brings is the lender's rows and the borrower's datasheet: whole to the same chip, less elsewhere.
#[test]
fn loans_scale_with_the_clock_and_halve_what_was_learned_abroad() {
    let shipped = Hardware::shipped("nvidia-h100-sxm").expect("shipped");
    let lent = |name: &str| {
        let mut to = Hardware::datasheet(name).expect("shipped");
        transfer(&shipped, &mut to, |_| 30.0).expect("lent");
        to
    };
    let leaves = |hw: &Hardware| -> i64 {
        let gemm = hw.corrections.as_ref().and_then(|all| all.gemm.as_ref()).expect("a correction");
        gemm.forest.trees.iter().flat_map(|tree| &tree.leaves).map(|&leaf| i64::from(leaf.abs())).sum()
    };
    let (same, other) = (lent("nvidia-h200-sxm"), lent("nvidia-l40s"));
    assert_eq!(leaves(&same), leaves(&shipped));
    let half = leaves(&other) as f64 / leaves(&shipped) as f64;
    assert!((0.48..0.52).contains(&half), "{half}");
    let fixed = |hw: &Hardware| hw.kernels.decode_attention.fixed_us.value;
    assert!((fixed(&other) - fixed(&shipped) * 1980.0 / 2520.0).abs() < 1e-9);
    // A product of one tile waits in cycles: shorter on the faster clock.
    let small = product(1, 64, 64);
    assert!(device(&other).price(&small).time < device(&same).price(&small).time);
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_tables_say_the_same_and_leave_other_formats_out() {
    use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
    let schema = "message m { required binary gemm_dtype (UTF8); required int64 m; required int64 n; required int64 k; required double latency; }";
    let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(schema).expect("a schema"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gemm_perf.parquet");
    let file = std::fs::File::create(&path).expect("a file");
    let mut writer =
        parquet::file::writer::SerializedFileWriter::new(file, schema, std::sync::Arc::default())
            .expect("a writer");
    let mut group = writer.next_row_group().expect("a group");
    let mut index = 0;
    while let Some(mut column) = group.next_column().expect("a column") {
        match index {
            0 => {
                let names = [ByteArray::from("bfloat16"), ByteArray::from("fp8")];
                column.typed::<ByteArrayType>().write_batch(&names, None, None).expect("written");
            }
            4 => {
                column.typed::<DoubleType>().write_batch(&[0.5, 0.25], None, None).expect("written");
            }
            _ => {
                column
                    .typed::<Int64Type>()
                    .write_batch(&[index * 10, index * 20], None, None)
                    .expect("written");
            }
        }
        column.close().expect("closed");
        index += 1;
    }
    group.close().expect("closed");
    writer.close().expect("closed");
    let table = read(&path, Operator::Gemm, TableFormat::Sixteen, true).expect("a table");
    let same = written("m,n,k,latency_ms\n10,20,30,0.5\n");
    assert_eq!(table.rows, same.rows);
}
