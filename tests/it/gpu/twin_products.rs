//! Products, embeddings and choices of tokens that come out otherwise on the device than in the oracle.

use crate::twin_support::{POISON, Twin, assert_near, near, wide};
use radialsim::gpu::{Form, Shader, shaders as s};
use radialsim::reference;
use radialsim::weights::TensorFormat;

const FORMATS: [TensorFormat; 6] = [
    TensorFormat::F32,
    TensorFormat::F16,
    TensorFormat::Bf16,
    TensorFormat::Q8_0,
    TensorFormat::Q4_1,
    TensorFormat::Q4_0,
];

/// A product's shape.
#[derive(Clone, Copy, Debug)]
struct Shape {
    inner: u32,
    columns: u32,
    format: TensorFormat,
    bias: bool,
    workgroup: u32,
    /// Columns that an invocation of a product of single rows takes one after the other.
    run: u32,
}

/// Rows in groups with layers of their own, through a shader; the results are those of the oracle. `tile`: rows of a tile.
fn product(twin: &mut Twin, shader: Shader, tile: Option<u32>, shape: Shape, groups: &[(u32, u32)]) {
    let Shape { inner, columns, format, bias, workgroup, run } = shape;
    // The buffer holds layers 2 to 4; biases are those of all layers.
    let (layers, first_layer): (u32, u32) = (3, 2);
    let rows: u32 = groups.iter().map(|(_, rows)| rows).sum();
    // The matrix is the lower part of a larger one, and the result stands within wider rows.
    let (above, left, right) = (2, 1, 2);
    let layer_rows = above + columns;
    let (tensor, weights) = twin.tensor(format, layers * layer_rows, inner);
    let (form, words) = Twin::packed(&tensor);
    let input = twin.values(rows * (inner + 4));
    let biases = twin.values((first_layer + layers) * layer_rows);
    let stride = left + columns + right;
    let mut lists = vec![9; 3];
    let mut before = 0;
    for &(layer, rows) in groups {
        match tile {
            None => lists.extend(std::iter::repeat_n(first_layer + layer, rows as usize)),
            Some(tile) => {
                for first in (0..rows).step_by(tile as usize) {
                    lists.extend([before + first, tile.min(rows - first), first_layer + layer]);
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
        first_layer,
        layers,
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
            let with = |(index, y): (usize, f64)| {
                y + if bias {
                    f64::from(biases[(first_layer * layer_rows) as usize + first + index])
                } else {
                    0.0
                }
            };
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

fn matvec(format: TensorFormat) -> Shader {
    match Form::of([format].into_iter(), Default::default()) {
        Form::F32 => s::MATVEC_F32,
        Form::F16 => s::MATVEC_F16,
        Form::Q8 => s::MATVEC_Q8,
        Form::Q4 => s::MATVEC_Q4,
    }
}

fn widths(format: TensorFormat) -> [u32; 4] {
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

/// What stands beside a row of weights is never multiplied, not with zero either.
#[test]
fn neighbours_that_are_no_numbers_do_no_harm() {
    let Some(mut twin) = Twin::new("neighbours") else { return };
    for format in [TensorFormat::F32, TensorFormat::F16] {
        for inner in [4, 20, 36] {
            let (tensor, weights) = twin.tensor(format, 3, inner);
            let form = Form::of([format].into_iter(), Default::default());
            let mut words = Twin::packed(&tensor).1;
            let row_words = form.row_words(inner);
            let own = row_words as usize..2 * row_words as usize;
            words.iter_mut().enumerate().for_each(|(at, word)| {
                if !own.contains(&at) {
                    *word = u32::MAX;
                }
            });
            let input = twin.values(inner);
            let (matrix, on_device, bias) = (twin.upload(&words), twin.upload(&input), twin.upload(&[0f32]));
            let (lists, output) = (twin.upload(&[0u32]), twin.poisoned(1));
            let parameters = s::MatMul {
                inner4: inner / 4,
                columns: 1,
                input_stride4: inner / 4,
                output_stride: 1,
                row_words,
                layer_words: 3 * row_words,
                rows_at: 0,
                columns_at: 0,
                first_row: 1,
                layer_rows: 3,
                from_row: 0,
                first_layer: 0,
                layers: 1,
                run: 1,
            };
            let constants = [("WORKGROUP", f64::from(twin.subgroup()))];
            let buffers = [&on_device, &matrix, &bias, &lists, &output];
            twin.run((matvec(format), &constants), &buffers, &parameters, [1, 1, 1]);
            let own = &weights[inner as usize..2 * inner as usize];
            let wanted = reference::matmul(1, inner as usize, 1, &wide(&input), own);
            assert_near(&twin.floats(&output, 1), &wanted, 2e-5, "beside NaN");
        }
    }
}

/// A row whose layer lies in another buffer is left alone.
#[test]
fn rows_of_other_buffers_are_left_alone() {
    let Some(mut twin) = Twin::new("elsewhere") else { return };
    for format in FORMATS {
        let (inner, columns) = (64, 33);
        let (tensor, _) = twin.tensor(format, 2 * columns, inner);
        let (form, words) = Twin::packed(&tensor);
        let (matrix, input) = (twin.upload(&words), twin.values(4 * inner));
        let (input, bias) = (twin.upload(&input), twin.upload(&[0f32]));
        let lists = twin.upload(&[6u32, 7, 8, 9]);
        let output = twin.poisoned(4 * columns);
        let parameters = s::MatMul {
            inner4: inner / 4,
            columns,
            input_stride4: inner / 4,
            output_stride: columns,
            row_words: form.row_words(inner),
            layer_words: columns * form.row_words(inner),
            rows_at: 0,
            columns_at: 0,
            first_row: 0,
            layer_rows: columns,
            from_row: 0,
            first_layer: 7,
            layers: 2,
            run: 1,
        };
        let constants = [("WORKGROUP", f64::from(twin.subgroup()))];
        let groups = [columns.div_ceil(4 * twin.subgroup()), 4, 1];
        twin.run(
            (matvec(format), &constants),
            &[&input, &matrix, &bias, &lists, &output],
            &parameters,
            groups,
        );
        let found = twin.words(&output, 4 * columns);
        for (row, values) in found.chunks_exact(columns as usize).enumerate() {
            let here = (1..3).contains(&row);
            assert!(values.iter().all(|&word| (word == POISON) != here), "{format:?}, row {row}");
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
                scale: 0.375,
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
                    let mut wanted = reference::embed_rows(width as usize, &values, &[token - 5]);
                    wanted.iter_mut().for_each(|x| *x *= 0.375);
                    assert_near(filled, &wanted, 1e-6, "embed_rows");
                }
            }
        }
    }
}
