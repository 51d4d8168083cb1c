//! What layers add, over several models: quantiles by hand, trends by closed forms, tables that cannot be.

use crate::cli::{folder, names_in, radialsim, text};
use crate::sweep_support::only_line;
use radialsim::report::contributions::{LayerProfile, MARKS, Trend, charts, quantile, words};
use std::fmt::Write as _;
use std::path::Path;

const HEAD: &str = "prompt,layer,attn_over_output,ffn_over_output,block_over_output,attn_over_input,ffn_over_input,block_over_input\n";

/// A model whose layer l adds `share` times (1 + l), its four tokens 1, 2, 3 and 5 times as much.
fn table(layers: u32, share: f64) -> String {
    let mut text = HEAD.to_owned();
    for token in [2.0, 1.0, 5.0, 3.0] {
        for layer in 0..layers {
            let value = share * token * f64::from(1 + layer);
            let _ = writeln!(
                text,
                "0,{layer},{value},{},{},{},{},{}",
                2.0 * value,
                3.0 * value,
                4.0 * value,
                5.0 * value,
                6.0 * value
            );
        }
    }
    text
}

fn read(folder: &Path, name: &str, parameters: f64, text: &str) -> LayerProfile {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    LayerProfile::read(name, parameters, &path).unwrap()
}

#[track_caller]
fn near(found: f64, wanted: f64) {
    assert!((found - wanted).abs() <= 1e-6 * wanted.abs(), "{found} against {wanted}");
}

#[test]
fn quantiles_are_those_of_the_values() {
    let folder = folder();
    let profile = read(folder.path(), "m", 1e6, &table(3, 0.01));
    assert_eq!((profile.layers.len(), profile.tokens), (3, 4));
    for (layer, spreads) in profile.layers.iter().enumerate() {
        let share = 0.01 * (1.0 + layer as f64);
        // Of 1, 2, 3 and 5: quartiles 1.75 and 3.5, median 2.5; a block adds 3 times as much, and 6 over its input.
        for (kind, times) in [(1, 3.0), (3, 6.0)] {
            near(spreads[kind][1], 1.75 * share * times);
            near(spreads[kind][2], 2.5 * share * times);
            near(spreads[kind][3], 3.5 * share * times);
        }
        // Branches: 1, 2, 2, 3, 4, 5, 6, 10.
        near(spreads[0][2], 3.5 * share);
        // The same times 4 and 5: 4, 5, 8, 10, 12, 15, 20, 25.
        near(spreads[2][2], 11.0 * share);
    }
    // Over all layers: 1, 2, 3, 5; 2, 4, 6, 10; 3, 6, 9, 15.
    near(profile.all[1][2], 4.5 * 0.03);
    assert_eq!((quantile(&[], 0.5), quantile(&[7.0], 0.9)), (0.0, 7.0));
}

#[test]
fn a_trend_is_the_line_of_least_squares() {
    // A power law is found, and its error is nothing.
    let law = |x: f64| (x, 0.7 * x.powf(-0.4));
    let exact = Trend::through(&[4.0, 8.0, 16.0, 64.0].map(law)).unwrap();
    near(exact.power, -0.4);
    near(exact.at(32.0), law(32.0).1);
    assert!(exact.error.unwrap() < 1e-9 && exact.half_width().unwrap() < 1e-8);
    // Logarithms 0, 1, 2 with 0, 1, 0: slope 0, residuals 1/3, 2/3, 1/3; error (2/3 / 1 / 2)^0.5, and t of one degree at .95 is 6.3138.
    let e = std::f64::consts::E;
    let trend = Trend::through(&[(1.0, 1.0), (e, e), (e * e, 1.0)]).unwrap();
    assert!(trend.power.abs() < 1e-12);
    near(trend.offset, 1.0 / 3.0);
    near(trend.error.unwrap(), (1.0f64 / 3.0).sqrt());
    near(trend.half_width().unwrap(), 6.313_751_5 * (1.0f64 / 3.0).sqrt());
    // Two points have a line and no error; one, or two of the same depth, have none; a median of nothing is no point.
    let two = Trend::through(&[law(4.0), law(8.0)]).unwrap();
    assert_eq!((two.error, two.half_width()), (None, None));
    assert_eq!(Trend::through(&[law(4.0)]), None);
    assert_eq!(Trend::through(&[(4.0, 1.0), (4.0, 2.0)]), None);
    assert_eq!(Trend::through(&[law(4.0), law(8.0), (9.0, 0.0)]).unwrap(), two);
}

