//! A quarter of the layers of Llama-2-7B skipped, on an H100: what static removal, independent and correlated skips save in
//! time, at batch 1 to 256, and why (the share of layer weights that a pass reads).
//!
//! `cargo run --release --example batch_union`

#![allow(clippy::print_stdout, reason = "an example prints")]

use radialsim::{ResultRow, Simulation};

fn main() -> radialsim::Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/batch-union.ron");
    for batch in [1, 2, 4, 8, 16, 32, 64, 128, 256] {
        let batch_text = batch.to_string();
        let settings = [("serving.max_sequences", &*batch_text), ("workload.requests.count", &*batch_text)];
        let results = Simulation::from_file(path, &settings)?.run()?;
        let (dense, others) = results.rows().split_first().expect("a scenario has a row");
        if batch == 1 {
            println!("saving in time against dense (share of layer weights read)\n");
            print!("{:>5} {:>10}", "batch", "dense ms");
            others.iter().for_each(|row| print!(" {:>20}", row.name()));
            println!();
        }
        print!("{batch:>5} {:>10.3}", pass_ms(dense));
        for row in others {
            let saving = 100.0 * (1.0 - pass_ms(row) / pass_ms(dense));
            print!(" {:>20}", format!("{saving:+.1} % ({:.3})", number(row, "work.layer_weights_read")));
        }
        println!();
    }
    Ok(())
}

/// Milliseconds of a pass.
fn pass_ms(row: &ResultRow) -> f64 {
    1e3 * number(row, "pass_time_s") / number(row, "passes")
}

fn number(row: &ResultRow, key: &str) -> f64 {
    row.number(key).expect("a number of every run")
}
