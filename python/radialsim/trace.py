"""Router traces, version 1, as the recorder writes them. The format is described in `docs/TRACE_FORMAT.md`.

Everything that readers refuse is refused before a file appears, so that what was written can be read.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .errors import TraceError

KV_ACTIONS = ("write", "project_only", "copy_state", "share", "none", "deferred", "unified")
GRANULARITIES = ("token", "sequence", "position", "batch")
ROUTER_KINDS = ("none", "fixed", "threshold", "oracle_threshold", "mlp", "expert_choice")
MOST_LAYERS = 65_535
RUN_TOKENS = 1 << 23
# Readers refuse lines of more than 16 MiB. A run of so many numbers (routes and experts, at most eight characters each, of 65,535
# layers and as many experts) stays below it.
LINE_NUMBERS = 1 << 20


class Step(NamedTuple):
    """A layer that a token takes. `branch` is empty for the whole block, `a` for attention, `f` for feed-forward alone."""

    layer: int
    branch: str = ""

    def text(self) -> str:
        return f"{self.layer}{self.branch}"


Route = tuple[Step, ...]
# For each step of a route the ids of its experts, likeliest first; empty where the step has none.
Experts = tuple[tuple[int, ...], ...]


@dataclass
class Run:
    """Tokens of one request from position `start` on, one route each."""

    start: int
    phase: str
    routes: list[Route]
    role: str | None = None
    accepted: list[bool] | None = None
    experts: list[Experts] | None = None

    @property
    def end(self) -> int:
        return self.start + len(self.routes)


@dataclass
class Request:
    """One request and the routes of its tokens, in the order in which they ran."""

    id: int
    prompt_tokens: int
    output_tokens: int
    runs: list[Run]
    arrival_s: float = 0.0


@dataclass
class Header:
    """What produced a trace. `order` and `reuse` are `None` where the routes say it."""

    model: str
    layers: int
    granularity: str = "token"
    kv: str = "write"
    router: dict[str, Any] = field(default_factory=lambda: {"kind": "none"})
    source: str = ""
    order: str | None = None
    reuse: bool | None = None


@dataclass
class Trace:
    """A trace: who arrives, and which layers each token takes."""

    header: Header
    requests: list[Request]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Trace:
        """Reads JSON Lines, also compressed for `.gz`. Raises `TraceError` for what is no trace, and for what this module has no place for:
        widths, actions of single steps, prefixes. `radialsim` reads all of it."""
        return _read(Path(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the trace: see `write`."""
        write(path, self.header, self.requests)


def write(path: str | os.PathLike[str], header: Header, requests: Sequence[Request]) -> None:
    """Writes a trace to `path`: JSON Lines, compressed for `.gz`. The file appears when it is whole.

    Raises `TraceError` for a trace that readers would refuse, and for the endings `.parquet` and `.zst`, which
    `radialsim trace convert` makes.
    """
    path = Path(path)
    if path.suffix in (".parquet", ".zst"):
        raise TraceError(f"{path}: write .jsonl or .jsonl.gz here; `radialsim trace convert` makes {path.suffix} of it")
    text = "".join(line + "\n" for line in lines(header, requests)).encode()
    if path.suffix == ".gz":
        text = gzip.compress(text, mtime=0)
    part = path.with_name(path.name + ".part")
    part.write_bytes(text)
    os.replace(part, path)


def lines(header: Header, requests: Sequence[Request]) -> Iterator[str]:
    """The lines of a trace, without their ends. The same trace gives the same lines."""
    check(header, requests)
    routes = [route for request in requests for run in request.runs for route in run.routes]
    yield json.dumps(_header(header, routes), separators=(",", ":"), ensure_ascii=False)
    ids: dict[Route, int] = {}
    # Many tokens share one tuple, which is then looked up by what it is.
    known: dict[int, int] = {}
    for request in requests:
        for run in request.runs:
            for route in run.routes:
                if id(route) in known:
                    continue
                if route not in ids:
                    ids[route] = len(ids)
                    steps = " ".join(step.text() for step in route)
                    yield f'{{"type":"route","id":{ids[route]},"steps":"{steps}"}}'
                known[id(route)] = ids[route]
        yield json.dumps(
            {
                "type": "request",
                "id": request.id,
                "arrival_s": request.arrival_s,
                "prompt_tokens": request.prompt_tokens,
                "output_tokens": request.output_tokens,
            },
            separators=(",", ":"),
        )
        for run in request.runs:
            for part in _cut(run):
                yield json.dumps(_run(request.id, part, known), separators=(",", ":"))


