//! Products, embeddings and choices of tokens that come out otherwise on the device than in the oracle.

use crate::twin_support::{POISON, Twin, assert_near, near, wide};
use radialsim::gpu::{Form, Shader, shaders as s};
use radialsim::reference;
use radialsim::weights::Format;

const FORMATS: [Format; 6] =
    [Format::F32, Format::F16, Format::Bf16, Format::Q8_0, Format::Q4_1, Format::Q4_0];

/// A product's shape.
#[derive(Clone, Copy, Debug)]
struct Shape {
    inner: u32,
    columns: u32,
    format: Format,
    bias: bool,
    workgroup: u32,
    /// Columns that an invocation of a product of single rows takes one after the other.
    run: u32,
}

/// Rows in groups with layers of their own, through a shader; the results are those of the oracle. `tile`: rows of a tile.
fn product(twin: &mut Twin, shader: Shader, tile: Option<u32>, shape: Shape, groups: &[(u32, u32)]) {
    let Shape { inner, columns, format, bias, workgroup, run } = shape;
    let (layers, rows): (u32, u32) = (3, groups.iter().map(|(_, rows)| rows).sum());
    // The matrix is the lower part of a larger one, and the result stands within wider rows.
    let (above, left, right) = (2, 1, 2);
    let layer_rows = above + columns;
    let (tensor, weights) = twin.tensor(format, layers * layer_rows, inner);
    let (form, words) = Twin::packed(&tensor);
    let input = twin.values(rows * (inner + 4));
    let biases = twin.values(layers * layer_rows);
    let stride = left + columns + right;
    let mut lists = vec![9; 3];
    let mut before = 0;
    for &(layer, rows) in groups {
        match tile {
            None => lists.extend(std::iter::repeat_n(layer, rows as usize)),
            Some(tile) => {
                for first in (0..rows).step_by(tile as usize) {
                    lists.extend([before + first, tile.min(rows - first), layer]);
                }
            }
        }
        before += rows;
    }
    let calls = if tile.is_some() { (lists.len() as u32 - 3) / 3 } else { rows };
    let row_words = form.row_words(inner);
    let parameters = s::MatMul {
        inner4: inner / 4,
        columns,
        input_stride4: inner / 4 + 1,
        output_stride: stride,
        row_words,
        layer_words: layer_rows * row_words,
        rows_at: 3,
        columns_at: left,
        first_row: above,
        layer_rows,
        from_row: 0,
        run,
    };
    let execute = |twin: &Twin, input: &[f32]| {
        let matrix = twin.upload(&words);
        let (input, biases, lists) = (twin.upload(input), twin.upload(&biases), twin.upload(&lists));
        let output = twin.poisoned(rows * stride);
        let common = [("WORKGROUP", f64::from(workgroup)), ("BIAS", f64::from(u8::from(bias)))];
        let groups = [columns.div_ceil(4 * workgroup * run), calls, 1];
        match tile {
            None => {
                twin.run((shader, &common), &[&input, &matrix, &biases, &lists, &output], &parameters, groups)
            }
            Some(tile) => {
                let constants =
                    [common[0], common[1], ("ROWS", f64::from(tile)), ("FORMAT", form as u32 as f64)];
                let buffers = [&input, &matrix, &matrix, &biases, &lists, &output];
                twin.run((shader, &constants), &buffers, &parameters, groups);
            }
        }
        twin.floats(&output, rows * stride)
    };
    let found = execute(twin, &input);
    let (mut wanted, mut got, mut row) = (Vec::new(), Vec::new(), 0);
    for &(layer, rows) in groups {
        let first = (layer * layer_rows + above) as usize;
        let part = &weights[first * inner as usize..][..(columns * inner) as usize];
        for _ in 0..rows {
            let x = wide(&input[row * (inner as usize + 4)..][..inner as usize]);
            let y = reference::matmul(1, inner as usize, columns as usize, &x, part);
            let with =
                |(index, y): (usize, f64)| y + if bias { f64::from(biases[first + index]) } else { 0.0 };
            wanted.extend(y.into_iter().enumerate().map(with));
            let out = &found[row * stride as usize..][..stride as usize];
            got.extend(&out[left as usize..(left + columns) as usize]);
            let beside = out[..left as usize].iter().chain(&out[(left + columns) as usize..]);
            assert!(
                beside.clone().all(|x| x.to_bits() == POISON),
                "{} writes beside its columns",
                shader.name
            );
            row += 1;
        }
    }
    let what = format!("{} {shape:?} {groups:?}", shader.name);
    assert_near(&got, &wanted, 2e-5, &what);
    // Negative control: another input gives another result.
    let mut other = input;
    other.iter_mut().take(inner as usize).for_each(|x| *x = 1.0 - *x);
    let other = execute(twin, &other);
    let other: Vec<f32> = (0..rows as usize)
        .flat_map(|row| other[row * stride as usize + left as usize..][..columns as usize].to_vec())
        .collect();
    assert!(rows == 0 || !near(&other, &wanted, 2e-5), "{what}: a wrong input goes unnoticed");
}

