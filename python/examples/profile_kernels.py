"""Times products and attention calls of many shapes under PyTorch's profiler, for `radialsim fit --kineto` to make a profile of this device.

    python profile_kernels.py kernels.json.gz                                     # this machine's processor, float32
    python profile_kernels.py kernels.json.gz --device cuda --dtype bfloat16
    radialsim fit --kineto kernels.json.gz --hw BASE --name mine --out mine.ron

BASE is the shipped profile of the nearest device, or your own with the numbers of its data sheet.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

# Inner width and columns of products, as of small and middle models and between them; whole pairs are kept aside by the fit.
WIDTHS = (256, 384, 576, 768, 1024, 1536, 2048, 2560, 3072, 4096)
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# Query heads, heads of keys and values, width of a head.
HEADS = (
    (4, 4, 64), (6, 6, 48), (8, 2, 64), (8, 8, 64), (9, 3, 64), (12, 12, 64), (12, 4, 64), (14, 2, 64), (15, 5, 64), (16, 4, 80), (16, 16, 64),
    (16, 8, 128), (24, 8, 128), (32, 8, 64), (32, 32, 64),
)
PROMPTS = ((1, 16), (1, 33), (1, 64), (1, 100), (1, 128), (1, 200), (1, 256), (1, 384), (1, 512), (2, 64), (2, 128), (4, 32), (4, 128), (8, 64))
STEPS = ((1, 17), (1, 64), (1, 130), (1, 256), (1, 400), (1, 512), (1, 1024), (2, 100), (2, 300), (4, 64), (4, 256), (8, 50), (8, 128), (16, 64))
# Arithmetic of a call, at most: the fit needs many shapes rather than large ones.
MOST_FLOPS = {"cpu": 2e9, "cuda": 1e13}
# Weights and caches come from memory, as between the layers of a model: calls walk through a buffer of so many bytes.
COLD_BYTES = 128 << 20


class Cold:
    """Matrices of any shape in one large buffer."""

    def __init__(self, like: torch.Tensor) -> None:
        self.buffer = torch.randn(COLD_BYTES // like.element_size(), device=like.device).to(like.dtype)

    def several(self, shape: tuple[int, ...]) -> Callable[[], torch.Tensor]:
        """Gives the next of up to eight matrices at each call."""
        size = torch.Size(shape).numel()
        count = max(1, min(8, self.buffer.numel() // size))
        apart = (self.buffer.numel() - size) // max(1, count - 1)
        parts = itertools.cycle([self.buffer[place * apart :][:size].view(shape) for place in range(count)])
        return lambda: next(parts)


def product(x: torch.Tensor, weights: Callable[[], torch.Tensor]) -> Callable[[], object]:
    return lambda: torch.mm(x, weights().t())


def products(like: torch.Tensor, cold: Cold, families: int, chosen: random.Random) -> list[Callable[[], object]]:
    pairs = chosen.sample([(inner, columns) for inner in WIDTHS for columns in WIDTHS], families)
    calls: list[Callable[[], object]] = []
    for inner, columns in pairs:
        weights = cold.several((columns, inner))
        for rows in chosen.sample(ROWS, 12):
            if 2 * rows * inner * columns <= MOST_FLOPS[like.device.type]:
                calls.append(product(like.new_ones(rows, inner), weights))
    return calls


def attention(like: torch.Tensor, cold: Cold) -> list[Callable[[], object]]:
    calls: list[Callable[[], object]] = []

    def add(shape: tuple[int, int, int, int, int, int]) -> None:
        batch, heads, kv_heads, width, rows, seen = shape
        query = torch.randn(batch, heads, rows, width, dtype=like.dtype, device=like.device)
        keys, values = (cold.several((batch, kv_heads, seen, width)) for _ in range(2))
        same = kv_heads == heads
        calls.append(lambda: F.scaled_dot_product_attention(query, keys(), values(), is_causal=rows > 1, enable_gqa=not same))

    for heads, kv_heads, width in HEADS:
        for batch, length in PROMPTS:
            add((batch, heads, kv_heads, width, length, length))
        for batch, seen in STEPS:
            add((batch, heads, kv_heads, width, 1, seen))
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="where the profile of PyTorch goes, .json or .json.gz")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--visits", type=int, default=7, help="how often each call runs, in another order each time")
    parser.add_argument("--families", type=int, default=60, help="pairs of widths of products, at most 100")
    parser.add_argument("--threads", type=int, help="threads of a processor; absent: PyTorch's own choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    chosen = random.Random(0)
    like = torch.empty(0, dtype=getattr(torch, args.dtype), device=args.device)
    with torch.inference_mode():
        cold = Cold(like)
        calls = products(like, cold, args.families, chosen) + attention(like, cold)
        for call in calls:
            call()
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (args.device == "cuda")
        with profile(activities=activities, record_shapes=True) as seen:
            for _ in range(args.visits):
                for call in chosen.sample(calls, len(calls)):
                    call()
            if args.device == "cuda":
                torch.cuda.synchronize()
    seen.export_chrome_trace(args.out)
    print(f"{len(calls)} shapes, each {args.visits} times: {args.out}")


if __name__ == "__main__":
    main()
