"""What `scripts/prove-recorder vllm` runs: MODEL.gguf, a folder to write to, and the program radialsim. 200 requests of mixed lengths in vLLM."""

from __future__ import annotations

import asyncio
import bisect
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from radialsim.serving import Collected, collect
from radialsim.serving.collect import serving_of

REQUESTS, PER_SECOND, SEED = 200, 4.0, 7
# Of 128 tokens: too few for 32 requests that grow, so that some are preempted.
FEW_BLOCKS = 24
# What a simulated step takes where only its make-up counts: far more than its kernels, so that all are equally long.
STEP_S = 10.0


def folder_of(gguf: Path, folder: Path) -> Path:
    """The model as a folder, dequantised: vLLM on the CPU reads no GGUF."""
    model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    for name in ("quantization_config",):
        if hasattr(model.config, name):
            delattr(model.config, name)
    model.hf_quantizer = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SETTINGS: dict[str, Any] = {
    "dtype": "float32", "enforce_eager": True, "disable_log_stats": False, "max_model_len": 1024, "max_num_seqs": 32,
    "max_num_batched_tokens": 512, "enable_prefix_caching": False, "seed": SEED,
}  # fmt: skip


def requests() -> list[tuple[float, list[int], int]]:
    """When each request comes, its prompt, and how many tokens it gets."""
    draw, at, made = random.Random(SEED), 0.0, []
    for _ in range(REQUESTS):
        at += draw.expovariate(PER_SECOND)
        prompt = [draw.randrange(100, 40_000) for _ in range(min(700, max(4, int(draw.lognormvariate(3.6, 0.9)))))]
        made.append((at, prompt, draw.randint(2, 60)))
    return made


def burst(model: Path, blocks: int | None) -> None:
    """Runs all requests at once, in this process: all are there before the first step."""
    from vllm import LLM, SamplingParams

    engine = LLM(model=str(model), num_gpu_blocks_override=blocks, **SETTINGS)
    asked = requests()
    params = [SamplingParams(max_tokens=out, ignore_eos=True, temperature=0.0) for _, _, out in asked]
    engine.generate([{"prompt_token_ids": prompt} for _, prompt, _ in asked], params, use_tqdm=False)


async def serve(model: Path) -> list[tuple[int, int]]:
    """Runs the requests as they come, and gives the tokens of each: prompt and output."""
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=str(model), **SETTINGS))

    async def ask(number: int, wait: float, prompt: list[int], out: int) -> tuple[int, int]:
        await asyncio.sleep(wait)
        params = SamplingParams(max_tokens=out, ignore_eos=True, temperature=0.0)
        last: Any = None
        async for output in engine.generate({"prompt_token_ids": prompt}, params, request_id=f"r{number}"):
            last = output
        return len(prompt), len(last.outputs[0].token_ids)

    asked = [ask(number, *request) for number, request in enumerate(requests())]
    counts = await asyncio.gather(*asked)
    engine.shutdown()
    return list(counts)


def told(program: list[str], *arguments: str) -> str:
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join([*program, *arguments])}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def steps_of(recorded: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (recorded / "steps.jsonl").read_text().splitlines()]


def alike(
    name: str, found: Collected, program: list[str], steps: list[dict[str, Any]], folder: Path, arrivals: list[float]
) -> tuple[int, int]:
    """How many of vLLM's steps the simulator forms alike if requests arrive at these times, and how many there are. A step is its tokens and
    its requests. In the simulation each takes `STEP_S` seconds."""
    asked, timeline, scenario = folder / f"{name}.jsonl", folder / f"{name}.timeline.json", folder / f"{name}.ron"
    asked.write_text("".join(json.dumps({**line, "arrival_time": at}) + "\n" for line, at in zip(found.measured, arrivals)))
    scenario.write_text(scenario_of(name, asked, found.settings))
    more = ["--timeline", str(timeline), "--timeline-events", "10000000", "--set", f"hardware.launch.step_us.value={STEP_S * 1e6:.0f}"]
    told(program, "simulate", str(scenario), "--quiet", *more)
    events = [event for event in json.loads(timeline.read_text())["traceEvents"] if event.get("cat") == "pass"]
    simulated = [(event["args"]["tokens"], event["args"]["sequences"]) for event in sorted(events, key=lambda event: event["ts"])]
    wanted = [(sum(count for *_, count in step["requests"]), len(step["requests"])) for step in steps]
    other = next((index for index, (mine, theirs) in enumerate(zip(simulated, wanted)) if mine != theirs), None)
    if other is not None:
        print(f"     the first that differs is step {other}: simulated {simulated[other]}, vLLM {wanted[other]} (tokens, requests)")
    return sum(mine == theirs for mine, theirs in zip(simulated, wanted)), max(len(wanted), len(simulated))


