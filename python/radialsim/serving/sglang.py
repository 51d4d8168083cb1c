"""Experts from SGLang's answers, made into a router trace.

A server with `--enable-return-routed-experts`, asked with `return_routed_experts: true`, puts `routed_experts` into `meta_info`: 32-bit integers in
base64, of (prompt and output tokens less one, layers, experts a token), as `sglang/srt/state_capturer/routed_experts.py` (0.5.16) writes them. Layers
without experts have zeros there, so that they must be named.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import trace
from ..errors import RecordError
from ..trace import Experts, Request, Route, Run, Step


def requests(answers: Iterable[dict[str, Any]], layers: int, per_token: int, dense: Iterable[int] = ()) -> list[Request]:
    """Requests of answers of `/generate`, in their order: every token takes every layer, with its experts.

    `per_token` experts a token in each of `layers` layers, none in those of `dense`. Raises `RecordError` for an answer without experts, or with
    others than so many.
    """
    without = set(dense)
    if any(not 0 <= layer < layers for layer in without):
        raise RecordError(f"dense layers: found {sorted(without)}, expected 0 to {layers - 1}")
    route: Route = tuple(Step(layer) for layer in range(layers))
    made = []
    for number, answer in enumerate(answers):
        meta = answer.get("meta_info", {})
        who = f"answer {number}"
        try:
            prompt, output = int(meta["prompt_tokens"]), int(meta["completion_tokens"])
            raw = base64.b64decode(meta["routed_experts"], validate=True)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise RecordError(
                f"{who}: meta_info: found no prompt_tokens, completion_tokens and routed_experts in base64 ({error!r}): ask with "
                "return_routed_experts, of a server with --enable-return-routed-experts"
            ) from error
        tokens = prompt + output - 1
        if len(raw) != 4 * tokens * layers * per_token:
            raise RecordError(
                f"{who}: routed_experts: found {len(raw)} bytes, expected {4 * tokens * layers * per_token}: {per_token} numbers of 4 bytes in each of "
                f"{layers} layers for {tokens} tokens"
            )
        ids = struct.unpack(f"<{len(raw) // 4}i", raw)
        if any(each < 0 for each in ids):
            raise RecordError(
                f"{who}: routed_experts: found {min(ids)}, expected ids from 0: some tokens have none (a prefix from the cache?)"
            )
        experts = [_token(ids, token, layers, per_token, without) for token in range(tokens)]
        runs = [Run(0, "prefill", [route] * prompt, experts=experts[:prompt])]
        if tokens > prompt:
            runs.append(Run(prompt, "decode", [route] * (tokens - prompt), experts=experts[prompt:]))
        made.append(Request(number, prompt, output, runs))
    return made


def _token(ids: tuple[int, ...], token: int, layers: int, per_token: int, dense: set[int]) -> Experts:
    places = ((token * layers + layer) * per_token for layer in range(layers))
    return tuple(() if layer in dense else ids[place : place + per_token] for layer, place in enumerate(places))


def convert(
    answers: str | os.PathLike[str], out: str | os.PathLike[str], model: str, layers: int, per_token: int, dense: Iterable[int] = ()
) -> int:
    """Writes the trace of a file of answers, one as JSON a line, to `out`. Returns how many requests it has."""
    path = Path(answers)
    lines = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise RecordError(f"{path}:{number}: expected an answer of SGLang as JSON ({error})") from error
    made = requests(lines, layers, per_token, dense)
    trace.write(out, trace.Header(model, layers, source="from the answers of SGLang, with return_routed_experts"), made)
    return len(made)


def main(arguments: list[str] | None = None) -> None:
    """`python -m radialsim.serving.sglang ANSWERS.jsonl OUT.jsonl --layers N --experts K`."""
    parser = argparse.ArgumentParser(prog="python -m radialsim.serving.sglang", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("answers", type=Path, help="answers of /generate, one as JSON a line")
    parser.add_argument("out", type=Path, help="the trace to write: .jsonl or .jsonl.gz")
    parser.add_argument("--model", default="", help="name of the model, for the header")
    parser.add_argument("--layers", type=int, required=True, help="layers of the model")
    parser.add_argument("--experts", type=int, required=True, help="experts that a token takes in a layer")
    parser.add_argument("--dense", type=int, nargs="*", default=[], help="layers without experts")
    said = parser.parse_args(arguments)
    try:
        print(f"{convert(said.answers, said.out, said.model, said.layers, said.experts, said.dense)} requests")
    except (OSError, ValueError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
