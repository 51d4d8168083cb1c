"""Files of a recorded engine, made into a router trace and a measured run that `radialsim validate serving` reads."""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import trace
from ..errors import RecordError
from ..trace import Experts, Request, Route, Run, Step

# Clocks whose times lie further apart began at different times: seconds since 1970 beside seconds since the machine began.
SAME_CLOCK_S = 1e6


@dataclass
class Collected:
    """What a recording held. `remarks` say what is not in it."""

    header: trace.Header
    requests: list[Request]
    measured: list[dict[str, Any]]
    settings: dict[str, Any]
    steps: int
    remarks: list[str] = field(default_factory=list[str])


def collect(folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Collected:
    """Reads a recording's folder and writes `trace.jsonl`, `measured.jsonl` and `timeseries.csv` to `out` (absent: the same folder).

    Requests are in the order of their arrival, in all three alike. Raises `RecordError` where files do not belong together, and for
    positions whose route nobody saw.
    """
    folder = Path(folder)
    target = Path(out) if out is not None else folder
    settings = json.loads(_text(folder / "settings.json"))
    measured = sorted(_lines(folder / "requests.jsonl"), key=lambda line: (line["arrival_time"], line["queued_ts"]))
    if not measured:
        raise RecordError(f"{folder / 'requests.jsonl'}: found no request that ended")
    steps = _lines(folder / "steps.jsonl")
    layers = int(settings["layers"])
    routes, unfinished = _routes(steps, layers, {line["request_id"] for line in measured})
    experts = {line["request_id"]: line["experts"] for line in _lines(folder / "experts.jsonl", missing=True)}
    remarks = [f"{len(unfinished)} requests did not end, and are left out"] if unfinished else []
    first = measured[0]["arrival_time"]
    requests = []
    for number, line in enumerate(measured):
        found, filled = _filled(routes.get(line["request_id"], {}), line, layers)
        if filled:
            remarks.append(f"request {line['request_id']}: {filled} cached tokens did not run, and take the route of all others")
        taken = _experts(experts.get(line["request_id"]), found, layers, line) if experts else None
        requests.append(_request(number, line, found, taken, round(line["arrival_time"] - first, 9)))
    watched = "" if settings["layers_watched"] else ", layers not watched: every token is said to take every one"
    skips = any(len(route) < layers for request in requests for run in request.runs for route in run.routes)
    header = trace.Header(
        model=Path(settings["model"]).name,
        layers=layers,
        kv="none" if skips else "write",
        source=f"recorded by radialsim.serving in vLLM{watched}",
    )
    target.mkdir(parents=True, exist_ok=True)
    trace.write(target / "trace.jsonl", header, requests)
    (target / "measured.jsonl").write_text("".join(json.dumps(line) + "\n" for line in measured))
    _series(target / "timeseries.csv", measured)
    return Collected(header, requests, measured, settings, len(steps), remarks)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError as error:
        raise RecordError(f"{path}: is missing: was vLLM started with RADIALSIM_RECORD, and did a step run?") from error


def _lines(path: Path, missing: bool = False) -> list[dict[str, Any]]:
    if missing and not path.exists():
        return []
    return [json.loads(line) for line in _text(path).splitlines() if line]


def _routes(steps: list[dict[str, Any]], layers: int, ended: set[str]) -> tuple[dict[str, dict[int, Route]], set[str]]:
    """Routes of each request by position, where it ran first; and who ran but did not end. What a preempted request runs again is no
    second route: when it does is the scheduler's decision."""
    full: Route = tuple(Step(layer) for layer in range(layers))
    routes: dict[str, dict[int, Route]] = {}
    for step in steps:
        calls = step.get("layers")
        plain = None if calls is not None and any(mask is not None for _, mask in calls) else full
        if plain is not None and calls is not None:
            plain = tuple(Step(int(index)) for index, _ in calls)
        at = 0
        for request, start, count in step["requests"]:
            known = routes.setdefault(request, {})
            for place in range(count):
                route = plain if plain is not None else tuple(Step(int(i)) for i, mask in calls or [] if mask is None or mask[at + place])
                known.setdefault(start + place, route)
            at += count
    return routes, set(routes) - ended


def _filled(routes: dict[int, Route], line: dict[str, Any], layers: int) -> tuple[list[Route], int]:
    """The routes of a request's tokens by position, the last not among them; and how many did not run, since they were cached."""
    wanted = line["input_toks"] + line["output_toks"] - 1
    missing = [position for position in range(wanted) if position not in routes]
    seen = set(routes.values())
    cached = missing == list(range(len(missing))) and len(missing) < line["input_toks"]
    if missing and not (cached and seen == {tuple(Step(layer) for layer in range(layers))}):
        raise RecordError(
            f"request {line['request_id']}: no step held positions {missing[0]} to {missing[-1]}, and their routes are not known: record without "
            "prefix caching (enable_prefix_caching=False), and from the first step on"
        )
    fill = next(iter(seen), ())
    return [routes.get(position, fill) for position in range(wanted)], len(missing)


def _experts(ids: Any, routes: list[Route], layers: int, line: dict[str, Any]) -> list[Experts]:
    who = f"request {line['request_id']}: experts"
    if ids is None or len(ids) < len(routes):
        raise RecordError(f"{who}: found those of {len(ids or [])} tokens, expected {len(routes)}")
    if any(len(token) != layers for token in ids):
        raise RecordError(f"{who}: found those of {len(ids[0])} layers, expected {layers}: which layers they are of cannot be told")
    return [tuple(tuple(int(each) for each in token[step.layer]) for step in route) for token, route in zip(ids, routes)]


def _request(number: int, line: dict[str, Any], routes: list[Route], experts: list[Experts] | None, arrival: float) -> Request:
    prompt = line["input_toks"]
    runs = [Run(0, "prefill", routes[:prompt], experts=experts[:prompt] if experts else None)]
    if len(routes) > prompt:
        decode = experts[prompt : len(routes)] if experts else None
        runs.append(Run(prompt, "decode", routes[prompt:], experts=decode))
    return Request(number, prompt, line["output_toks"], runs, arrival)


def _series(path: Path, measured: list[dict[str, Any]]) -> None:
    """Who ran and who waited, a row a second from the first arrival on."""
    ahead = max(line["arrival_time"] - line["queued_ts"] for line in measured)
    begin = measured[0]["arrival_time"] - (ahead if abs(ahead) > SAME_CLOCK_S else 0.0)
    seconds = math.ceil(max(line["last_token_ts"] for line in measured) - begin)
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["t", "running", "waiting"])
        for second in range(1, seconds + 1):
            now = begin + second
            running = sum(line["scheduled_ts"] <= now < line["last_token_ts"] for line in measured)
            waiting = sum(line["queued_ts"] <= now < line["scheduled_ts"] for line in measured)
            rows.writerow([f"{second:.1f}", running, waiting])


