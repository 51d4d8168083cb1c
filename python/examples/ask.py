"""Asks one question of several devices: does it pay to leave out what these routes left out? Run it from the root of the repository.

    python python/examples/ask.py nvidia-h100-sxm nvidia-l4
"""

from __future__ import annotations

import sys

import radialsim


def scenario(device: str) -> radialsim.Scenario:
    """Routes of a recorded run beside dense execution and beside static depth, eight sequences at a time."""
    return radialsim.Scenario(
        title=f"recorded routes on {device}",
        model="smollm2-135m",
        hardware=device,
        workload={"trace": "examples/traces/smollm2-skip25.jsonl"},
        serving={"max_batched_tokens": 2048, "max_sequences": 8, "chunked_prefill": True},
        dispatch={"policy": "aligned"},
        seed=1,
        variants=[
            {"name": "dense", "routes": {"Method": "Dense"}},
            {"name": "static", "routes": "DropMiddleAsRecorded"},
            {"name": "recorded", "routes": "Recorded"},
        ],
    )


def main(devices: list[str]) -> None:
    for device in devices:
        try:
            results = radialsim.simulate(scenario(device))
        except radialsim.InputError as error:
            print(f"{device}: {error}")
            continue
        print(device)
        for sentence in results.verdict():
            print("   ", sentence)
        print("    tokens per second:", ", ".join(f"{variant.name} {variant['output_tokens_per_s']:.0f}" for variant in results.variants))


if __name__ == "__main__":
    main(sys.argv[1:] or ["nvidia-h100-sxm", "nvidia-l4"])
