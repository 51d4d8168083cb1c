"""What each branch of a layer adds to the residual stream, token by token: the table that `radialsim inspect residuals` reads."""

from __future__ import annotations

import csv
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import trace
from ..errors import RecordError
from . import tensors
from .locate import block_in, branches
from .session import Call, Session

# The columns of `radialsim execute --residuals`. The first three ratios are over the stream with the branch.
COLUMNS = (
    "prompt", "position", "phase", "layer", "attn_ratio", "ffn_ratio", "block_ratio", "cosine", "attn_over_output", "ffn_over_output",
    "block_over_output", "attn_over_input", "ffn_over_input", "block_over_input",
)  # fmt: skip


@dataclass
class _Open:
    """A layer while it runs: the stream before it, the module that ran last in it, and the stream between the branches."""

    call: Call | None
    stream: Any
    before: Any = None
    after: Any = None
    attended: bool = False
    middle: Any = None


@dataclass
class Residuals:
    """Ratios of a recording, by request, position and layer; a position that ran again keeps its last."""

    rows: dict[tuple[int, int, int], list[float]] = field(default_factory=dict[tuple[int, int, int], list[float]])
    open: list[_Open] = field(default_factory=list[_Open])

    def install(self, session: Session) -> None:
        """Puts the hooks on, which the session takes off. Raises `RecordError` where branches are not known."""
        self.session = session
        for index, layer in enumerate(session.found.layers):
            block = block_in(layer) or layer
            attention, feed_forward = branches(block)
            if attention is None or feed_forward is None:
                raise RecordError(
                    f"residuals=True: layer {index} ({type(block).__name__}) has no attention and feed-forward module of a known name"
                )
            self._watch(session, index, block, attention, feed_forward)

    def _watch(self, session: Session, index: int, block: Any, attention: Any, feed_forward: Any) -> None:
        def begins(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if session.open is None:
                raise RecordError("residuals=True needs calls of the base model: here a loop calls the layers itself")
            call = session.calls[-1] if session.calls else None
            self.open.append(_Open(call, tensors.hidden(f"layer {index}", args, kwargs)))

        def part(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if self.open and module is attention:
                self.open[-1].attended = True
            elif self.open:
                self.open[-1].before = tensors.hidden(f"layer {index}", args, kwargs)
                self.open[-1].after = output

        def turns(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.open:
                here = self.open[-1]
                entry = tensors.hidden(f"layer {index}", args, kwargs)
                # Where a norm stands between the stream and the branch, the stream is what went into the norm.
                here.middle = here.before if here.after is entry else entry

        def ends(_module: Any, _args: Any, output: Any) -> None:
            if self.open:
                self._measure(index, self.open.pop(), output[0] if isinstance(output, tuple) else output)

        for child in block.children():
            if child is not feed_forward:
                session.handles.append(child.register_forward_hook(part, with_kwargs=True))
        session.handles.append(feed_forward.register_forward_pre_hook(turns, with_kwargs=True))
        session.handles.append(block.register_forward_pre_hook(begins, with_kwargs=True))
        session.handles.append(block.register_forward_hook(ends))

    def _measure(self, index: int, here: _Open, output: Any) -> None:
        held = self.session.open
        if held is None or held.draft or here.call is None or not here.call.cells:
            return
        stream, middle = here.stream, here.middle
        if middle is None or not here.attended or middle is stream:
            raise RecordError(
                f"residuals=True: layer {index} does not add attention, then feed-forward to the stream (it runs them side by side, or leaves one "
                "out): its ratios are not known"
            )
        width = tensors.shape(stream)[-1]
        first, between, last = (part.detach().float().reshape(-1, width) for part in (stream, middle, output))
        lengths = {name: part.norm(dim=-1) for name, part in (("first", first), ("between", between), ("last", last))}
        added = [(between - first).norm(dim=-1), (last - between).norm(dim=-1), (last - first).norm(dim=-1)]
        cosine = (first * last).sum(-1) / (lengths["first"] * lengths["last"])
        over_output = [share / lengths[name] for share, name in zip(added, ("between", "last", "last"))]
        over_input = [share / lengths[name] for share, name in zip(added, ("first", "between", "first"))]
        table = [part.tolist() for part in [*over_output, cosine, *over_output, *over_input]]
        for place, (row, column) in enumerate(here.call.cells):
            position = held.positions[row][column] if column >= 0 else None
            if position is not None:
                self.rows[held.sequences[row].id, position, index] = [line[place] for line in table]

    def write(self, path: Path, requests: list[trace.Request]) -> Path:
        """Writes the rows of positions that the trace has, beside it; the file appears when it is whole."""
        stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
        out = path.with_name(stem + ".residuals.csv")
        prompts = {request.id: (request.prompt_tokens, request.prompt_tokens + request.output_tokens - 1) for request in requests}
        part = out.with_name(out.name + ".part")
        with part.open("w", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(COLUMNS)
            for (request, position, layer), ratios in sorted(self.rows.items()):
                prompt, end = prompts.get(request, (0, 0))
                if position >= end:
                    continue
                if not all(math.isfinite(ratio) for ratio in ratios):
                    raise RecordError(f"request {request}, position {position}, layer {layer}: the residual stream is not finite")
                phase = "prompt" if position < prompt else "decode"
                lines.writerow([request, position, phase, layer, *(f"{ratio:.8g}" for ratio in ratios)])
        os.replace(part, out)
        return out