#[test]
fn several_models_stand_beside_what_was_published() {
    let folder = folder();
    let profiles = [(4, 0.02, 1e6), (8, 0.005, 8e6), (16, 0.001, 4e7)].map(|(layers, share, parameters)| {
        read(folder.path(), &format!("model {layers}"), parameters, &table(layers, share))
    });
    let said = words(&profiles);
    for mark in MARKS {
        assert!(
            said.contains(mark.name) && said.contains(&format!("about {:.0} %", 100.0 * mark.median)),
            "{said}"
        );
    }
    let trend =
        Trend::through(&profiles.each_ref().map(|profile| (profile.layers.len() as f64, profile.all[1][2])))
            .unwrap();
    let line = format!(
        "a block, over output     layers^{:.3}, standard error {:.3}",
        trend.power,
        trend.error.unwrap()
    );
    assert!(said.contains(&line), "{line}\n{said}");
    assert!(words(&profiles[..2]).contains("through two models, which every power fits"));
    assert!(words(&profiles[..1]).contains("no trend: it takes two models of different layers"));
    for (_, chart) in charts(&profiles) {
        let svg = chart.svg(radialsim::plot::Ink::Paper);
        assert!(svg.contains("model 16") && svg.contains("a block, over input"));
        let (head, rows) = chart.table();
        assert!(rows.iter().all(|row| row.len() == head.len()));
    }
    // From the outside: the same words, a table with a row for each model, layer and kind, and three pictures.
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let words = [
        "inspect",
        "residuals",
        &format!("model 4:1M={}", at("model 4")),
        &format!("model 8:8e6={}", at("model 8")),
        &format!("model 16:0.04B={}", at("model 16")),
        "--csv",
        &at("all.csv"),
        "--svg",
        &at("p"),
    ];
    let out = radialsim(&words);
    assert_eq!((text(&out.stdout), text(&out.stderr)), (said, String::new()));
    assert_eq!(std::fs::read_to_string(at("all.csv")).unwrap().lines().count(), 1 + 4 * (5 + 9 + 17));
    let names = names_in(folder.path());
    assert!(
        ["p-depth.svg", "p-layers.svg", "p-size.svg"].iter().all(|name| names.contains(&(*name).to_owned())),
        "{names:?}"
    );
}

#[test]
fn what_cannot_be_is_said_in_a_line() {
    let folder = folder();
    let path = folder.path().join("t.csv");
    let file = path.to_string_lossy().into_owned();
    let cases = [
        (HEAD.replace("block_over_input", "x"), "t.csv:1: block_over_input: expected a column of this name"),
        (HEAD.to_owned(), "t.csv: found none, expected at least one row"),
        (
            format!("{HEAD}0,0,1,1,1,1,1,1\n0,2,1,1,1,1,1,1\n"),
            "t.csv: layer: found none of 1, expected rows of every layer",
        ),
        (format!("{HEAD}0,-1,1,1,1,1,1,1\n"), "t.csv:2: layer: found -1, expected a layer below"),
        (
            format!("{HEAD}0,0,1,NaN,1,1,1,1\n"),
            "t.csv:2: ffn_over_output: found NaN, expected a finite number of at least 0",
        ),
        (format!("{HEAD}0,0,1,1,1,1,1\n"), "t.csv:2: expected a table in CSV"),
    ];
    for (table, said) in cases {
        std::fs::write(&path, table).unwrap();
        let out = radialsim(&["inspect", "residuals", &format!("m:1M={file}")]);
        let line = only_line(out.status.code(), &text(&out.stderr));
        assert!(line.contains(said), "{line}\nwanted: {said}");
    }
    for (word, said) in [
        ("m=t.csv", "expected NAME:PARAMETERS=FILE.csv"),
        ("m:1M", "expected NAME:PARAMETERS=FILE.csv"),
        (":1M=t.csv", "expected NAME:PARAMETERS=FILE.csv"),
        ("m:-1=t.csv", "parameters above 0"),
        ("m:1Q=t.csv", "parameters above 0"),
    ] {
        let out = radialsim(&["inspect", "residuals", word]);
        assert_eq!(out.status.code(), Some(2));
        assert!(text(&out.stderr).contains(said), "{}", text(&out.stderr));
    }
}
