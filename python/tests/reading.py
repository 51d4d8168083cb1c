"""A trace as tests look at it: routes of each request's tokens, by position."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any


def lines(path: Path) -> list[dict[str, Any]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return [json.loads(line) for line in text.splitlines()]


def runs(path: Path) -> dict[int, list[dict[str, Any]]]:
    """The runs of each request, with steps in place of route ids."""
    found = lines(path)
    routes = {line["id"]: line["steps"] for line in found if line["type"] == "route"}
    out: dict[int, list[dict[str, Any]]] = {line["id"]: [] for line in found if line["type"] == "request"}
    for line in found:
        if line["type"] == "tokens":
            out[line["request"]].append({**line, "routes": [routes[route] for route in line["routes"]]})
    return out


def routes(path: Path) -> dict[int, list[str]]:
    """Steps of each token that counts, in the order of positions: plain runs and what stayed of verified ones."""
    out: dict[int, list[str]] = {}
    for request, all_runs in runs(path).items():
        out[request] = []
        for run in all_runs:
            role = run.get("role")
            if role is None or role == "verify":
                kept = sum(run["accepted"]) if "accepted" in run else len(run["routes"])
                out[request] += run["routes"][:kept]
    return out


def counts(path: Path) -> dict[int, tuple[int, int]]:
    return {line["id"]: (line["prompt_tokens"], line["output_tokens"]) for line in lines(path) if line["type"] == "request"}
