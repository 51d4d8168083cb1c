"""Families of routed models whose decisions are read from the modules that take them.

A family says of a layer's call which tokens took which branch. What their code calls things is a fact of their repositories:
SkipGPT (github.com/EIT-NLP/SkipGPT), Mixture-of-Depths for Hugging Face (github.com/astramind-ai/Mixture-of-depths), Dr.LLM
(github.com/parameterlab/dr-llm).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import RecordError
from . import tensors
from .locate import block_in
from .passes import Mask, Pass

# Masks of attention and feed-forward; `None` for a branch that every token of the call took.
Taken = tuple[Mask | None, Mask | None]


class Family(Protocol):
    """How a family of models routes. `kv` and `router` are what the header of its traces says."""

    name: str
    kv: str
    granularity: str
    router: dict[str, Any]

    def watch(self, layer: int, module: Any) -> list[Any]:
        """Puts hooks on parts of a layer, and gives their handles."""
        ...

    def taken(self, layer: int, module: Any, held: Pass) -> Taken:
        """Which tokens of a pass took the branches of a layer, after its call."""
        ...


def of_layer(layer: Any) -> type[SkipGpt] | type[MixtureOfDepths] | None:
    """The family that a layer belongs to."""
    if isinstance(getattr(layer, "routing_matrix", None), dict):
        return SkipGpt
    if hasattr(layer, "router") and hasattr(layer, "capacity") and block_in(layer) is not None:
        return MixtureOfDepths
    return None


def grid(values: Any, held: Pass, what: str) -> list[list[Any]]:
    """An array of (rows, columns) as lists, or an error that names it."""
    if not tensors.is_tensor(values) or tensors.shape(values) != (held.rows, held.columns):
        found = tensors.shape(values) if tensors.is_tensor(values) else type(values).__name__
        raise RecordError(f"{what}: found {found}, expected one value a token: {(held.rows, held.columns)}")
    return tensors.whole(values)


@dataclass
class SkipGpt:
    """Two routers a layer, of attention and of feed-forward; `routing_matrix` has 1 where a token skips. Attention runs for all
    tokens and is multiplied by the decision, so that keys and values are there for all."""

    name: str = "SkipGPT"
    kv: str = "project_only"
    granularity: str = "token"
    router: dict[str, Any] = field(default_factory=lambda: {"kind": "mlp", "when": "per_layer"})

    def watch(self, layer: int, module: Any) -> list[Any]:
        widths = [getattr(getattr(router, "hidden_layer", None), "out_features", 0) for router in self._routers(module)]
        if sum(widths):
            # Two routers side by side cost what one of both widths costs.
            self.router["hidden"] = sum(widths)
        return []

    def _routers(self, module: Any) -> list[Any]:
        return [getattr(module, name) for name in ("router_attention", "router_mlp") if hasattr(module, name)]

    def taken(self, layer: int, module: Any, held: Pass) -> Taken:
        masks: list[Mask] = []
        for name in ("attention", "mlp"):
            values = grid(module.routing_matrix.get(name), held, f"layer {layer}: routing_matrix[{name!r}]")
            masks.append([[value == 0 for value in row] for row in values])
        return masks[0], masks[1]


@dataclass
class MixtureOfDepths:
    """A router scores the tokens of a call, and the best of each row run through the block. The choice is made again from the
    scores, and held against how many tokens the block was called with."""

    name: str = "Mixture-of-Depths"
    kv: str = "none"
    granularity: str = "token"
    router: dict[str, Any] = field(default_factory=lambda: {"kind": "expert_choice", "when": "per_layer", "routed_layers": []})
    scores: dict[int, Any] = field(default_factory=dict[int, Any])
    counts: dict[int, list[int]] = field(default_factory=dict[int, list[int]])

    def watch(self, layer: int, module: Any) -> list[Any]:
        self.router["routed_layers"].append(layer)
        self.router.setdefault("capacity", float(module.capacity))
        block = block_in(module)
        assert block is not None

        def scored(_module: Any, _args: Any, output: Any) -> None:
            self.scores[layer] = output[0] if isinstance(output, tuple) else output

        def called(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = tensors.hidden(f"block of layer {layer}", args, kwargs)
            count = 1
            for length in tensors.shape(hidden)[:-1]:
                count *= length
            self.counts.setdefault(layer, []).append(count)

        return [module.router.register_forward_hook(scored), block.register_forward_pre_hook(called, with_kwargs=True)]

    def taken(self, layer: int, module: Any, held: Pass) -> Taken:
        scores = self.scores.pop(layer, None)
        counts = self.counts.pop(layer, [])
        if scores is not None and tensors.is_tensor(scores) and tensors.shape(scores) == (held.rows, held.columns, 1):
            scores = scores.squeeze(-1)
        values = grid(scores, held, f"layer {layer}: scores of the router")
        share = int(float(module.capacity) * held.columns)
        for choice in _choices(values, sorted({share, max(1, share)})):
            by_row = [sum(row) for row in choice]
            if counts in ([count for count in by_row if count], [sum(by_row)]) or (not counts and not sum(by_row)):
                return choice, choice
        raise RecordError(
            f"layer {layer}: the block was called with {counts} tokens, but a capacity of {module.capacity} over {held.columns} tokens of "
            f"{held.rows} rows gives {share} a row: this is another choice than the best of each row; say it with decide="
        )


def _choices(values: list[list[float]], shares: list[int]) -> list[Mask]:
    """Ways in which implementations take the best of each row: above the last of the best, or with it."""
    found: list[Mask] = []
    for share in shares:
        if not share:
            found.append([[False] * len(row) for row in values])
            continue
        least = [sorted(row, reverse=True)[share - 1] for row in values]
        found.append([[value > bound for value in row] for row, bound in zip(values, least)])
        found.append([[value >= bound for value in row] for row, bound in zip(values, least)])
    return found


def decisions_router(base: Any, layers: int) -> dict[str, Any] | None:
    """What Dr.LLM's routers are, where a model has one a layer that decides to skip, run or repeat it."""
    routers = getattr(base, "routers", None)
    if routers is None or not hasattr(routers, "__len__") or len(routers) != layers:
        return None
    hidden = getattr(getattr(routers[0], "linear1", None), "out_features", None)
    router: dict[str, Any] = {"kind": "mlp", "when": "per_layer"}
    if hidden:
        router["hidden"] = int(hidden)
    return router


def check_decisions(output: Any, held: Pass) -> None:
    """Holds the `decisions` of a pass (0 skip, 1 run, 2 repeat, a layer each) against the calls that were seen."""
    decisions = getattr(output, "decisions", None)
    if decisions is None:
        return
    decided = [int(each) for each in (tensors.whole(decisions) if tensors.is_tensor(decisions) else decisions)]
    called = [0] * len(decided)
    for visit in held.visits:
        if visit.layer >= len(decided):
            raise RecordError(f"decisions: found {len(decided)}, but layer {visit.layer} ran")
        called[visit.layer] += 1
    for layer, (wanted, seen) in enumerate(zip(decided, called)):
        if wanted != seen:
            raise RecordError(f"layer {layer}: decisions say {wanted} calls (0 skip, 1 run, 2 repeat), but it was called {seen} times")
