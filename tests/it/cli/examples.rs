//! What the titles of shipped scenarios say is what their keys say.

use radialsim::model::builtin_names;
use radialsim::scenario::Scenario;
use radialsim::trace::Stats;
use radialsim::units::Dtype;
use radialsim::workload::Arrivals;
use std::path::{Path, PathBuf};

/// Letters and digits alone, so that `Llama-3.1-8B` is `llama-3.1-8b`.
fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

/// The number before these words.
fn number_before(title: &str, words: &str) -> Option<f64> {
    title[..title.find(words)?].split_whitespace().next_back()?.trim_start_matches('(').parse().ok()
}

/// Everything in a title that the keys contradict.
fn contradictions(scenario: &Scenario) -> Vec<String> {
    let (title, mut found) = (scenario.title.clone(), Vec::new());
    let mut demand = |holds: bool, what: String| {
        if !holds {
            found.push(format!("{title}: {what}"));
        }
    };
    for (words, hardware) in [("H100 SXM", "nvidia-h100-sxm"), ("RTX 4090", "nvidia-rtx-4090")] {
        demand(!title.contains(words) || scenario.hardware == hardware, format!("on {}", scenario.hardware));
    }
    let named: Vec<&str> = builtin_names().filter(|name| plain(&title).contains(&plain(name))).collect();
    let own = |name: &&str| plain(&scenario.model).contains(&plain(name));
    demand(named.is_empty() || named.iter().any(own), format!("of {}", scenario.model));
    demand(
        !title.contains("fp8") || scenario.formats.is_some_and(|of| of.weights == Some(Dtype::Fp8)),
        "formats".into(),
    );
    if let Some(rate) = number_before(&title, " requests a second") {
        let arrivals = scenario.workload.requests.as_ref().map(|requests| requests.arrivals.clone());
        demand(arrivals == Some(Arrivals::Poisson { rate_per_s: rate }), format!("{arrivals:?}"));
    }
    let tiers = scenario.variants.iter().filter_map(|variant| variant.tiers.as_ref());
    if let Some(resident) = number_before(&title, " layers resident").or(number_before(&title, " resident")) {
        demand(tiers.clone().all(|tiers| f64::from(tiers.resident) == resident), "resident layers".into());
    }
    if let Some(at) = title.find("mean depth ") {
        let said: f64 = title[at + 11..]
            .trim_end_matches(|c: char| !c.is_ascii_digit())
            .split(')')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let (built, _) = scenario.build().unwrap();
        let depth = built
            .into_iter()
            .map(|built| Stats::of(&built.with_all_routes().unwrap().trace).mean_depth)
            .fold(f64::INFINITY, f64::min);
        demand((depth - said).abs() < 0.5, format!("mean depth {depth}"));
    }
    found
}

fn scenarios() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = |folder: &Path| {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let is = |path: &PathBuf, end: &str| path.to_string_lossy().ends_with(end);
    let own = files(&folder).into_iter().filter(|path| is(path, ".ron"));
    own.chain(files(&folder.join("studies")).into_iter().filter(|path| is(path, ".scenario.ron"))).collect()
}

#[test]
fn titles_say_what_the_keys_say() {
    let paths = scenarios();
    assert!(paths.len() >= 10);
    let found: Vec<String> =
        paths.iter().flat_map(|path| contradictions(&Scenario::load(path, &[]).unwrap())).collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// The test can tell: other keys under the same titles are found out.
#[test]
fn other_keys_contradict_the_titles() {
    let load = |name: &str, settings: &[&str]| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        contradictions(&Scenario::load(&path, &settings).unwrap()).len()
    };
    let rate = "workload.requests.arrivals.Poisson.rate_per_s=6";
    assert_eq!(load("studies/power-and-policy.scenario.ron", &[rate]), 1);
    assert_eq!(load("batch-union.ron", &["hardware=\"nvidia-l40s\"", "model=\"opt-13b\""]), 2);
    assert_eq!(load("llama-2-70b-skip25-h100.ron", &["formats.weights=\"bf16\""]), 1);
}
