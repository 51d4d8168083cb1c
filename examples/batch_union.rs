//! A quarter of the layers of Llama-2-7B skipped, on an H100: what static removal, independent and correlated skips save in
//! time, at batch 1 to 256, and why (the share of layer weights that a pass reads).
//!
//! `cargo run --release --example batch_union`

#![allow(clippy::print_stdout, reason = "an example prints")]

use radialsim::scenario::{Scenario, run};
use radialsim::sim::Silent;

fn main() -> radialsim::error::Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/batch-union.ron");
    let mut names_printed = false;
    for batch in [1, 2, 4, 8, 16, 32, 64, 128, 256] {
        let settings = [format!("serving.max_sequences={batch}"), format!("workload.requests.count={batch}")];
        let scenario = Scenario::load(path.as_ref(), &settings)?;
        let (outcome, _) = run(&scenario, 2, &(), |_, _| Silent)?;
        if !names_printed {
            println!("saving in time against dense (share of layer weights read)\n");
            print!("{:>5} {:>10}", "batch", "dense ms");
            outcome.variants[1..].iter().for_each(|variant| print!(" {:>20}", variant.name));
            println!();
            names_printed = true;
        }
        let pass_ms = |index: usize| {
            let ledger = &outcome.variants[index].first().ledger;
            ledger.pass_ps as f64 / 1e9 / ledger.passes as f64
        };
        print!("{batch:>5} {:>10.3}", pass_ms(0));
        for (index, variant) in outcome.variants.iter().enumerate().skip(1) {
            let saving = 100.0 * (1.0 - pass_ms(index) / pass_ms(0));
            print!(
                " {:>20}",
                format!("{saving:+.1} % ({:.3})", variant.first().summary.work.layer_weights_read)
            );
        }
        println!();
    }
    Ok(())
}
