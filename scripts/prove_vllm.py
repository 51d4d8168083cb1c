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


async def serve(model: Path) -> list[tuple[int, int]]:
    """Runs the requests as they come, and gives the tokens of each: prompt and output."""
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = AsyncEngineArgs(
        model=str(model), dtype="float32", enforce_eager=True, disable_log_stats=False, max_model_len=1024, max_num_seqs=32,
        max_num_batched_tokens=512, enable_prefix_caching=False, seed=SEED,
    )  # fmt: skip
    engine = AsyncLLM.from_engine_args(arguments)
    draw = random.Random(SEED)

    async def ask(number: int, wait: float, prompt: list[int], out: int) -> tuple[int, int]:
        await asyncio.sleep(wait)
        params = SamplingParams(max_tokens=out, ignore_eos=True, temperature=0.0)
        last: Any = None
        async for output in engine.generate({"prompt_token_ids": prompt}, params, request_id=f"r{number}"):
            last = output
        return len(prompt), len(last.outputs[0].token_ids)

    at, asked = 0.0, []
    for number in range(REQUESTS):
        at += draw.expovariate(PER_SECOND)
        prompt = [draw.randrange(100, 40_000) for _ in range(min(700, max(4, int(draw.lognormvariate(3.6, 0.9)))))]
        asked.append(ask(number, at, prompt, draw.randint(2, 60)))
    counts = await asyncio.gather(*asked)
    engine.shutdown()
    return list(counts)


def told(program: list[str], *arguments: str) -> str:
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join([*program, *arguments])}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def main() -> None:
    gguf, folder, program = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    recorded = folder / "vllm"
    os.environ["RADIALSIM_RECORD"] = str(recorded)
    counts = asyncio.run(serve(folder_of(gguf, folder / "model")))

    from radialsim.serving import collect
    from radialsim.serving.collect import serving_of

    found = collect(recorded)
    steps = [json.loads(line) for line in (recorded / "steps.jsonl").read_text().splitlines()]
    routed = sum(len(run.routes) for request in found.requests for run in request.runs)
    checks = {
        f"all {REQUESTS} requests are in the trace": len(found.requests) == REQUESTS,
        "each with the tokens that vLLM gave it": sorted((each.prompt_tokens, each.output_tokens) for each in found.requests) == sorted(counts),
        f"{routed} tokens have a route: prompt and output tokens, less the last of each": routed == sum(sum(each) - 1 for each in counts),
        f"{found.steps} steps hold each of them once, but for preemptions": sum(count for step in steps for *_, count in step["requests"])
        == routed
        or any(line["preemptions"] for line in found.measured),
        "every token takes every layer": all(len(route) == 30 for request in found.requests for run in request.runs for route in run.routes),
        "steps follow each other": all(before["end_s"] <= after["begin_s"] for before, after in zip(steps, steps[1:])),
    }
    batch = [len(step["requests"]) for step in steps]
    busy = sum(step["end_s"] - step["begin_s"] for step in steps)
    print(f"     {found.steps} steps, {busy:.1f} s in them; {sum(batch) / len(batch):.1f} requests in a step on average, {max(batch)} at most")
    serving = serving_of(found.settings)
    print(f"     {serving}")
    trace, measured = recorded / "trace.jsonl", recorded / "measured.jsonl"
    checks["radialsim reads the trace"] = f"requests       {REQUESTS}" in told(program, "trace", "stats", str(trace))
    scenario = folder / "vllm.ron"
    scenario.write_text(
        '(title: "SmolLM2-135M in vLLM", model: "smollm2-135m", hardware: "nvidia-h100-sxm", '
        f'workload: (file: (path: "{measured}")), {serving} dispatch: (policy: aligned), seed: 1, variants: [(name: "dense", routes: Method(Dense))])'
    )
    table = told(program, "validate", "serving", str(scenario), "--measured", str(measured), "--series", str(recorded / "timeseries.csv"), "--quiet")
    print("\n".join("     " + line for line in table.splitlines()))
    checks["radialsim validate serving reads the measured run (of this machine's CPU, beside an H100: no error is stated)"] = "tpot" in table.lower()
    for what, ok in checks.items():
        print(f"{'ok  ' if ok else 'FAIL'} {what}")
    if not all(checks.values()):
        raise SystemExit("not all of these hold")


if __name__ == "__main__":
    main()