def _cut(run: Run) -> Iterator[Run]:
    """A run as several whose lines are short enough. Drafts and verified tokens are few, and stay together."""
    if run.role not in (None, "recompute"):
        yield run
        return
    first, numbers = 0, 0
    for index in range(len(run.routes)):
        numbers += 1 + (sum(len(ids) + 1 for ids in run.experts[index]) if run.experts else 0)
        if numbers >= LINE_NUMBERS or index + 1 == len(run.routes):
            last = index + 1
            experts = run.experts[first:last] if run.experts else None
            yield Run(run.start + first, run.phase, run.routes[first:last], run.role, None, experts)
            first, numbers = last, 0


def _header(header: Header, routes: Sequence[Route]) -> dict[str, Any]:
    distinct = {tuple(step.layer for step in route) for route in {id(route): route for route in routes}.values()}
    pairs = [pair for route in distinct for pair in zip(route, route[1:])]
    reuse = header.reuse if header.reuse is not None else any(len(set(route)) < len(route) for route in distinct)
    order = header.order or ("any" if any(later < earlier for earlier, later in pairs) else "monotone")
    return {
        "type": "header",
        "format": "router-trace",
        "version": 1,
        "model": header.model,
        "layers": header.layers,
        "order": order,
        "reuse": reuse,
        "granularity": header.granularity,
        "kv": header.kv,
        "router": header.router,
        "source": header.source,
    }


def _run(request: int, run: Run, ids: dict[int, int]) -> dict[str, Any]:
    line: dict[str, Any] = {
        "type": "tokens",
        "request": request,
        "start": run.start,
        "phase": run.phase,
        "routes": [ids[id(route)] for route in run.routes],
    }
    if run.role is not None:
        line["role"] = run.role
    if run.accepted is not None:
        line["accepted"] = run.accepted
    if run.experts is not None:
        line["experts"] = run.experts
    return line


def check(header: Header, requests: Sequence[Request]) -> None:
    """Holds a trace against the rules of the format. Raises `TraceError` for the first that is broken."""
    one_of("header: kv", header.kv, KV_ACTIONS)
    one_of("header: granularity", header.granularity, GRANULARITIES)
    one_of("header: router.kind", header.router.get("kind"), ROUTER_KINDS)
    if not 1 <= header.layers <= MOST_LAYERS:
        raise TraceError(f"header: layers: found {header.layers}, expected 1 to {MOST_LAYERS}")
    seen: set[int] = set()
    for request in requests:
        if request.id in seen:
            raise TraceError(f"request {request.id}: id: found it twice, expected an id that was not used before")
        seen.add(request.id)
        check_request(request, header.layers)


def one_of(place: str, found: object, expected: Sequence[str]) -> None:
    """Raises `TraceError` where `found` is none of the words `expected`."""
    if found not in expected:
        raise TraceError(f"{place}: found {found!r}, expected one of {', '.join(expected)}")


def check_request(request: Request, layers: int) -> None:
    """Holds the runs of one request against its counts: the frontier of `docs/TRACE_FORMAT.md`."""
    place = f"request {request.id}"
    prompt, output = request.prompt_tokens, request.output_tokens
    if prompt < 1 or output < 1:
        raise TraceError(f"{place}: found {prompt} prompt and {output} output tokens, expected at least one of each")
    frontier = 0
    for run in request.runs:
        where = f"{place}, positions {run.start} to {run.end - 1}"
        if not 1 <= len(run.routes) <= RUN_TOKENS:
            raise TraceError(f"{where}: found {len(run.routes)} routes, expected 1 to {RUN_TOKENS}")
        for route in {id(route): route for route in run.routes}.values():
            bad = [step.layer for step in route if not 0 <= step.layer < layers]
            if bad:
                raise TraceError(f"{where}: found layer {bad[0]}, expected 0 to {layers - 1}")
        frontier += _advance(run, frontier, prompt, where)
        if frontier > prompt + output:
            raise TraceError(f"{where}: found token {frontier}, expected at most {prompt + output}")
    if request.runs and frontier + 1 < prompt + output:
        raise TraceError(f"{place}: found {frontier} tokens, expected {prompt + output - 1} or {prompt + output}")


