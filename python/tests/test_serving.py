"""vLLM's plugin and what is made of its files, on stand-ins that have the names that vLLM's objects have."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import reading
from stand_ins import Array, Block, Model, states

from radialsim import RecordError
from radialsim.serving import collect, plugin, steps
from radialsim.serving.collect import main


def config(**changes: Any) -> Any:
    parts = {
        "model_config": {"model": "org/tiny", "dtype": "torch.float32", "enforce_eager": True, "max_model_len": 64},
        "scheduler_config": {"max_num_batched_tokens": 16, "max_num_seqs": 4, "enable_chunked_prefill": True, "async_scheduling": False},
        "cache_config": {"num_gpu_blocks": 10, "block_size": 4, "enable_prefix_caching": False, "gpu_memory_utilization": 0.9},
        "parallel_config": {"rank": 0, "tensor_parallel_size": 1, "pipeline_parallel_size": 1, "data_parallel_size": 1},
    }
    for part in parts.values():
        part.update({key: value for key, value in changes.items() if key in part})
    made = {name: SimpleNamespace(**part) for name, part in parts.items()}
    return SimpleNamespace(**made, speculative_config=changes.get("speculative_config"))


def runner_class(separate: bool) -> Any:
    """A class of model runners, whose steps end in `execute_model` or in `sample_tokens`."""

    class Runner:
        def __init__(self, **changes: Any) -> None:
            self.vllm_config, self.model = config(**changes), Model([Block() for _ in range(3)])
            self.input_batch = SimpleNamespace(req_ids=[])
            self.plan: Any = lambda index, total: total

        def get_model(self) -> Any:
            return self.model

        def execute_model(self, scheduler_output: Any, intermediate: Any = None) -> Any:
            total = scheduler_output.total_num_scheduled_tokens
            for index, layer in enumerate(self.model.model.layers):
                held = self.plan(index, total)
                if held:
                    layer(states(held, 8))
            return None if separate else "out"

    if separate:
        Runner.sample_tokens = lambda self, grammar=None: "out"  # type: ignore[attr-defined]
    return Runner


def output(*scheduled: tuple[str, int, int], new: tuple[str, ...] = ()) -> Any:
    """What a scheduler puts out: id, first position and tokens of each request."""
    cached = [each for each in scheduled if each[0] not in new]
    return SimpleNamespace(
        scheduled_new_reqs=[SimpleNamespace(req_id=id, num_computed_tokens=start) for id, start, _ in scheduled if id in new],
        scheduled_cached_reqs=SimpleNamespace(req_ids=[each[0] for each in cached], num_computed_tokens=[each[1] for each in cached]),
        num_scheduled_tokens={id: count for id, _, count in scheduled},
        total_num_scheduled_tokens=sum(count for _, _, count in scheduled),
    )


def ended(folder: Path, id: str, prompt: int, out: int, arrival: float = 0.0, experts: Any = None) -> None:
    times = {"queued_ts": arrival + 0.1, "scheduled_ts": arrival + 0.2, "first_token_ts": arrival + 0.5, "last_token_ts": arrival + 2.0}
    stats = SimpleNamespace(num_generation_tokens=out, arrival_time=1.7e9 + arrival, num_preemptions=0, **times)
    state = SimpleNamespace(request_id=id, prompt_len=prompt, stats=stats, routed_experts_chunks=experts or [])
    plugin.write_request(folder, state, "length")


@pytest.mark.parametrize("separate", [False, True])
def test_steps_become_a_trace_and_a_measured_run(separate: bool, tmp_path: Path) -> None:
    kind = runner_class(separate)
    plugin.wrap_runner(kind, tmp_path)
    plugin.wrap_runner(kind, tmp_path)  # plugins may be loaded several times
    runner = kind()
    for made in (
        output(("b", 0, 5), ("a", 0, 3), new=("a", "b")),
        output(("b", 5, 2), ("a", 3, 1)),
        output(("b", 7, 1)),
        output(),
        output(("a", 0, 4)),  # preempted: runs again
        output(("a", 4, 1), ("c", 0, 2), new=("c",)),
    ):
        runner.execute_model(made)
        if separate:
            runner.sample_tokens(None)
    ended(tmp_path, "b", 7, 2, arrival=1.5)
    ended(tmp_path, "a", 3, 3, arrival=0.25)
    found = collect(tmp_path, tmp_path / "out")
    assert found.steps == 5 and found.remarks == ["1 requests did not end, and are left out"]
    out = tmp_path / "out" / "trace.jsonl"
    assert reading.counts(out) == {0: (3, 3), 1: (7, 2)}, "in the order of arrival"
    assert reading.routes(out) == {0: ["0 1 2"] * 5, 1: ["0 1 2"] * 8}
    assert [line["arrival_s"] for line in reading.lines(out) if line["type"] == "request"] == [0.0, 1.25]
    measured = [json.loads(line) for line in (tmp_path / "out" / "measured.jsonl").read_text().splitlines()]
    assert [line["request_id"] for line in measured] == ["a", "b"] and measured[0]["input_toks"] == 3
    written = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [line["requests"] for line in written][:2] == [[["b", 0, 5], ["a", 0, 3]], [["b", 5, 2], ["a", 3, 1]]]
    assert all(line["begin_s"] <= line["end_s"] for line in written)
    rows = (tmp_path / "out" / "timeseries.csv").read_text().splitlines()
    # Counted from 0.35 s of the engine's clock, when the first was queued: a runs from 0.45 to 2.25, b from 1.7 to 3.5.
    assert rows == ["t,running,waiting", "1.0,1,0", "2.0,1,0", "3.0,1,0", "4.0,0,0"]
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert (settings["num_gpu_blocks"], settings["block_size"], settings["layers"]) == (10, 4, 3)


@pytest.mark.parametrize("seed", range(10))
def test_random_schedules_come_back(seed: int, tmp_path: Path) -> None:
    """Layers are left out of whole steps at random; each token has the route of the step in which it first ran."""
    draw = random.Random(seed)
    kind = runner_class(False)
    plugin.wrap_runner(kind, tmp_path)
    runner = kind()
    sizes = {str(id): (draw.randint(1, 9), draw.randint(1, 6)) for id in range(4)}
    at, began = dict.fromkeys(sizes, 0), set()
    expected: dict[str, dict[int, str]] = {id: {} for id in sizes}
    while any(at[id] < sum(sizes[id]) - 1 for id in sizes):
        for id in sizes:
            if at[id] and at[id] < sum(sizes[id]) - 1 and draw.random() < 0.1:
                at[id] = 0
        scheduled = []
        for id, (prompt, out) in sizes.items():
            left = prompt - at[id] if at[id] < prompt else 1
            if at[id] < prompt + out - 1 and draw.random() < 0.7:
                scheduled.append((id, at[id], draw.randint(1, left)))
        taken = [index for index in range(3) if draw.random() < 0.8]
        runner.plan = lambda index, total, taken=taken: total if index in taken else 0
        runner.execute_model(output(*scheduled, new=tuple(id for id, _, _ in scheduled if id not in began)))
        for id, start, count in scheduled:
            began.add(id)
            at[id] = start + count
            for position in range(start, start + count):
                expected[id].setdefault(position, " ".join(map(str, taken)))
    for id, (prompt, out) in sizes.items():
        ended(tmp_path, id, prompt, out, arrival=float(id))
    collect(tmp_path)
    found = reading.routes(tmp_path / "trace.jsonl")
    assert found == {int(id): [expected[id][position] for position in range(sum(sizes[id]) - 1)] for id in sizes}


def test_decide_names_tokens_in_the_order_of_the_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = runner_class(False)
    plugin.wrap_runner(kind, tmp_path)
    module = SimpleNamespace(decide=lambda layer, module, args, out: Array([True, False, True]) if layer == 1 else None)
    monkeypatch.setitem(sys.modules, "my_routing", module)  # type: ignore[arg-type]
    monkeypatch.setenv(steps.DECIDE, "my_routing:decide")
    runner = kind()
    runner.input_batch.req_ids = ["b", None, "a"]
    runner.execute_model(output(("a", 0, 2), ("b", 0, 1), new=("a", "b")))
    ended(tmp_path, "a", 2, 1)
    ended(tmp_path, "b", 1, 1, arrival=1.0)
    collect(tmp_path)
    assert reading.routes(tmp_path / "trace.jsonl") == {0: ["0 2", "0 1 2"], 1: ["0 1 2"]}
    runner.input_batch.req_ids = ["b"]
    with pytest.raises(RecordError, match="in which order tokens lie"):
        runner.execute_model(output(("a", 2, 2), ("b", 1, 1)))
    monkeypatch.setenv(steps.DECIDE, "my_routing:other")
    with pytest.raises(RecordError, match="found 'my_routing:other', expected MODULE:FUNCTION"):
        kind().execute_model(output(("a", 0, 1), new=("a",)))


def test_experts_and_cached_prefixes(tmp_path: Path) -> None:
    kind = runner_class(False)
    plugin.wrap_runner(kind, tmp_path)
    runner = kind(enable_prefix_caching=True)
    runner.execute_model(output(("a", 2, 2), new=("a",)))
    ids = [[[token, layer] for layer in range(3)] for token in range(4)]
    ended(tmp_path, "a", 4, 1, experts=[Array(ids[:3]), Array(ids[3:])])
    found = collect(tmp_path)
    assert found.remarks == ["request a: 2 cached tokens did not run, and take the route of all others"]
    (run,) = reading.runs(tmp_path / "trace.jsonl")[0]
    assert run["experts"] == ids
    (tmp_path / "experts.jsonl").write_text(json.dumps({"request_id": "a", "experts": [token[:2] for token in ids]}) + "\n")
    with pytest.raises(RecordError, match="those of 2 layers, expected 3"):
        collect(tmp_path)


def test_what_would_be_recorded_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = runner_class(False)
    plugin.wrap_runner(kind, tmp_path)
    step = output(("a", 0, 2), new=("a",))
    for changes, said in (
        ({"enforce_eager": False}, "needs eager mode"),
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size = 2"),
        ({"data_parallel_size": 2}, "data_parallel_size = 2"),
        ({"speculative_config": object()}, "speculative decoding"),
    ):
        with pytest.raises(RecordError, match=said):
            kind(**changes).execute_model(step)
    fewer = kind()
    fewer.plan = lambda index, total: 1
    with pytest.raises(RecordError, match="layer 0 was called with 1 of the step's 2 tokens"):
        fewer.execute_model(step)
    with pytest.raises(RecordError, match="holds a recording already"):
        kind().execute_model(step)
    (tmp_path / "steps.jsonl").unlink()
    monkeypatch.setenv(steps.LAYERS, "no")
    compiled = kind(enforce_eager=False)
    assert compiled.execute_model(step) == "out"
    ended(tmp_path, "a", 2, 1)
    collect(tmp_path)
    assert reading.lines(tmp_path / "trace.jsonl")[0]["source"].endswith("layers not watched: every token is said to take every one")
    with pytest.raises(RecordError, match="disable_log_stats=False"):
        plugin.write_request(tmp_path, SimpleNamespace(stats=None), "length")


def test_other_ranks_and_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = runner_class(False)
    plugin.wrap_runner(kind, tmp_path)
    assert kind(rank=1).execute_model(output(("a", 0, 2), new=("a",))) == "out"
    assert not list(tmp_path.iterdir())
    monkeypatch.delenv(steps.FOLDER, raising=False)
    plugin.register()
    monkeypatch.setenv(steps.FOLDER, str(tmp_path))
    monkeypatch.setattr(plugin, "RUNNERS", (("no.such.module", "Runner"),))
    with pytest.raises(RecordError, match="none of the model runners that are known"):
        plugin.register()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(tmp_path)])
    assert left.value.code == 2 and "settings.json: is missing" in capsys.readouterr().err
    kind = runner_class(False)
    plugin.wrap_runner(kind, tmp_path)
    kind().execute_model(output(("a", 0, 2), new=("a",)))
    ended(tmp_path, "a", 2, 1)
    main([str(tmp_path), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().out
    assert "1 requests, 2 tokens with a route, 1 steps" in told
    assert "max_batched_tokens: 16, max_sequences: 4, chunked_prefill: true, kv_block_tokens: 4, kv_blocks: 9," in told
    ended(tmp_path, "z", 3, 1, arrival=5.0)
    with pytest.raises(RecordError, match="request z: no step held positions 0 to 2"):
        collect(tmp_path)
