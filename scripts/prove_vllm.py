"""What `scripts/prove-recorder vllm` runs: MODEL.gguf, a folder to write to, and the program radialsim. 200 requests of mixed lengths in vLLM."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

REQUESTS, PER_SECOND, SEED = 200, 4.0, 7
# Of 128 tokens: too few for 32 requests that grow, so that some are preempted.
FEW_BLOCKS = 24


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


def passes(timeline: Path) -> list[tuple[int, int]]:
    """Tokens and sequences of each simulated pass, in order."""
    events = json.loads(timeline.read_text())
    events = events["traceEvents"] if isinstance(events, dict) else events
    found = [(event["ts"], event["args"]) for event in events if event.get("cat") == "pass"]
    return [(args["tokens"], args["sequences"]) for _, args in sorted(found, key=lambda each: each[0])]


def same_steps(folder: Path, model: Path, program: list[str], blocks: int | None) -> tuple[int, int, int]:
    """All requests at once, so that steps do not depend on how long they take: how many of vLLM's steps the simulator forms alike, how
    many there are, and how often vLLM preempted. A step is its tokens and its requests."""
    from radialsim.serving import collect
    from radialsim.serving.collect import serving_of

    recorded = folder / f"burst-{blocks or 'all'}"
    environment = {**os.environ, "RADIALSIM_RECORD": str(recorded), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    done = subprocess.run(
        [sys.executable, __file__, "burst", str(model), str(blocks or "")], env=environment, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"vLLM: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    found = collect(recorded)
    asked, timeline, scenario = recorded / "at-once.jsonl", recorded / "timeline.json", recorded / "at-once.ron"
    asked.write_text("".join(json.dumps({**line, "arrival_time": 0.0}) + "\n" for line in found.measured))
    scenario.write_text(
        f'(title: "at once", model: "smollm2-135m", hardware: "nvidia-h100-sxm", workload: (file: (path: "{asked}")), {serving_of(found.settings)} '
        'dispatch: (policy: aligned), seed: 1, variants: [(name: "dense", routes: Method(Dense))])'
    )
    told(program, "simulate", str(scenario), "--quiet", "--timeline", str(timeline), "--timeline-events", "10000000")
    steps = [json.loads(line) for line in (recorded / "steps.jsonl").read_text().splitlines()]
    wanted = [(sum(count for *_, count in step["requests"]), len(step["requests"])) for step in steps]
    simulated = passes(timeline)
    alike = sum(mine == theirs for mine, theirs in zip(simulated, wanted))
    if len(simulated) != len(wanted):
        print(f"     vLLM ran {len(wanted)} steps, the simulator {len(simulated)} passes")
    other = next((index for index, (mine, theirs) in enumerate(zip(simulated, wanted)) if mine != theirs), None)
    if other is not None:
        print(f"     the first that differs is step {other}: simulated {simulated[other]}, vLLM {wanted[other]} (tokens, requests)")
    return alike, max(len(wanted), len(simulated)), sum(line["preemptions"] for line in found.measured)


def main() -> None:
    if sys.argv[1] == "burst":
        burst(Path(sys.argv[2]), int(sys.argv[3]) if sys.argv[3] else None)
        return
    gguf, folder, program = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    recorded = folder / "vllm"
    os.environ["RADIALSIM_RECORD"] = str(recorded)
    model = folder_of(gguf, folder / "model")
    counts = asyncio.run(serve(model))

    from radialsim.serving import collect
    from radialsim.serving.collect import serving_of

    found = collect(recorded)
    steps = [json.loads(line) for line in (recorded / "steps.jsonl").read_text().splitlines()]
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
    serving = serving_of(found.settings)
    print(f"     {serving}")
    trace, measured = recorded / "trace.jsonl", recorded / "measured.jsonl"
    checks["radialsim reads the trace"] = f"requests       {REQUESTS}" in told(program, "trace", "stats", str(trace))
    scenario = folder / "vllm.ron"
    scenario.write_text(
        '(title: "SmolLM2-135M in vLLM", model: "smollm2-135m", hardware: "nvidia-h100-sxm", '
        f'workload: (file: (path: "{measured}")), {serving} dispatch: (policy: aligned), seed: 1, variants: [(name: "dense", routes: Method(Dense))])'
    )
    table = told(
        program, "validate", "serving", str(scenario), "--measured", str(measured), "--series", str(recorded / "timeseries.csv"), "--quiet"
    )
    print("\n".join("     " + line for line in table.splitlines()))
    checks["radialsim validate serving reads the measured run (of this machine's CPU, beside an H100: no error is stated)"] = (
        "tpot" in table.lower()
    )
    for blocks in (None, FEW_BLOCKS):
        alike, steps_all, preempted = same_steps(folder, model, program, blocks)
        what = f"{blocks} blocks" if blocks else "blocks for all"
        checks[f"all requests at once, {what} ({preempted} preemptions): {alike} of {steps_all} steps are formed alike, wanted 99 %"] = (
            alike >= 0.99 * steps_all
        )
    for what, ok in checks.items():
        print(f"{'ok  ' if ok else 'FAIL'} {what}")
    if not all(checks.values()):
        raise SystemExit("not all of these hold")


if __name__ == "__main__":
    main()
