"""`radialsim.record`: routes of a run, into a file."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from .. import trace
from ..errors import RecordError
from . import generation
from .locate import find
from .residuals import Residuals
from .session import Decide, Session

# Methods of a model that are watched. The last says which tokens end a row.
_WRAPPED = ("generate", "generate_batch", "_get_stopping_criteria")


class Recorder:
    """A recording: a context manager. Hooks are on the model inside of it; the file appears when it ends without an error."""

    def __init__(self, session: Session, path: Path, said: dict[str, Any], residuals: Residuals | None) -> None:
        self.session, self.path, self.said, self.residuals = session, path, said, residuals
        self.header: trace.Header | None = None
        self.requests: list[trace.Request] = []

    def __enter__(self) -> Recorder:
        model = self.session.found.model
        try:
            self.session.install()
            if self.residuals is not None:
                self.residuals.install(self.session)
        except BaseException:
            self.session.remove()
            raise
        for name in _WRAPPED:
            if hasattr(model, name):
                setattr(model, name, self._wrapped(name, getattr(model, name)))
        return self

    def _wrapped(self, name: str, call: Any) -> Any:
        session = self.session

        @functools.wraps(call)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if name == "generate_batch":
                raise RecordError("generate_batch cannot be recorded: it packs several texts into a row. Use generate")
            if name == "_get_stopping_criteria":
                criteria = call(*args, **kwargs)
                if len(session.generations) == 1:
                    session.generations[0].stop(criteria)
                return criteria
            if session.generations:
                session.generations.append(session.generations[0])
                try:
                    return call(*args, **kwargs)
                finally:
                    session.generations.pop()
            session.end_free()
            session.generations.append(generation.begin(session.found.model, call, args, kwargs))
            try:
                output = call(*args, **kwargs)
                session.generations[0].finish(output)
                return output
            finally:
                session.generations.clear()

        return wrapped

    def end_request(self, output_tokens: int) -> None:
        """Says how many tokens the latest request got, after a loop of your own. Only speculative loops need it: nothing else tells
        how many of the last drafts were accepted."""
        self.session.end_free()
        if not self.session.latest:
            raise RecordError("end_request: no loop of your own ran in this recording; generate says itself how many tokens a request got")
        for sequence in self.session.latest:
            sequence.output_tokens = output_tokens

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        model = self.session.found.model
        for name in _WRAPPED:
            vars(model).pop(name, None)
        self.session.remove()
        if kind is None:
            self._finish()

    def _finish(self) -> None:
        session = self.session
        session.end_free()
        finished = [sequence.finish() for sequence in session.sequences]
        self.requests = [request for request in finished if request is not None]
        if not self.requests:
            raise RecordError("nothing ran while recording: run the model inside the with block")
        self.header = self._header()
        trace.write(self.path, self.header, self.requests)
        if self.residuals is not None:
            self.residuals.write(self.path, self.requests)

    def _header(self) -> trace.Header:
        session, found = self.session, self.session.found
        family = session.family
        runs = [run for request in self.requests for run in request.runs]
        drafts = any(run.role is not None for run in runs)
        router: dict[str, Any] = {"kind": "fixed" if drafts else "none"}
        if family is not None or session.repeats is not None:
            router = family.router if family is not None else session.repeats or router
        what = family.name if family is not None else type(found.model).__name__
        source = f"recorded by radialsim.record from {what}"
        if self.said["router"] is None and router["kind"] == "none" and self._skips(runs):
            source += "; what decided about the routes is not known and costs nothing here"
        if session.experts is None and not session.gated and _has_experts(found.config):
            source += "; which experts tokens took is not recorded, since no gate of a known name was found"
        by_pass = drafts or session.repeats is not None
        return trace.Header(
            # Of a folder on somebody's machine, the name alone.
            model=self.said["name"] or Path(getattr(found.config, "_name_or_path", "") or "").name or type(found.model).__name__,
            layers=len(found.layers),
            granularity=family.granularity if family is not None else "batch" if by_pass else "token",
            kv=self.said["kv"] or (family.kv if family is not None else self._kv(runs)),
            router=self.said["router"] or router,
            source=self.said["source"] or source,
        )

    def _skips(self, runs: list[trace.Run]) -> bool:
        """Whether a token that nothing drafted went without the attention of a layer."""
        layers = len(self.session.found.layers)
        distinct = {route for run in runs if run.role is None for route in run.routes}
        return any(len({step.layer for step in route if step.branch != "f"}) < layers for route in distinct)

    def _kv(self, runs: list[trace.Run]) -> str:
        session = self.session
        if session.decided and session.uncalled:
            raise RecordError(
                "some layers were not called, which leaves no entry in the KV cache, and decide masked calls of others, which wrote theirs: "
                "say with kv= what skipped layers leave (none, project_only, ...)"
            )
        if session.decided:
            return "project_only"
        return "none" if self._skips(runs) else "write"


def _has_experts(config: Any) -> bool:
    counts = [getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")]
    return any(isinstance(count, int) and count > 1 for count in counts)


def record(
    model: Any,
    path: str | os.PathLike[str],
    *,
    decide: Decide | None = None,
    experts: bool | None = None,
    residuals: bool = False,
    arrivals: str = "zero",
    layers: Any | None = None,
    name: str | None = None,
    kv: str | None = None,
    router: dict[str, Any] | None = None,
    source: str | None = None,
) -> Recorder:
    """Records which layers each token takes, as a router trace at `path` (`.jsonl` or `.jsonl.gz`).

    >>> with radialsim.record(model, "out.jsonl"):            # doctest: +SKIP
    ...     model.generate(**tokenizer("Hello", return_tensors="pt"), max_new_tokens=32)

    `model` is a decoder-only torch model, of Hugging Face or like one. A layer that is not called for a token, or one of its branches
    that is not, is a skip. Known families are read from their routers; `docs/RECORDING.md` lists them.

    - `decide(layer, module, args, output)` says which tokens of a call took the layer: truth values of (rows, columns), or two of them for
      attention and feed-forward; `None`: all. For models that run layers for all tokens and mask what comes out.
    - `experts`: whether to write the experts of each token; `None`: where gates are found.
    - `residuals`: also writes what each branch adds, as a share of the stream, to `PATH` with the ending `.residuals.csv`.
    - `arrivals`: `zero`, or `clock`: seconds from the begin of the recording to the begin of each request.
    - `layers`: the list of decoder layers, where it cannot be found.
    - `name`, `kv`, `router`, `source`: keys of the header, where what is found shall not stand.

    Raises `RecordError` for what would be recorded wrongly (beam search, several texts in a row, ...), when it happens.
    """
    file = Path(path)
    if file.suffix in (".parquet", ".zst"):
        raise RecordError(f"{file}: record to .jsonl or .jsonl.gz; `radialsim trace convert` makes {file.suffix} of it")
    if kv is not None:
        trace.one_of("kv", kv, trace.KV_ACTIONS)
    if router is not None:
        trace.one_of("router: kind", router.get("kind"), trace.ROUTER_KINDS)
    trace.one_of("arrivals", arrivals, ("zero", "clock"))
    session = Session(find(model, layers), decide, experts, arrivals == "clock")
    said = {"name": name, "kv": kv, "router": router, "source": source}
    return Recorder(session, file, said, Residuals() if residuals else None)
