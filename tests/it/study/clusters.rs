//! A study on clusters of one node that the tests start: the drivers in `examples/` lose a worker on the way, and the bytes
//! are those of a run that nothing disturbed.

use crate::cli::{SKIPS, radialsim, small, text};
use std::path::{Path, PathBuf};
use std::process::Command;

const SHARDS: &str = "3";

/// Says what is not tested; `RADIALSIM_REQUIRE_CLUSTERS` makes that a failure.
fn skip(why: &str) {
    assert!(std::env::var_os("RADIALSIM_REQUIRE_CLUSTERS").is_none(), "clusters are required: {why}");
    eprintln!("SKIPPED: {why}");
}

/// A small study, and in `alone` what it gives in one piece.
fn study(folder: &Path) -> PathBuf {
    small(folder, "t", &format!("(name: \"a\", routes: {SKIPS})"));
    let study = folder.join("study.ron");
    let content = r#"(
    title: "t",
    question: "q",
    scenario: "small.ron",
    axes: [Values(key: "serving.max_sequences", values: [1, 2, 4])],
    objectives: [Least("tpot_s.p50")],
)
"#;
    std::fs::write(&study, content).unwrap();
    let (path, alone) = (study.to_str().unwrap(), folder.join("alone"));
    let alone = alone.to_str().unwrap();
    for step in [&["sweep", path, "--out", alone, "--quiet"][..], &["merge", path, alone, "--out", alone]] {
        let out = radialsim(step);
        assert!(out.status.success(), "{}", text(&out.stderr));
    }
    study
}

/// A program that is radialsim, but the first try of shard 2 is struck after its work: by `blow`, a line of shell.
/// It leaves the folder `struck`.
fn struck_once(folder: &Path, blow: &str) -> PathBuf {
    let path = folder.join("radialsim");
    let (program, mark) = (env!("CARGO_BIN_EXE_radialsim"), folder.join("struck"));
    let script = format!(
        r#"#!/bin/sh
case "$*" in
*"--shard 2/{SHARDS}"*)
    if mkdir '{}' 2>/dev/null; then
        '{program}' "$@"
        {blow}
        sleep 60
    fi
    ;;
esac
exec '{program}' "$@"
"#,
        mark.display()
    );
    std::fs::write(&path, script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, executable).unwrap();
    path
}

/// Runs a command line for three minutes at most. False (said) where the machine lacks what it needs.
fn runs(line: &[&Path], variables: &[(&str, &Path)]) -> bool {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=20", "180"]).args(line).envs(variables.iter().copied());
    let Ok(out) = command.output() else {
        skip("timeout is missing");
        return false;
    };
    let said = format!("{}\n{}", text(&out.stdout), text(&out.stderr));
    if out.status.code() == Some(77) {
        skip(said.trim());
        return false;
    }
    assert!(out.status.success(), "{}\n{said}", out.status);
    true
}

#[track_caller]
fn same_bytes(folder: &Path) {
    assert!(folder.join("struck").exists(), "nothing was disturbed");
    let files =
        if cfg!(feature = "parquet") { &["points.csv", "points.parquet"][..] } else { &["points.csv"] };
    for name in files {
        let [alone, out] = ["alone", "out"].map(|part| std::fs::read(folder.join(part).join(name)));
        assert!(alone.unwrap() == out.unwrap(), "{name} differs");
    }
}

#[test]
fn a_slurm_array_gives_the_same_bytes() {
    let folder = crate::cli::folder();
    let folder = folder.path();
    let study = study(folder);
    let program = struck_once(folder, r#"scontrol requeue "$SLURM_JOB_ID""#);
    let out = folder.join("out");
    let line = ["tests/it/study/slurm-on-loopback", "examples/slurm/submit", "--wait"].map(Path::new);
    let arguments = [&study, &out, Path::new(SHARDS), Path::new("--cpus-per-task=1")];
    if runs(&[&line[..], &arguments].concat(), &[("RADIALSIM", &program)]) {
        same_bytes(folder);
    }
}

/// The virtual environment of `scripts/install-peers`, or the Python of the machine, where that has Ray.
fn python_with_ray() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = var("XDG_CACHE_HOME").or_else(|| Some(var("HOME")?.join(".cache")));
    let ours = cache.map(|cache| cache.join("radialsim/ray/bin/python"));
    let imports = |python: &PathBuf| {
        Command::new(python).args(["-c", "import ray"]).output().is_ok_and(|out| out.status.success())
    };
    ours.into_iter().chain(["python3".into()]).find(imports)
}

#[test]
fn a_ray_driver_gives_the_same_bytes() {
    let Some(python) = python_with_ray() else {
        skip("Ray is missing: run scripts/install-peers");
        return;
    };
    // Not where TMPDIR says: Ray puts sockets there, and their paths must be short.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let folder = folder.path();
    let study = study(folder);
    // The parent of the program is Ray's worker.
    let program = struck_once(folder, "kill -KILL $PPID");
    let out = folder.join("out");
    let line = [&python, Path::new("examples/ray/sweep.py"), &study, &out];
    let options = ["--shards", SHARDS, "--address", "local"].map(Path::new);
    let variables = [
        ("RADIALSIM", &*program),
        ("HOME", folder),
        ("RAY_TMPDIR", folder),
        ("RAY_USAGE_STATS_ENABLED", Path::new("0")),
    ];
    if runs(&[&line[..], &options].concat(), &variables) {
        same_bytes(folder);
    }
}