def _advance(run: Run, frontier: int, prompt: int, where: str) -> int:
    """How far a run moves the frontier on."""
    if run.role == "recompute":
        if run.end > frontier:
            raise TraceError(f"{where}: expected positions that ran before, below {frontier}")
    elif run.start != frontier:
        raise TraceError(f"{where}: expected position {frontier}, where the tokens so far end")
    if run.start < prompt < run.end or (run.phase == "prefill") != (run.start < prompt):
        raise TraceError(f"{where}: found {run.phase}, expected runs that do not cross the end of the prompt at {prompt}")
    if run.accepted is not None:
        kept = sum(run.accepted)
        if run.role != "verify" or len(run.accepted) != len(run.routes) or not all(run.accepted[:kept]):
            raise TraceError(f"{where}: accepted: expected leading trues, then falses, one a token of a verify run")
    if run.experts is not None and [len(each) for each in run.experts] != [len(route) for route in run.routes]:
        raise TraceError(f"{where}: experts: expected a list for each step of each token's route")
    if run.role in ("draft", "recompute"):
        return 0
    return len(run.routes) if run.accepted is None else sum(run.accepted)


def _read(path: Path) -> Trace:
    if path.suffix in (".parquet", ".zst"):
        raise TraceError(f"{path}: read .jsonl or .jsonl.gz here; `radialsim trace convert` makes it of {path.suffix}")
    text = path.read_bytes()
    try:
        lines = (gzip.decompress(text) if path.suffix == ".gz" else text).decode("utf-8-sig").splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as damaged:
        raise TraceError(f"{path}: found {damaged}, expected a trace in UTF-8") from damaged
    header: Header | None = None
    routes: dict[int, Route] = {}
    requests: dict[int, Request] = {}
    for number, line in enumerate(lines, 1):
        try:
            keys = json.loads(line)
            if number == 1:
                header = _header_of(keys)
            elif keys["type"] == "route":
                routes[_only(keys, "type id steps")["id"]] = tuple(_step(word) for word in keys["steps"].split())
            elif keys["type"] == "request":
                _only(keys, "type id arrival_s prompt_tokens output_tokens")
                prompt, output = keys["prompt_tokens"], keys["output_tokens"]
                requests[keys["id"]] = Request(keys["id"], prompt, output, [], keys["arrival_s"])
            elif keys["type"] == "tokens":
                requests[keys["request"]].runs.append(_run_of(keys, routes))
            else:
                raise TraceError(f"type: found {keys['type']!r}, expected route, request or tokens")
        except (TraceError, ValueError, KeyError, TypeError, AttributeError) as wrong:
            said = f"expected the key or id {wrong}" if isinstance(wrong, KeyError) else str(wrong)
            raise TraceError(f"{path}:{number}: {said}") from wrong
    if header is None:
        raise TraceError(f"{path}: found nothing, expected a trace")
    trace = Trace(header, list(requests.values()))
    check(trace.header, trace.requests)
    return trace


def _only(keys: dict[str, Any], known: str) -> dict[str, Any]:
    unknown = [key for key in keys if key not in known.split()]
    if unknown:
        raise TraceError(f"{unknown[0]}: found a key that has no place here, expected one of {known}")
    return keys


def _header_of(keys: dict[str, Any]) -> Header:
    _only(keys, "type format version model layers order reuse granularity kv router source")
    if (keys["type"], keys["format"], keys["version"]) != ("header", "router-trace", 1):
        raise TraceError("expected the header of a router-trace of version 1")
    own = ("model", "layers", "granularity", "kv", "router", "source", "order", "reuse")
    return Header(**{key: keys[key] for key in own if key in keys})


def _step(word: str) -> Step:
    found = re.fullmatch(r"(\d+)([af]?)", word)
    if found is None:
        raise TraceError(f"steps: found {word}, expected a layer, alone or with a or f")
    return Step(int(found[1]), found[2])


def _run_of(keys: dict[str, Any], routes: dict[int, Route]) -> Run:
    _only(keys, "type request start phase routes role accepted experts")
    experts = keys.get("experts")
    return Run(
        keys["start"],
        keys["phase"],
        [routes[route] for route in keys["routes"]],
        keys.get("role"),
        keys.get("accepted"),
        None if experts is None else [tuple(tuple(ids) for ids in token) for token in experts],
    )
