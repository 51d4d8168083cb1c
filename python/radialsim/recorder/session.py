"""Hooks on a model, and what they see made into passes."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import RecordError
from . import experts as gates_of
from . import families, positions, tensors
from .generation import Generation
from .locate import Found, block_in, branches, gates
from .passes import FreePass, Mask, Pass, Visit
from .pieces import Sequence

# `decide(layer, module, args, output)`: which tokens of a call took the layer, as (rows, columns) of truth values, or two of them
# for attention and feed-forward. `None`: all.
Decide = Callable[[int, Any, tuple[Any, ...], Any], Any]


@dataclass
class Call:
    """A layer while it runs."""

    layer: int
    visit: Visit | None
    # The tokens of the call, row by row: which cell of the pass each is.
    cells: list[tuple[int, int]]
    attention: bool = False
    feed_forward: bool = False


@dataclass
class Session:
    """One recording. `watched` are the modules whose calls count as the layers' calls."""

    found: Found
    decide: Decide | None
    experts: bool | None
    clock: bool
    sequences: list[Sequence] = field(default_factory=list[Sequence])
    handles: list[Any] = field(default_factory=list[Any])
    generations: list[Generation] = field(default_factory=list[Generation])
    open: Pass | None = None
    free: FreePass | None = None
    calls: list[Call] = field(default_factory=list[Call])
    by_cache: dict[int, list[Sequence]] = field(default_factory=dict[int, list[Sequence]])
    latest: list[Sequence] = field(default_factory=list[Sequence])
    family: families.Family | None = None
    repeats: dict[str, Any] | None = None
    uncalled: bool = False
    decided: bool = False
    gated: bool = False
    began: float = field(default_factory=time.monotonic)

    # Installing

    def install(self) -> None:
        """Puts the hooks on. `remove` takes all of them off again."""
        base = self.found.base
        self.repeats = families.decisions_router(base, len(self.found.layers))
        self.handles.append(base.register_forward_pre_hook(self.pass_begins, with_kwargs=True))
        self.handles.append(base.register_forward_hook(self.pass_ends, with_kwargs=True))
        if self.found.embedding is not None:
            self.handles.append(self.found.embedding.register_forward_pre_hook(self.text_begins))
        for index, layer in enumerate(self.found.layers):
            self._watch(index, layer)
        if self.experts and not self.gated:
            raise RecordError("experts=True: found no gate (a module named gate or router beside experts): say experts=False")

    def _watch(self, index: int, layer: Any) -> None:
        kind = None if self.decide else families.of_layer(layer)
        family = None
        if kind is not None:
            if self.family is not None and not isinstance(self.family, kind):
                raise RecordError(f"layer {index} is of {kind.__name__}, others of {self.family.name}: say with decide= who takes what")
            self.family = family = self.family or kind()
            self.handles += family.watch(index, layer)
        target = layer if family or self.decide else block_in(layer) or layer

        def begins(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.layer_begins(index, args, kwargs)

        def ends(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            self.layer_ends(index, module, args, output, family)

        self.handles.append(target.register_forward_pre_hook(begins, with_kwargs=True))
        self.handles.append(target.register_forward_hook(ends, with_kwargs=True))
        attention, feed_forward = branches(target)
        if family is None and attention is not None and feed_forward is not None:
            self._watch_branch(index, attention, "attention")
            self._watch_branch(index, feed_forward, "feed_forward")
        if self.experts is not False:
            for name, gate in gates(layer):
                self._watch_gate(index, name, gate)

    def _watch_branch(self, index: int, module: Any, branch: str) -> None:
        def begins(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.branch_begins(index, branch, tensors.hidden(f"{branch} of layer {index}", args, kwargs))

        self.handles.append(module.register_forward_pre_hook(begins, with_kwargs=True))

    def _watch_gate(self, index: int, name: str, gate: Any) -> None:
        self.gated = True

        def ends(module: Any, _args: Any, output: Any) -> None:
            call = self.calls[-1] if self.calls else None
            if call is None or call.visit is None or call.layer != index:
                return
            ids = gates_of.chosen(f"layer {index}: {name}", module, self.found.config, output, len(call.cells))
            known = call.visit.experts or {}
            known.update({cell: known.get(cell, ()) + each for cell, each in zip(call.cells, ids)})
            call.visit.experts = known

        self.handles.append(gate.register_forward_hook(ends))

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    # Passes

    def new(self, rows: int) -> list[Sequence]:
        arrival = round(time.monotonic() - self.began, 6) if self.clock else 0.0
        made = [Sequence(len(self.sequences) + row, arrival) for row in range(rows)]
        self.sequences += made
        return made

    def pass_begins(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A call of the base model: its tokens, and whose they are."""
        self.end_free()
        self.calls.clear()
        bound = dict(inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments)
        bound.update(bound.pop("kwargs", {}))
        ids = next((bound[name] for name in ("input_ids", "inputs_embeds", "hidden_states") if bound.get(name) is not None), None)
        ids = args[0] if ids is None and args else ids
        if not tensors.is_tensor(ids) or len(tensors.shape(ids)) < 2:
            raise RecordError(f"{type(module).__name__}: found no input_ids and no inputs_embeds of (rows, columns) in a call")
        rows, columns = tensors.shape(ids)[:2]
        inside = self.generations[0] if self.generations else None
        grid, padding = positions.of_pass(bound, rows, columns, inside)
        sequences = self._owners(bound, grid, inside, padding)
        # A base model that is told to run fewer layers drafts, or leaves early: which of both, later passes say.
        depth = getattr(getattr(module, "config", None), "num_hidden_layers", None)
        early = depth is not None and depth < len(self.found.layers)
        self.open = Pass(sequences, grid, early or len(self.generations) > 1)
        self.open.check()

    def _owners(self, bound: dict[str, Any], grid: positions.Positions, inside: Generation | None, padding: list[int]) -> list[Sequence]:
        rows = len(grid)
        if inside is not None:
            if not inside.sequences:
                inside.sequences, inside.padding = self.new(rows), padding
                for sequence, prompt in zip(inside.sequences, positions.prompts(inside, grid, padding)):
                    sequence.speculative, sequence.prompt_tokens = inside.speculative, prompt
            if len(inside.sequences) != rows:
                raise RecordError(f"generate began with {len(inside.sequences)} rows, and a pass has {rows}: which are left cannot be told")
            return inside.sequences
        cache = bound.get("cache") if bound.get("cache") is not None else bound.get("past_key_values")
        first = [next((position for position in row if position is not None), 0) for row in grid]
        if not any(first):
            self.latest = self.new(rows)
        else:
            self.latest = self.by_cache.get(id(cache), self.latest)
            if len(self.latest) != rows:
                raise RecordError(f"a pass starts at position {max(first)}, but this recording saw no pass of {rows} rows before it")
        return self.latest

    def pass_ends(self, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        held, self.open = self.open, None
        if held is None:
            return
        if self.repeats is not None:
            families.check_decisions(output, held)
        if len({visit.layer for visit in held.visits}) < len(self.found.layers) and not held.draft:
            self.uncalled = True
        held.close()
        if self.generations and not held.draft:
            self.generations[0].columns += held.columns
        if not self.generations:
            cache = getattr(output, "cache", None)
            cache = cache if cache is not None else getattr(output, "past_key_values", None)
            if cache is not None:
                self.by_cache[id(cache)] = held.sequences

    def text_begins(self, module: Any, args: tuple[Any, ...]) -> None:
        """An embedding outside a call of the base model: a loop that calls the layers itself begins a pass."""
        if self.open is not None or not args or not tensors.is_tensor(args[0]):
            return
        self.end_free()
        lengths = tensors.shape(args[0])
        rows = lengths[0] if len(lengths) == 2 else 1
        self.free = FreePass(self.latest[0] if len(self.latest) == 1 else Sequence(-1), len(self.found.layers), rows)

    def end_free(self) -> None:
        if self.free is not None:
            self.free.close()
            self.free = None

    # Layers

    def layer_begins(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        lengths = tensors.shape(tensors.hidden(f"layer {index}", args, kwargs))
        held = self.open
        if held is None:
            self._free_layer(index, lengths, kwargs)
            return
        everyone = lengths[:-1] in ((held.rows, held.columns), (held.rows * held.columns,))
        visit = Visit(index)
        if everyone:
            cells = [(row, column) for row in range(held.rows) for column in range(held.columns)]
        else:
            given = positions.of_call(index, lengths, kwargs, held.rows, held.columns)
            visit.attention = visit.feed_forward = held.where(index, given)
            self.uncalled = True
            cells = held.cells(given)
        held.visits.append(visit)
        self.calls.append(Call(index, visit, cells))

    def _free_layer(self, index: int, lengths: tuple[int, ...], kwargs: dict[str, Any]) -> None:
        lines = tensors.rows_of(kwargs.get("position_ids"), 1)
        if self.free is None or lines is None or len(lines[0]) != lengths[-2]:
            raise RecordError(
                f"layer {index} was called outside a pass: neither {type(self.found.base).__name__} nor its embedding was called before, or "
                "position_ids do not say which tokens it holds"
            )
        if self.free.rows != 1:
            raise RecordError(
                f"a loop that calls the layers itself runs {self.free.rows} rows: only one row can be told apart; run one text at a time"
            )
        if self.decide is not None or self.family is not None or self.experts:
            raise RecordError("a loop that calls the layers itself: decide=, experts=True and families need calls of the base model")
        if self.free.sequence.id < 0 or (not self.free.routes and lines[0][0] == 0):
            self.latest = self.new(1)
            self.free.sequence = self.latest[0]
        self.free.visit(index, lines[0])
        self.calls.append(Call(index, None, []))

    def branch_begins(self, index: int, branch: str, hidden: Any) -> None:
        if self.open is None and self.free is None:
            return
        call = self.calls[-1] if self.calls else None
        if call is None or call.layer != index:
            raise RecordError(f"{branch} of layer {index} was called on its own, outside its layer: say with decide= who takes what")
        tokens = 1
        for length in tensors.shape(hidden)[:-1]:
            tokens *= length
        if call.visit is not None and tokens != len(call.cells):
            raise RecordError(
                f"{branch} of layer {index} was called with {tokens} of the layer's {len(call.cells)} tokens; which cannot be told: say it with decide="
            )
        if branch == "attention":
            call.attention = True
        else:
            call.feed_forward = True

    def layer_ends(self, index: int, module: Any, args: tuple[Any, ...], output: Any, family: families.Family | None) -> None:
        call = self.calls.pop() if self.calls else None
        if call is None:
            return
        whole = None in branches(module) or (call.attention and call.feed_forward)
        held, visit = self.open, call.visit
        if held is None or visit is None:
            if not whole:
                raise RecordError(
                    f"layer {index} ran one of its branches in a loop that calls the layers itself: this needs calls of the base model"
                )
        elif family is not None:
            visit.attention, visit.feed_forward = family.taken(index, module, held)
        elif self.decide is not None:
            self._decide(visit, self.decide(index, module, args, output), held)
        elif not whole:
            self.uncalled = True
            none: Mask = [[False] * held.columns for _ in range(held.rows)]
            visit.attention = visit.attention if call.attention else none
            visit.feed_forward = visit.feed_forward if call.feed_forward else none

    def _decide(self, visit: Visit, said: Any, held: Pass) -> None:
        if said is None:
            return
        self.decided = True
        both = said if isinstance(said, tuple) else (said, said)
        if len(both) != 2:
            raise RecordError(f"decide: found {len(both)} masks for layer {visit.layer}, expected one, or two: attention and feed-forward")
        called = visit.attention or held.full()
        masks = [families.grid(mask, held, f"decide, layer {visit.layer}") for mask in both]
        visit.attention, visit.feed_forward = (
            [[bool(value) and ran for value, ran in zip(row, line)] for row, line in zip(mask, called)] for mask in masks
        )