def serving_of(settings: dict[str, Any]) -> str:
    """The `serving` section of a scenario that says what the engine's settings were. One of vLLM's blocks stands for none."""
    parts = [
        ("max_batched_tokens", settings["max_num_batched_tokens"]),
        ("max_sequences", settings["max_num_seqs"]),
        ("chunked_prefill", settings["enable_chunked_prefill"]),
        ("kv_block_tokens", settings["block_size"]),
        ("kv_blocks", settings["num_gpu_blocks"] - 1 if settings["num_gpu_blocks"] else None),
        ("watermark", 0),
        ("admission", "whole_prompt"),
        ("preemption", "recompute"),
        ("prefix_caching", f"(block_tokens: {settings['block_size']})" if settings["enable_prefix_caching"] else None),
        ("async_scheduling", settings["async_scheduling"]),
    ]
    said = [f"{key}: {str(value).lower() if isinstance(value, bool) else value}" for key, value in parts if value is not None]
    return f"serving: ({', '.join(said)}),"


def main(arguments: list[str] | None = None) -> None:
    """`radialsim-collect FOLDER [--out FOLDER]`: prints what came of it, and the scenario's `serving` section."""
    parser = argparse.ArgumentParser(prog="radialsim-collect", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder that RADIALSIM_RECORD named")
    parser.add_argument("--out", type=Path, help="where trace.jsonl, measured.jsonl and timeseries.csv go; absent: the same folder")
    said = parser.parse_args(arguments)
    try:
        found = collect(said.folder, said.out)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")
    tokens = sum(len(run.routes) for request in found.requests for run in request.runs)
    print(f"{len(found.requests)} requests, {tokens} tokens with a route, {found.steps} steps")
    for remark in found.remarks:
        print(f"remark: {remark}")
    print(serving_of(found.settings))


if __name__ == "__main__":
    main()
