"""One step of vLLM's model runner: who ran in it, from which position on, how long it took, and which layers were called.

Nothing here imports vLLM: what it hands over is read by its names.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ..errors import RecordError
from ..recorder import tensors
from ..recorder.locate import find

# Says in which folder to record; absent: nothing is recorded.
FOLDER = "RADIALSIM_RECORD"
# `no`: layers are not watched, and every token is said to take every layer. Then graphs and compiled models may run.
LAYERS = "RADIALSIM_RECORD_LAYERS"
# `MODULE:FUNCTION` of decide(layer, module, args, output): which tokens of a step took the layer.
DECIDE = "RADIALSIM_RECORD_DECIDE"

Decide = Callable[[int, Any, "tuple[Any, ...]", Any], Any]


def folder() -> Path | None:
    """Where to record, if anywhere."""
    said = os.environ.get(FOLDER)
    return Path(said) if said else None


@dataclass
class Steps:
    """Writes the steps of one model runner to `steps.jsonl`, and its settings to `settings.json`."""

    folder: Path
    watch: bool = True
    decide: Decide | None = None
    handles: list[Any] = field(default_factory=list[Any])
    layers: int | None = None
    number: int = 0
    file: TextIO | None = None
    # Of the step that runs: its line, and which tokens each layer was called for, in the order of calls.
    line: dict[str, Any] | None = None
    total: int = 0
    runner: Any = None
    calls: list[tuple[int, list[bool] | None]] = field(default_factory=list[tuple[int, "list[bool] | None"]])

    @classmethod
    def of_environment(cls, folder: Path) -> Steps:
        said = os.environ.get(DECIDE)
        return cls(folder, os.environ.get(LAYERS, "yes") != "no", function_of(said) if said else None)

    def run(self, runner: Any, output: Any, call: Callable[[], Any]) -> Any:
        """Runs a step. `output` is what the scheduler put out, `call` runs the model."""
        if not output.total_num_scheduled_tokens:
            return call()
        if self.file is None:
            self._begin(runner)
        self.total, self.runner = output.total_num_scheduled_tokens, runner
        self.calls.clear()
        self.line = {"step": self.number, "begin_s": time.monotonic(), "end_s": None, "requests": _requests(output)}
        made = call()
        if made is not None:
            self.end()
        return made

    def end(self) -> None:
        """The step is over: its tokens are sampled."""
        if self.line is None or self.file is None:
            return
        self.line["end_s"] = time.monotonic()
        if self.watch:
            self.line["layers"] = [[index, mask] for index, mask in self.calls]
        self.file.write(json.dumps(self.line, separators=(",", ":")) + "\n")
        self.file.flush()
        self.line = None
        self.number += 1

    def _begin(self, runner: Any) -> None:
        config = runner.vllm_config
        refuse(config, self.watch)
        if (self.folder / "steps.jsonl").exists():
            raise RecordError(f"{self.folder} holds a recording already: name another folder with {FOLDER}")
        self.folder.mkdir(parents=True, exist_ok=True)
        model = runner.get_model()
        found = find(model)
        self.layers = len(found.layers)
        if self.watch:
            for index, layer in enumerate(found.layers):
                self._watch(index, layer)
        (self.folder / "settings.json").write_text(json.dumps(settings(config, runner, self.layers, self.watch), indent=2) + "\n")
        self.file = (self.folder / "steps.jsonl").open("w")

    def _watch(self, index: int, layer: Any) -> None:
        def called(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.line is None:
                return
            hidden = kwargs.get("hidden_states")
            if hidden is None:
                hidden = next((each for each in args if tensors.is_tensor(each) and len(tensors.shape(each)) == 2), None)
            held = tensors.shape(hidden)[0] if hidden is not None else 0
            if held != self.total:
                raise RecordError(
                    f"layer {index} was called with {held} of the step's {self.total} tokens; which cannot be told: say it with {DECIDE}, or "
                    f"record without layers ({LAYERS}=no)"
                )
            self.calls.append((index, None))

        def decided(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if self.line is None or self.decide is None:
                return
            said = self.decide(index, module, args, output)
            if said is not None:
                mask = [bool(value) for value in (said.tolist() if hasattr(said, "tolist") else said)]
                if len(mask) != self.total:
                    raise RecordError(f"{DECIDE}: found {len(mask)} values for layer {index}, expected one for each of {self.total} tokens")
                if all(known is None for _, known in self.calls):
                    self.line["requests"] = _laid_out(self.line["requests"], self.runner)
                self.calls.append((index, mask))
            else:
                self.calls.append((index, None))

        if self.decide is None:
            self.handles.append(layer.register_forward_pre_hook(called, with_kwargs=True))
        else:
            self.handles.append(layer.register_forward_hook(decided, with_kwargs=True))


def function_of(said: str) -> Decide:
    """The function that `MODULE:FUNCTION` names."""
    module, _, name = said.partition(":")
    try:
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise RecordError(f"{DECIDE}: found {said!r}, expected MODULE:FUNCTION ({error})") from error


def _requests(output: Any) -> list[list[Any]]:
    """Id, first position and tokens of each request of a step."""
    starts = {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
    cached = output.scheduled_cached_reqs
    starts.update(zip(cached.req_ids, cached.num_computed_tokens))
    return [[request, int(starts[request]), int(count)] for request, count in output.num_scheduled_tokens.items()]


def _laid_out(requests: list[list[Any]], runner: Any) -> list[list[Any]]:
    """The requests of a step in the order in which the runner lays their tokens side by side."""
    batch = getattr(runner, "input_batch", None)
    order = [request for request in getattr(batch, "req_ids", []) if request is not None]
    known = {request[0]: request for request in requests}
    if sorted(order) != sorted(known):
        raise RecordError(
            f"{DECIDE}: this model runner does not say in which order tokens lie in a step: which of them a mask means cannot be told"
        )
    return [known[request] for request in order]


def refuse(config: Any, watch: bool) -> None:
    """Raises `RecordError` for settings under which steps would be recorded wrongly."""
    if watch and not config.model_config.enforce_eager:
        raise RecordError(
            f"recording layers needs eager mode: captured graphs and compiled code pass hooks by. Start vLLM with --enforce-eager, or record "
            f"steps alone ({LAYERS}=no), where every token is said to take every layer"
        )
    parallel = config.parallel_config
    for name in ("pipeline_parallel_size", "data_parallel_size"):
        if getattr(parallel, name, 1) > 1:
            raise RecordError(
                f"{name} = {getattr(parallel, name)} cannot be recorded: a runner sees a part of the layers or of the requests"
            )
    if getattr(config, "speculative_config", None) is not None:
        raise RecordError("speculative decoding cannot be recorded: what the drafter runs is in no step of the model")


def settings(config: Any, runner: Any, layers: int, watched: bool) -> dict[str, Any]:
    """What a simulation of the run needs to know of it."""
    scheduler, cache, model, parallel = config.scheduler_config, config.cache_config, config.model_config, config.parallel_config
    return {
        "model": str(model.model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "layers": layers,
        "layers_watched": watched,
        "enforce_eager": bool(model.enforce_eager),
        "max_model_len": getattr(model, "max_model_len", None),
        "max_num_batched_tokens": getattr(scheduler, "max_num_batched_tokens", None),
        "max_num_seqs": getattr(scheduler, "max_num_seqs", None),
        "enable_chunked_prefill": getattr(scheduler, "enable_chunked_prefill", None),
        "async_scheduling": getattr(scheduler, "async_scheduling", None),
        "num_gpu_blocks": getattr(cache, "num_gpu_blocks", None) or _blocks(runner),
        "block_size": getattr(cache, "block_size", None),
        "enable_prefix_caching": getattr(cache, "enable_prefix_caching", None),
        "gpu_memory_utilization": getattr(cache, "gpu_memory_utilization", None),
        "tensor_parallel_size": getattr(parallel, "tensor_parallel_size", None),
    }


def _blocks(runner: Any) -> int | None:
    return getattr(getattr(runner, "kv_cache_config", None), "num_blocks", None)
