//! The table of networks: what is written is read, and what cannot be is named; the bootstrap against closed forms.

use radialsim::quality::{NetworkWorth, Quality, QualityTable, SequenceSums};
use radialsim::rng::Stream;
use std::path::Path;

fn measured(nll: f64, kl: f64, depth: f64, count: f64) -> SequenceSums {
    SequenceSums { nll, kl, depth, count }
}

#[test]
fn what_is_written_is_read() {
    let all: Vec<SequenceSums> =
        (0..9).map(|at| measured(300.0 + f64::from(at) * 7.3, 11.1 * f64::from(at), 27.25, 191.0)).collect();
    let one = NetworkWorth::of("alone, \"quoted\"", &all[..1], 1);
    assert_eq!(
        (one.perplexity.interval, one.kl.and_then(|kl| kl.interval)),
        (None, None),
        "of one sequence nothing follows"
    );
    let table = QualityTable::new(vec![NetworkWorth::of("a", &all, 1), one]);
    let mut bytes = Vec::new();
    table.write(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        text.starts_with("network,depth,perplexity,perplexity_low,perplexity_high,kl,kl_low,kl_high\na,")
    );
    let read = QualityTable::parse(&text, Path::new("t.csv")).unwrap();
    assert_eq!(read.rows, table.rows);
    // Columns may stand in any order, and others beside them.
    let other = "x,kl,network,depth,perplexity,perplexity_low,perplexity_high,kl_low,kl_high\n7,0.5,n,3,2,,,0.4,0.6\n";
    let read = QualityTable::parse(other, Path::new("t.csv")).unwrap();
    let kl = Quality { mean: 0.5, interval: Some([0.4, 0.6]) };
    assert_eq!(read.get("n").unwrap().kl, Some(kl));
    // Without a teacher there is no divergence, neither written nor read.
    let alone: Vec<SequenceSums> =
        all.iter().map(|row| measured(row.nll, f64::NAN, row.depth, row.count)).collect();
    let table = QualityTable::new(vec![NetworkWorth::of("alone", &alone, 1)]);
    let mut bytes = Vec::new();
    table.write(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.ends_with(",,,\n") && table.words().trim_end().ends_with(" -"), "{text}");
    let again = QualityTable::parse(&text, Path::new("t.csv")).unwrap();
    assert!(again.rows == table.rows && again.rows[0].kl.is_none());
    let said = read.get("m").unwrap_err().to_string();
    assert!(said.starts_with("t.csv: network: found m, expected one of n"), "{said}");
}

#[test]
fn what_cannot_be_is_named() {
    let head = "network,depth,perplexity,perplexity_low,perplexity_high,kl,kl_low,kl_high\n";
    let cases = [
        (String::new(), "t.csv:1: network: found none, expected one column each of network, depth, "),
        (head.replace("kl_low", "kl"), "t.csv:1: kl: found two of them, expected one column"),
        (head.to_owned(), "t.csv: found none, expected at least one network"),
        (
            format!("{head}a,3,2,1,3,0,0,0\na,3,2,1,3,0,0,0\n"),
            "t.csv:3: network: found a, expected a name once; it stands in line 2",
        ),
        (
            format!("{head}a,3,NaN,1,3,0,0,0\n"),
            "t.csv:2: perplexity: found NaN, expected a finite number of at least 1",
        ),
        (
            format!("{head}a,3,0.5,1,3,0,0,0\n"),
            "t.csv:2: perplexity: found 0.5, expected a finite number of at least 1",
        ),
        (format!("{head}a,-1,2,1,3,0,0,0\n"), "t.csv:2: depth: found -1, expected"),
        (
            format!("{head}a,3,2,3,1,0,0,0\n"),
            "t.csv:2: perplexity_low: found 3, expected at most perplexity_high, which is 1",
        ),
        (format!("{head}a,3,2,1,,0,0,0\n"), "t.csv:2: perplexity_high: found , expected"),
        (format!("{head}a,3,2,1,3,-0.1,0,0\n"), "t.csv:2: kl: found -0.1, expected"),
        (format!("{head},3,2,1,3,0,0,0\n"), "t.csv:2: network: found none, expected a name"),
        (format!("{head}a,3\n"), "t.csv:2: expected a table in CSV"),
    ];
    for (text, said) in cases {
        let error = QualityTable::parse(&text, Path::new("t.csv")).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}\nwanted: {said}");
    }
}

/// Of many normal sequences the middle nine tenths of the means is that of the normal distribution: 1.645 standard errors to both sides.
#[test]
fn the_bootstrap_covers_what_it_says() {
    let random = &mut Stream::new(5, "normal");
    let normal = |random: &mut Stream| (0..12).map(|_| random.uniform()).sum::<f64>() - 6.0;
    let all: Vec<SequenceSums> =
        (0..400).map(|_| measured(0.0, 100.0 * (2.0 + normal(random)), 1.0, 100.0)).collect();
    let values: Vec<f64> = all.iter().map(|row| row.kl / row.count).collect();
    let mean = values.iter().sum::<f64>() / 400.0;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 400.0;
    let half = 1.645 * (variance / 400.0).sqrt();
    let Quality { mean: found, interval } = Quality::of(&all, |row| row.kl, 1);
    let [low, high] = interval.unwrap();
    assert!((found - mean).abs() < 1e-12);
    assert!(((high - low) / (2.0 * half) - 1.0).abs() < 0.06, "{low} {high} against {half}");
    assert!(((high + low) / 2.0 - mean).abs() < 0.1 * half);
    assert_eq!(interval, Quality::of(&all, |row| row.kl, 1).interval, "the same seed, the same interval");
    // A long sequence weighs as much as its predictions.
    let two = [measured(0.0, 30.0, 1.0, 30.0), measured(0.0, 0.0, 1.0, 10.0)];
    assert_eq!(Quality::of(&two, |row| row.kl, 1).mean, 0.75);
}
