"""The simulator as Python sees it, held against the program and against the scenario's own keys."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields
from pathlib import Path

import pytest

import radialsim
from radialsim import InputError, Rows, Scenario, simulate

core = pytest.importorskip("radialsim._core", reason="the compiled module is not built")

ROOT = Path(__file__).parent.parent.parent
SMALL = ROOT / "examples" / "smollm2-skip25-h100.ron"
SCENARIOS = sorted(ROOT.glob("examples/*.ron"))


def program(*words: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(radialsim.__file__).parent.parent)}
    return subprocess.run([sys.executable, "-m", "radialsim", *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True)


def test_results_are_those_of_the_program(tmp_path: Path) -> None:
    done = program("simulate", SMALL, "--json", tmp_path / "out.json", "--set", "serving.max_sequences=8", "--quiet")
    assert done.returncode == 0, done.stderr
    results = simulate(SMALL, set={"serving.max_sequences": 8})
    assert results.to_dict() == json.loads((tmp_path / "out.json").read_text())
    assert str(results) == done.stdout


def test_threads_change_nothing() -> None:
    assert simulate(SMALL, threads=1).to_dict() == simulate(SMALL, threads=3).to_dict()


def test_a_path_a_text_a_dict_and_an_object_are_the_same() -> None:
    scenario = Scenario.load(SMALL)
    trace = SMALL.parent / "traces" / "smollm2-skip25.jsonl"
    expected = simulate(SMALL).to_dict()
    assert simulate(str(SMALL)).to_dict() == expected
    assert simulate(scenario).to_dict() == expected
    assert simulate(scenario.to_dict(), trace=trace).to_dict() == expected
    assert simulate(SMALL.read_text(), trace=trace).to_dict() == expected


def test_hardware_trace_and_seed_replace_those_of_the_scenario(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "hw-profiles")
    trace = Path("../examples/traces/smollm2-skip10.jsonl")
    results = simulate(SMALL, hardware="nvidia-l4.ron", trace=trace, seed=5)
    assert {variant["hardware"] for variant in results.variants} == {"nvidia-l4"}
    other = simulate(SMALL, hardware="nvidia-l4", seed=5)
    assert results["recorded, aligned"]["work.mean_depth"] > other["recorded, aligned"]["work.mean_depth"], "skip10 skips less than skip25"
    assert simulate(SMALL, seeds=2)[0]["confidence"]["seeds"] == 2


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenarios_go_to_ron_and_back(path: Path) -> None:
    scenario = Scenario.load(path)
    assert Scenario.from_ron(scenario.to_ron()) == scenario
    assert Scenario.from_dict(scenario.to_dict()) == scenario
    assert Scenario.from_dict(json.loads(json.dumps(scenario.to_dict()))) == scenario


def test_the_class_has_the_keys_of_the_file() -> None:
    assert sorted(key.name for key in fields(Scenario) if key.name != "folder") == sorted(core.scenario_keys())
    needed = {key for key in core.scenario_keys() if key in "title model hardware workload serving dispatch seed variants".split()}
    for key in needed:
        keys = Scenario.load(SMALL).to_dict()
        del keys[key]
        with pytest.raises(InputError, match=f"missing field `{key}`"):
            Scenario.from_dict(keys)


def test_a_scenario_cannot_be_changed_by_its_dict() -> None:
    scenario = Scenario.load(SMALL)
    before = copy.deepcopy(scenario)
    scenario.to_dict()["variants"].clear()
    assert scenario == before
    with pytest.raises(AttributeError):
        scenario.seed = 7  # type: ignore[misc]
    assert scenario.replace(seed=7).seed == 7
    with pytest.raises(InputError, match="sed: found an unknown key"):
        scenario.replace(sed=7)


def test_mistakes_name_file_line_and_key(tmp_path: Path) -> None:
    text = SMALL.read_text()
    bad = tmp_path / "bad.ron"
    bad.write_text(text.replace("max_sequences: 64", "max_sequences: 0"))
    line = 1 + text[: text.index("max_sequences: 64")].count("\n")
    with pytest.raises(ValueError) as raised:
        simulate(bad)
    error = raised.value
    assert isinstance(error, InputError)
    assert (error.file, error.line, error.key) == (str(bad), line, "serving.max_sequences")
    assert error.found == "0" and error.expected and f"bad.ron:{line}: serving.max_sequences" in str(error)

    with pytest.raises(InputError) as raised:
        simulate(bad.read_text())
    assert (raised.value.file, raised.value.line, raised.value.key) == (None, line, "serving.max_sequences"), "a text is no file"

    keys = Scenario.load(SMALL).to_dict()
    keys["variants"][1]["routs"] = "Recorded"
    with pytest.raises(InputError, match="did you mean routes") as raised:
        simulate(keys)
    assert (raised.value.file, raised.value.line, raised.value.key) == (None, None, "variants[1].routs")

    with pytest.raises(InputError, match="did you mean max_sequences") as raised:
        simulate(SMALL, set={"serving.max_sequence": 8})
    assert raised.value.key == "serving.max_sequence"
    with pytest.raises(InputError, match="No such file"):
        simulate(tmp_path / "none.ron")
    for threads in (0, 1025):
        with pytest.raises(InputError, match="threads"):
            simulate(SMALL, threads=threads)
    with pytest.raises(InputError, match="expected a number"):
        simulate({**keys, "seed": object()})


def test_exit_codes_are_kept(tmp_path: Path) -> None:
    assert program("--version").stdout.startswith("radialsim ")
    assert program("simulate", tmp_path / "none.ron").returncode == 2
    assert program("no-such-command").returncode == 2
    assert program("inspect", "hw", "nvidia-h100-sxm").returncode == 0


def test_a_row_for_each_variant() -> None:
    results = simulate(SMALL)
    columns = results.columns()
    assert columns["name"] == [variant.name for variant in results.variants]
    assert columns["ttft_s.p50"] == [variant["ttft_s"]["p50"] for variant in results.variants]
    assert all(len(column) == len(results) for column in columns.values())
    with pytest.raises(KeyError):
        results["no such variant"]
    with pytest.raises(KeyError):
        results[0]["ttft_s.p51"]


def test_polars_and_arrow_say_the_same() -> None:
    polars = pytest.importorskip("polars")
    results = simulate(SMALL)
    columns = results.columns()
    assert results.to_polars()["pass_time_s"].to_list() == columns["pass_time_s"]
    frame = polars.DataFrame(results)
    for name, column in columns.items():
        assert frame[name].to_list() == column, name


def test_pandas_says_the_same() -> None:
    pandas = pytest.importorskip("pandas")
    results = simulate(SMALL)
    frame = results.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    for name, column in results.columns().items():
        assert [None if pandas.isna(cell) else cell for cell in frame[name]] == column, name


def test_arrow_takes_what_json_has() -> None:
    polars = pytest.importorskip("polars")
    rows = Rows([{"a": 1, "b": True, "c": "x", "d": None, "e": 1}, {"a": 2, "b": None, "c": None, "e": 0.5}, {"a": None, "b": False, "e": None}])
    frame = polars.DataFrame(rows)
    assert frame.to_dict(as_series=False) == rows.columns()
    assert [str(kind) for kind in frame.dtypes] == ["Int64", "Boolean", "String", "Null", "Float64"]


def test_a_notebook_shows_verdict_and_table() -> None:
    results = simulate(SMALL, set={"title": "<b>a title</b>"})
    shown = results._repr_html_()
    assert "<table>" in shown and "<b>a title" not in shown
    for variant in results.variants[1:]:
        assert variant.name in shown
    first, second = results.verdict()[:2]
    assert first.startswith('Routing may pay: "recorded, ') and "less pass time than \"dense\"" in first
    assert second.startswith('It does not beat static depth: "static, middle dropped"')
    assert first in str(results).replace("\n", " ") and "Where the pass time saved comes from" in results.full()


def test_a_timeline_has_the_kernels(tmp_path: Path) -> None:
    two = {"count": 2, "lengths": {"prompt": {"Fixed": 8}, "output": {"Fixed": 4}}, "arrivals": "Closed"}
    results = simulate(SMALL, set={"workload.requests": two})
    path = tmp_path / "timeline.json"
    assert results.timeline(path) == []
    events = json.loads(path.read_text())["traceEvents"]
    assert len([event for event in events if event.get("ph") == "X"]) > 10_000
    assert len(results.timeline(path, kernels=100)) == len(results)
    with pytest.raises(InputError):
        results.timeline(tmp_path / "no such folder" / "timeline.json")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted as Linux shows them")
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_stops_a_long_run(threads: int) -> None:
    requests = Scenario.load(ROOT / "examples" / "llama-2-70b-skip25-h100.ron").to_dict()["workload"]["requests"]
    # A quarter of a million requests one by one: minutes of work.
    long = {"workload.requests": {**requests, "count": 250_000}, "serving.max_sequences": 1}
    # Threads that serve all runs are there after the first.
    simulate(SMALL, threads=threads)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    before = len(os.listdir("/proc/self/task"))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        simulate(SMALL, set=long, threads=threads)
    timer.join()
    # What ran ends by itself: no thread is left at work.
    until = time.monotonic() + 60
    while len(os.listdir("/proc/self/task")) > before and time.monotonic() < until:
        time.sleep(0.05)
    assert len(os.listdir("/proc/self/task")) <= before
    assert simulate(SMALL)[0].name == "dense", "and the next run is as before"


def test_others_run_meanwhile() -> None:
    seen = 0

    def count() -> None:
        nonlocal seen
        while running.is_alive():
            seen += 1
            time.sleep(0.001)

    running = threading.Thread(target=simulate, args=(SMALL,), kwargs={"seeds": 4, "threads": 1})
    running.start()
    count()
    assert seen > 5, "the interpreter was held"


def test_a_study_and_its_rows(tmp_path: Path) -> None:
    study = tmp_path / "study.ron"
    scenario = os.path.relpath(SMALL, tmp_path)
    study.write_text(
        f'(title: "two", question: "which?", scenario: "{scenario}", axes: [Values(name: "batch", key: "serving.max_sequences",'
        ' values: [2, 8])], objectives: [Least("pass_time_s")])'
    )
    rows = radialsim.sweep(study, tmp_path / "out", threads=2)
    assert len(rows) == 2 * 7
    assert {"points.csv", "report.html"} <= {path.name for path in (tmp_path / "out").iterdir()}
    with pytest.raises(InputError):
        radialsim.sweep(tmp_path / "none.ron", tmp_path / "out")


def test_predictions_are_those_of_the_program(tmp_path: Path) -> None:
    table = tmp_path / "gemm.csv"
    table.write_text("m,n,k\n1,4096,4096\n512,1024,2048\n")
    done = program("predict", "--hw", "nvidia-h100-sxm", "--op", "gemm", table)
    said = [line.split(",")[3:] for line in done.stdout.splitlines()[1:]]
    for rows in (table, [{"m": 1, "n": 4096, "k": 4096}, {"m": 512, "n": 1024, "k": 2048}]):
        found = radialsim.predict("nvidia-h100-sxm", "gemm", rows)
        assert [[f"{row['predicted_ms']:.9f}", row["source"]] for row in found] == said
    with pytest.raises(InputError, match="gemm, context_attention"):
        radialsim.predict("nvidia-h100-sxm", "gem", table)
    with pytest.raises(InputError, match="batch_size"):
        radialsim.predict("nvidia-h100-sxm", "context_attention", table)
    with pytest.raises(InputError, match=r"rows\[1\]: k: found -3, expected a whole number") as raised:
        radialsim.predict("nvidia-h100-sxm", "gemm", [{"m": 1, "n": 2, "k": 3}, {"m": 1, "n": 2, "k": -3}])
    assert (raised.value.file, raised.value.key) == (None, "k")
    with pytest.raises(InputError, match="^hardware: found|did you mean") as raised:
        radialsim.predict("nvidia-h10", "gemm", [{"m": 1, "n": 2, "k": 3}])


def test_a_profile_of_pytorch_becomes_a_device(tmp_path: Path) -> None:
    recorded = Path(__file__).parent / "fixtures" / "kineto-cpu.json.gz"
    fitted = radialsim.fit("generic-cpu-2core", kineto=recorded, name="mine")
    errors = {row["operator"]: row["mean_percent"] for row in fitted.errors}
    assert errors["gemm"] < 15
    done = program("fit", "--kineto", recorded, "--hw", "generic-cpu-2core", "--name", "mine", "--out", tmp_path / "program.ron")
    assert done.returncode == 0, done.stderr
    assert fitted.profile == (tmp_path / "program.ron").read_text()
    mine = fitted.save(tmp_path / "mine.ron")
    assert simulate(SMALL, hardware=mine)[0]["hardware"] == "mine"
    with pytest.raises(InputError, match="one of data and kineto|one of them"):
        radialsim.fit("generic-cpu-2core")
    with pytest.raises(InputError) as raised:
        radialsim.fit("generic-cpu-2core", kineto=SMALL)
    assert raised.value.file == str(SMALL)


def test_the_example_script_answers() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(radialsim.__file__).parent.parent)}
    script = [sys.executable, "python/examples/ask.py", "nvidia-h100-sxm", "nvidia-h10"]
    done = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'Routing may pay: "recorded" takes ' in done.stdout and 'static depth: "static"' in done.stdout
    assert "nvidia-h10: hardware: found nvidia-h10" in done.stdout
