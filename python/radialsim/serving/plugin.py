"""What vLLM loads (entry point `radialsim` of `vllm.general_plugins`): wraps its model runner and its output processor.

It does nothing unless RADIALSIM_RECORD names a folder. vLLM loads plugins in each of its processes: the runner's writes `steps.jsonl` and
`settings.json`, the front end's `requests.jsonl` and `experts.jsonl`.
"""

from __future__ import annotations

import functools
import importlib
import json
from pathlib import Path
from typing import Any

from ..errors import RecordError
from .steps import Steps, folder

# Both model runners of vLLM's V1 engine.
RUNNERS = (("vllm.v1.worker.gpu_model_runner", "GPUModelRunner"), ("vllm.v1.worker.gpu.model_runner", "GPUModelRunner"))
FRONT_END = ("vllm.v1.engine.output_processor", "OutputProcessor")
# A mark on what is wrapped, since plugins may be loaded several times.
MARK = "_radialsim"


def register() -> None:
    """Wraps what this process has of vLLM. Called by vLLM."""
    where = folder()
    if where is None:
        return
    wrapped = 0
    for module, name in RUNNERS:
        runner = _class(module, name)
        if runner is not None:
            wrap_runner(runner, where)
            wrapped += 1
    if not wrapped:
        raise RecordError("vLLM has none of the model runners that are known (0.19 to 0.32 have them): nothing can be recorded")
    processor = _class(*FRONT_END)
    if processor is not None:
        wrap_front_end(processor, where)


def _class(module: str, name: str) -> Any | None:
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def wrap_runner(runner: Any, where: Path) -> None:
    """Wraps `execute_model` of a class of model runners, and `sample_tokens` where steps end with it."""
    if hasattr(runner, MARK):
        return
    setattr(runner, MARK, True)
    execute = runner.execute_model

    @functools.wraps(execute)
    def execute_model(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        steps = _steps(self, where)
        if steps is None or kwargs.get("dummy_run"):
            return execute(self, scheduler_output, *args, **kwargs)
        return steps.run(self, scheduler_output, lambda: execute(self, scheduler_output, *args, **kwargs))

    runner.execute_model = execute_model
    sample = getattr(runner, "sample_tokens", None)
    if sample is None:
        return

    @functools.wraps(sample)
    def sample_tokens(self: Any, *args: Any, **kwargs: Any) -> Any:
        made = sample(self, *args, **kwargs)
        steps = _steps(self, where)
        if steps is not None:
            steps.end()
        return made

    runner.sample_tokens = sample_tokens


def _steps(runner: Any, where: Path) -> Steps | None:
    """The steps of a runner; `None` for all but the first of several that share the work."""
    known = vars(runner).get(MARK + "_steps")
    if known is None:
        first = getattr(runner.vllm_config.parallel_config, "rank", 0) == 0
        known = Steps.of_environment(where) if first else False
        setattr(runner, MARK + "_steps", known)
    return known or None


def wrap_front_end(processor: Any, where: Path) -> None:
    """Wraps the output processor of the front end, which knows when a request came, ran, and put out its tokens."""
    if hasattr(processor, MARK):
        return
    setattr(processor, MARK, True)
    finished = processor._update_stats_from_finished

    @functools.wraps(finished)
    def update(self: Any, req_state: Any, finish_reason: Any, iteration_stats: Any) -> Any:
        write_request(where, req_state, finish_reason)
        return finished(self, req_state, finish_reason, iteration_stats)

    processor._update_stats_from_finished = update


def write_request(where: Path, state: Any, reason: Any) -> None:
    """Adds a request that ended to `requests.jsonl`, and its experts, where it has any, to `experts.jsonl`."""
    if state.stats is None:
        raise RecordError("vLLM keeps no times of requests: start it with disable_log_stats=False (an LLM in Python needs that word)")
    where.mkdir(parents=True, exist_ok=True)
    stats = state.stats
    line = {
        "request_id": state.request_id,
        "input_toks": state.prompt_len,
        "output_toks": stats.num_generation_tokens,
        "arrival_time": stats.arrival_time,
        "queued_ts": stats.queued_ts,
        "scheduled_ts": stats.scheduled_ts,
        "first_token_ts": stats.first_token_ts,
        "last_token_ts": stats.last_token_ts,
        "preemptions": getattr(stats, "num_preemptions", 0),
        "finish_reason": str(reason),
    }
    with (where / "requests.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    chunks = getattr(state, "routed_experts_chunks", None)
    if chunks:
        ids = [token for chunk in chunks for token in chunk.tolist()]
        with (where / "experts.jsonl").open("a") as file:
            file.write(json.dumps({"request_id": state.request_id, "experts": ids}, separators=(",", ":")) + "\n")