def as_they_came(found: Collected, steps: list[dict[str, Any]]) -> list[float]:
    """Arrivals for steps of `STEP_S` seconds, such that each request is there from the same step on as it was in vLLM."""
    begins = [step["begin_s"] for step in steps]
    first = [bisect.bisect_right(begins, line["queued_ts"]) for line in found.measured]
    return [(step + 0.25) * STEP_S if step else 0.5 * STEP_S for step in first]


def scenario_of(title: str, requests: Path, settings: dict[str, Any]) -> str:
    return (
        f'(title: "{title}", model: "smollm2-135m", hardware: "nvidia-h100-sxm", workload: (file: (path: "{requests}")), {serving_of(settings)} '
        'dispatch: (policy: aligned), seed: 1, variants: [(name: "dense", routes: Method(Dense))])'
    )


def at_once(folder: Path, model: Path, blocks: int | None) -> tuple[Collected, list[dict[str, Any]]]:
    """vLLM with all requests there before its first step."""
    recorded = folder / f"at-once-{blocks or 'all'}"
    environment = {**os.environ, "RADIALSIM_RECORD": str(recorded), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    command = [sys.executable, __file__, "burst", str(model), str(blocks or "")]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"vLLM: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return collect(recorded), steps_of(recorded)


def main() -> None:
    if sys.argv[1] == "burst":
        burst(Path(sys.argv[2]), int(sys.argv[3]) if sys.argv[3] else None)
        return
    gguf, folder, program = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    recorded = folder / "vllm"
    os.environ["RADIALSIM_RECORD"] = str(recorded)
    model = folder_of(gguf, folder / "model")
    counts = asyncio.run(serve(model))

    found = collect(recorded)
    steps = steps_of(recorded)
    routed = sum(len(run.routes) for request in found.requests for run in request.runs)
    checks = {
        f"all {REQUESTS} requests are in the trace": len(found.requests) == REQUESTS,
        "each with the tokens that vLLM gave it": sorted((each.prompt_tokens, each.output_tokens) for each in found.requests)
        == sorted(counts),
        f"{routed} tokens have a route: prompt and output tokens, less the last of each": routed == sum(sum(each) - 1 for each in counts),
        f"{found.steps} steps hold each of them once, but for preemptions": sum(count for step in steps for *_, count in step["requests"])
        == routed
        or any(line["preemptions"] for line in found.measured),
        "every token takes every layer": all(
            len(route) == 30 for request in found.requests for run in request.runs for route in run.routes
        ),
        "steps follow each other": all(before["end_s"] <= after["begin_s"] for before, after in zip(steps, steps[1:])),
    }
    batch = [len(step["requests"]) for step in steps]
    busy = sum(step["end_s"] - step["begin_s"] for step in steps)
    print(
        f"     {found.steps} steps, {busy:.1f} s in them; {sum(batch) / len(batch):.1f} requests in a step on average, {max(batch)} at most"
    )
    print(f"     {serving_of(found.settings)}")
    trace, measured = recorded / "trace.jsonl", recorded / "measured.jsonl"
    checks["radialsim reads the trace"] = f"requests       {REQUESTS}" in told(program, "trace", "stats", str(trace))
    scenario = folder / "vllm.ron"
    scenario.write_text(scenario_of("SmolLM2-135M in vLLM", measured, found.settings))
    table = told(
        program, "validate", "serving", str(scenario), "--measured", str(measured), "--series", str(recorded / "timeseries.csv"), "--quiet"
    )
    print("\n".join("     " + line for line in table.splitlines()))
    checks["radialsim validate serving reads the measured run (of this machine's CPU, beside an H100: no error is stated)"] = (
        "tpot" in table.lower()
    )
    same, every = alike("as-they-came", found, program, steps, folder, as_they_came(found, steps))
    checks[f"as they came: {same} of {every} steps are formed alike, wanted 99 %"] = same >= 0.99 * every
    together, steps = at_once(folder, model, None)
    same, every = alike("at-once", together, program, steps, folder, [0.0] * REQUESTS)
    checks[f"all requests at once: {same} of {every} steps are formed alike, wanted 99 %"] = same >= 0.99 * every
    # Not a check: the simulator lets a preempted sequence come back only when its blocks and one more for each layer are free, vLLM when its
    # tokens fit, so that steps shift.
    together, steps = at_once(folder, model, FEW_BLOCKS)
    same, every = alike("few-blocks", together, program, steps, folder, [0.0] * REQUESTS)
    preempted = sum(line["preemptions"] for line in together.measured)
    print(f"     all requests at once, {FEW_BLOCKS} blocks, {preempted} requests preempted: {same} of {every} steps are formed alike")
    for what, ok in checks.items():
        print(f"{'ok  ' if ok else 'FAIL'} {what}")
    if not all(checks.values()):
        raise SystemExit("not all of these hold")


if __name__ == "__main__":
    main()
