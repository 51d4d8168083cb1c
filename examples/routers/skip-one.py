#!/usr/bin/env python3
"""Writes three radial routers for SmolLM2-135M by hand: its layers in order, all tokens past layer 15, and about a third of the tokens past it.

Usage: skip-one.py FOLDER. They show what a cache of one place for each hop makes of tokens that stand at different layers
(docs/TRAINING_RESULTS.md, "The radial router of a frozen model").
"""

import json
import math
import random
import struct
import sys
from pathlib import Path

LAYERS, WIDTH, HIDDEN = 30, 576, 64
PAST = 15
# What puts one option far above the others, whatever the state.
HIGH = 8.0


def router(past: str) -> bytes:
    """past: who leaves out layer PAST: none, all, some."""
    options = LAYERS + 1
    draw = random.Random(1)
    first = [draw.gauss(0, 1 / math.sqrt(WIDTH)) for _ in range(HIDDEN * WIDTH)]
    second = [0.0] * (options * HIDDEN)
    biases = [0.0] * (options * options)
    for before in range(options):
        biases[before * options + (before + 1) % options] = HIGH
    if past != "none":
        biases[(PAST - 1) * options + PAST + 1] = 2 * HIGH if past == "all" else HIGH
    if past == "some":
        # A random projection of the state decides.
        for at in range(HIDDEN):
            second[(PAST + 1) * HIDDEN + at] = draw.gauss(0, 1) / math.sqrt(HIDDEN)
    described = {"kind": "radial", "model": "SmolLM2-135M-Instruct.Q4_1", "hops": LAYERS, "least_hops": 1}
    described |= {"weighted": False, "kv": "unified", "visible": "one_per_token"}
    header, data = {"__metadata__": {"radial": json.dumps(described)}}, b""
    vectors = [0.0] * (options * HIDDEN)
    for name, values, shape in [
        ("first", first, [HIDDEN, WIDTH]),
        ("vectors", vectors, [options, HIDDEN]),
        ("second", second, [options, HIDDEN]),
        ("biases", biases, [options, options]),
    ]:
        raw = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for past in ("none", "all", "some"):
        (folder / f"{past}.safetensors").write_bytes(router(past))