fn matvec(format: Format) -> Shader {
    match Form::of([format].into_iter(), Default::default()) {
        Form::F32 => s::MATVEC_F32,
        Form::F16 => s::MATVEC_F16,
        Form::Q8 => s::MATVEC_Q8,
        Form::Q4 => s::MATVEC_Q4,
    }
}

fn widths(format: Format) -> [u32; 4] {
    match format.block().1 {
        1 => [4, 32, 36, 172],
        _ => [32, 64, 96, 160],
    }
}

#[test]
fn a_row_times_a_matrix_in_every_format() {
    let Some(mut twin) = Twin::new("matvec") else { return };
    for format in FORMATS {
        for (index, inner) in widths(format).into_iter().enumerate() {
            for (bias, columns) in [(false, 1), (true, 31), (false, 32), (true, 33), (false, 70)] {
                let workgroup = twin.subgroup() * (1 + index as u32 % 2 * 3);
                let shape = Shape { inner, columns, format, bias, workgroup, run: 1 + columns % 3 };
                product(&mut twin, matvec(format), None, shape, &[(1, 1)]);
                product(&mut twin, matvec(format), None, shape, &[(2, 1), (0, 2)]);
            }
        }
    }
}

#[test]
fn tiles_of_rows_times_a_matrix_in_every_format() {
    let Some(mut twin) = Twin::new("matmul") else { return };
    for (tile, shader) in [8, 16, 32].map(|tile| (tile, s::MATMUL_TILES)) {
        for format in FORMATS {
            for (index, inner) in widths(format).into_iter().enumerate() {
                let workgroup = twin.subgroup() * (1 + index as u32 % 2 * 3);
                for (at, rows) in [1, tile - 1, tile, tile + 1].into_iter().enumerate() {
                    let (bias, columns) = [(false, 1), (true, 31), (false, 33), (true, 65)][(at + index) % 4];
                    let shape = Shape { inner, columns, format, bias, workgroup, run: 1 };
                    product(&mut twin, shader, Some(tile), shape, &[(1, rows)]);
                }
                let shape = Shape { inner, columns: 40, format, bias: true, workgroup, run: 1 };
                product(&mut twin, shader, Some(tile), shape, &[(2, 3), (0, tile + 1), (1, 1)]);
            }
        }
    }
}

#[test]
fn rows_of_a_table_in_every_format() {
    let Some(mut twin) = Twin::new("embed") else { return };
    for format in FORMATS {
        for (workgroup, width) in [(16, widths(format)[2]), (64, widths(format)[3])] {
            let (tensor, values) = twin.tensor(format, 12, width);
            let (form, words) = Twin::packed(&tensor);
            // The table's first row is token 5; tokens outside are left alone.
            let tokens = [0, 5, 16, 4, 17, 9];
            let lists = twin.upload(&[&[7; 2], &tokens[..]].concat());
            let rows = tokens.len() as u32;
            let table = twin.upload(&words);
            let output = twin.poisoned(rows * (width + 4));
            let parameters = s::EmbedRows {
                rows,
                width4: width / 4,
                stride4: width / 4 + 1,
                row_words: form.row_words(width),
                tokens: 2,
                first: 5,
                count: 12,
            };
            let constants = [("WORKGROUP", f64::from(workgroup)), ("FORMAT", form as u32 as f64)];
            let groups = [(width / 4).div_ceil(workgroup), rows, 1];
            twin.run((s::EMBED_ROWS, &constants), &[&table, &lists, &output], &parameters, groups);
            let found = twin.floats(&output, rows * (width + 4));
            for (row, token) in found.chunks_exact(width as usize + 4).zip(tokens) {
                let inside = (5..17).contains(&token);
                let (filled, rest) = row.split_at(if inside { width as usize } else { 0 });
                assert!(rest.iter().all(|x| x.to_bits() == POISON));
                if inside {
                    let wanted = reference::embed_rows(width as usize, &values, &[token - 5]);
                    assert_near(filled, &wanted, 1e-6, "embed_rows");
                }
            }
        }
    }
}

