use radialsim::scenario::{Scenario, run};
use radialsim::sim::Silent;
#[test]
fn smoke() {
    let scenario = Scenario::load("examples/smollm2-skip25-h100.ron".as_ref(), &[]).unwrap();
    let (out, _) = run(&scenario, 1, &(), |_, _| Silent).unwrap();
    for v in &out.variants {
        let s = &v.summary;
        eprintln!("{:28} {:.4}s {:.1} tok/s {:.3} J depth {:.2} read {:.3} peak {:.0} kern {} cp {:.4} {:?}", v.name, s.makespan_s, s.output_tokens_per_s, s.energy_j, s.work.mean_depth, s.work.layer_weights_read, s.power_w.peak, s.work.kernel_launches, s.bounds.critical_path_s, s.busy);
        let l = v.ledger.losses.unwrap();
        let t = l.dense as f64;
        eprintln!("   saving {:.3} union {:.3} frag {:.3} kv {:.3} router {:.3} moves {:.3} launch {:.3} wait {:.3} other {:.3} sum-> {:.3}", l.saving as f64/t, l.union as f64/t, l.fragmentation as f64/t, l.kv as f64/t, l.router as f64/t, l.moves as f64/t, l.launch as f64/t, l.waiting as f64/t, l.other as f64/t, (l.saving-l.union-l.fragmentation-l.kv-l.router-l.moves-l.launch-l.waiting-l.other) as f64/t);
    }
}