#[test]
fn the_likeliest_tokens_in_order() {
    let Some(mut twin) = Twin::new("sample") else { return };
    for (vocabulary, top) in [(1, 1), (7, 3), (8, 8), (9, 5), (100, 1), (1003, 6)] {
        let (rows, stride) = (3, vocabulary + 5);
        let mut logits = twin.values(rows * stride);
        // Equal logits: the first token wins; a row far from zero.
        logits.iter_mut().skip(stride as usize).take(stride as usize).for_each(|x| *x = (*x * 4.0).round());
        logits.iter_mut().skip(2 * stride as usize).for_each(|x| *x = *x * 50.0 - 300.0);
        let targets: Vec<u32> = (0..rows).map(|_| twin.upto(vocabulary)).collect();
        let words = 2 + 2 * top;
        for workgroup in [twin.subgroup()] {
            let (input, lists) = (twin.upload(&logits), twin.upload(&[&[9], &targets[..]].concat()));
            let chosen = twin.poisoned((rows + 1) * words);
            let parameters = s::Sample { rows, vocabulary, stride, top, targets: 1, first: 1 };
            let constants = [("WORKGROUP", f64::from(workgroup))];
            twin.run((s::SAMPLE, &constants), &[&input, &lists, &chosen], &parameters, [rows, 1, 1]);
            let found = twin.words(&chosen, (rows + 1) * words);
            assert!(found[..words as usize].iter().all(|&word| word == POISON));
            for (row, found) in found[words as usize..].chunks_exact(words as usize).enumerate() {
                let logits = &logits[row * stride as usize..][..vocabulary as usize];
                let mut order: Vec<u32> = (0..vocabulary).collect();
                order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
                assert_eq!(found[2], reference::sample(1, vocabulary as usize, &wide(logits))[0]);
                for (place, &token) in order.iter().take(top as usize).enumerate() {
                    assert_eq!(found[2 + 2 * place], token, "row {row} of {vocabulary}");
                    assert_eq!(f32::from_bits(found[3 + 2 * place]), logits[token as usize]);
                }
                let highest = wide(logits).into_iter().fold(f64::MIN, f64::max);
                let sum: f64 = logits.iter().map(|&x| libm::exp(f64::from(x) - highest)).sum();
                assert_near(&[f32::from_bits(found[0])], &[highest + libm::log(sum)], 1e-6, "log of the sum");
                assert_eq!(f32::from_bits(found[1]), logits[targets[row] as usize]);
            }
        }
    }
}

#[test]
fn a_router_chooses_as_its_oracle() {
    let Some(mut twin) = Twin::new("router") else { return };
    for (width, hidden, options) in [(4, 0, 1), (36, 0, 7), (64, 4, 2), (36, 12, 31), (128, 1024, 9)] {
        let (rows, stride) = (5, width + 8);
        let input = twin.values(rows * stride);
        let inside = if hidden == 0 { width } else { hidden };
        let (first, second) = (twin.values(hidden.max(1) * width), twin.values(options * inside));
        let buffers = [twin.upload(&input), twin.upload(&first), twin.upload(&second)];
        let decisions = twin.poisoned(2 * (rows + 2));
        let parameters =
            s::Router { rows, width4: width / 4, stride4: stride / 4, hidden, options, decisions: 1 };
        let constants =
            [("WORKGROUP", f64::from(twin.subgroup())), ("LINEAR", f64::from(u8::from(hidden == 0)))];
        let bound = [&buffers[0], &buffers[1], &buffers[2], &decisions];
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
