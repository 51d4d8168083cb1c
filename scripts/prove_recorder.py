"""What `scripts/prove-recorder` runs: MODEL.gguf, a folder to write to, and the program radialsim."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import radialsim
import torch
import transformers

QUESTIONS = ["What is the capital of France?", "Write one sentence about the sea at night.", "Name three colours."]
NEW_TOKENS = 24
MODEL = "SmolLM2-135M-Instruct"
# The thresholds of examples/traces/smollm2-skip25.jsonl.
ATTENTION, FEED_FORWARD = 0.125, 0.21
LAYERS = 30


class Proof:
    """Counts what differs."""

    def __init__(self) -> None:
        self.failed = 0

    def holds(self, what: str, ok: bool, but: str = "") -> None:
        print(f"{'ok  ' if ok else 'FAIL'} {what}{'' if ok else ': ' + but}", flush=True)
        self.failed += not ok

    def equal(self, what: str, found: Any, wanted: Any) -> None:
        self.holds(what, found == wanted, f"found {found}, wanted {wanted}"[:600])


def tokens_of(path: Path) -> dict[tuple[int, int], list[str]]:
    """Steps of every token of a trace that has neither drafts nor repeats, by request and position."""
    out: dict[tuple[int, int], list[str]] = {}
    routes: dict[int, list[str]] = {}
    for line in map(json.loads, path.read_text().splitlines()):
        if line["type"] == "route":
            routes[line["id"]] = line["steps"].split()
        elif line["type"] == "tokens":
            for index, route in enumerate(line["routes"]):
                out[line["request"], line["start"] + index] = routes[route]
    return out


def header_of(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text().splitlines()[0])


def counts_of(path: Path) -> list[tuple[int, int]]:
    lines = map(json.loads, path.read_text().splitlines())
    return [(line["prompt_tokens"], line["output_tokens"]) for line in lines if line["type"] == "request"]


def load(gguf: Path) -> tuple[Any, Any]:
    """The model in float32, dequantised, and its tokenizer."""
    model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    return model.eval(), tokenizer


def run(program: list[str], *arguments: str) -> str:
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join([*program, *arguments])}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def simulate(proof: Proof, program: list[str], folder: Path, trace: Path, title: str) -> None:
    """A recorded trace on an H100, dense beside it."""
    scenario = folder / f"{trace.stem}.ron"
    scenario.write_text(
        f'(title: "{title}", model: "smollm2-135m", hardware: "nvidia-h100-sxm", workload: (trace: "{trace}"), '
        "serving: (max_batched_tokens: 2048, max_sequences: 64, chunked_prefill: true), dispatch: (policy: aligned), seed: 1, "
        'variants: [(name: "dense", routes: Method(Dense)), (name: "recorded", routes: Recorded)])'
    )
    told = run(program, "simulate", str(scenario), "--quiet")
    print("\n".join("     " + line for line in told.splitlines()[:18]))
    proof.holds(f"radialsim simulates {trace.name} on an H100", "recorded" in told)


def executed(
    program: list[str], folder: Path, gguf: Path, name: str, prompts: list[list[int]], *options: str
) -> tuple[Path, list[list[int]]]:
    """The executor on the same prompts: its trace, and the tokens that it generated."""
    asked, trace, answers = folder / "prompts.jsonl", folder / f"{name}.executed.jsonl", folder / f"{name}.answers.jsonl"
    asked.write_text("".join(json.dumps({"prompt_ids": prompt}) + "\n" for prompt in prompts))
    files = ["--prompts", str(asked), "--trace", str(trace), "--json", str(answers)]
    run(program, "execute", "--weights", str(gguf), *files, "--max-tokens", str(NEW_TOKENS), "--quiet", *options)
    return trace, [json.loads(line)["greedy_ids"] for line in answers.read_text().splitlines()]


def generated(model: Any, prompts: list[list[int]], batch: bool, **options: Any) -> list[list[int]]:
    """Greedy tokens of each prompt up to its end; prompts in one batch, padded on the left, or one by one."""
    end, width = model.generation_config.eos_token_id, max(map(len, prompts))
    groups = [prompts] if batch else [[prompt] for prompt in prompts]
    out: list[list[int]] = []
    for group in groups:
        width = max(map(len, group))
        ids = torch.tensor([[end] * (width - len(prompt)) + prompt for prompt in group])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in group])
        made = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=NEW_TOKENS, **options)
        for row in made[:, width:].tolist():
            out.append(row[: row.index(end) + 1] if end in row else row)
    return out


def same_trace(proof: Proof, what: str, recorded: Path, expected: Path, keys: tuple[str, ...]) -> None:
    found, wanted = tokens_of(recorded), tokens_of(expected)
    proof.equal(f"{what}: prompt and output tokens of each request", counts_of(recorded), counts_of(expected))
    proof.equal(
        f"{what}: header ({', '.join(keys)})", [header_of(recorded)[key] for key in keys], [header_of(expected)[key] for key in keys]
    )
    proof.holds(f"{what}: the same {len(wanted)} tokens at the same positions", found.keys() == wanted.keys())
    other = [at for at in wanted if found.get(at) != wanted[at]]
    steps = sum(len(route) for route in wanted.values())
    but = f"{len(other)} tokens differ; first {other[:1]}: found {found.get(other[0]) if other else ''}, wanted {wanted[other[0]] if other else ''}"
    proof.holds(f"{what}: all {steps} steps are the same", not other, but)


def skip_by_hand(proof: Proof, program: list[str], folder: Path, gguf: Path, prompts: list[list[int]]) -> None:
    """Two layers dropped, one without feed-forward, one without attention, in a batch with padding."""
    model, _ = load(gguf)
    for index in (9, 10):
        model.model.layers[index].forward = lambda hidden, **_: hidden
    attention_only, feed_forward_only = model.model.layers[13], model.model.layers[19]

    def attend(hidden: Any, **kwargs: Any) -> Any:
        return hidden + attention_only.self_attn(hidden_states=attention_only.input_layernorm(hidden), **kwargs)[0]

    def feed(hidden: Any, **_: Any) -> Any:
        return hidden + feed_forward_only.mlp(feed_forward_only.post_attention_layernorm(hidden))

    attention_only.forward, feed_forward_only.forward = attend, feed
    recorded = folder / "by-hand.jsonl"
    with radialsim.record(model, recorded, name=MODEL):
        tokens = generated(model, prompts, batch=True)
    route = " ".join({13: "13a", 19: "19f"}.get(layer, str(layer)) for layer in range(LAYERS) if layer not in (9, 10))
    trace, wanted = executed(program, folder, gguf, "by-hand", prompts, "--route", route, "--kv", "none")
    proof.equal("a skip by hand: transformers and the executor generate the same tokens", tokens, wanted)
    same_trace(proof, "a skip by hand", recorded, trace, ("layers", "order", "reuse", "kv"))
    simulate(proof, program, folder, recorded, "SmolLM2-135M, two layers and two branches left out by hand")


class Oracle(torch.nn.Module):
    """A layer that computes both branches, and leaves out one whose length is below a share of the stream behind it."""

    def __init__(self, index: int, block: Any) -> None:
        super().__init__()
        self.index, self.block = index, block

    def kept(self, stream: Any, branch: Any, least: float) -> Any:
        ratio = branch.norm(dim=-1) / (stream + branch).norm(dim=-1)
        return (ratio >= least) | (self.index == 0)

    def forward(self, hidden: Any, **kwargs: Any) -> Any:
        block = self.block
        branch = block.self_attn(hidden_states=block.input_layernorm(hidden), **kwargs)[0]
        attention = self.kept(hidden, branch, ATTENTION)
        hidden = torch.where(attention.unsqueeze(-1), hidden + branch, hidden)
        branch = block.mlp(block.post_attention_layernorm(hidden))
        feed_forward = self.kept(hidden, branch, FEED_FORWARD)
        self.taken = attention, feed_forward
        return torch.where(feed_forward.unsqueeze(-1), hidden + branch, hidden)


def skip_by_token(proof: Proof, program: list[str], folder: Path, gguf: Path, prompts: list[list[int]]) -> None:
    """Each token its own route: a threshold decides in transformers, and on its own in the executor."""
    model, _ = load(gguf)
    for index, block in enumerate(model.model.layers):
        model.model.layers[index] = Oracle(index, block)
    recorded = folder / "by-token.jsonl"
    router = {"kind": "oracle_threshold", "attn_threshold": ATTENTION, "ffn_threshold": FEED_FORWARD}
    with radialsim.record(model, recorded, name=MODEL, decide=lambda layer, module, args, output: module.taken, router=router):
        tokens = generated(model, prompts, batch=False)
    trace, wanted = executed(program, folder, gguf, "by-token", prompts, "--oracle", f"{ATTENTION},{FEED_FORWARD}")
    proof.equal("a route for each token: transformers and the executor generate the same tokens", tokens, wanted)
    same_trace(proof, "a route for each token", recorded, trace, ("layers", "order", "reuse", "kv"))
    distinct = len({tuple(route) for route in tokens_of(recorded).values()})
    proof.holds(f"a route for each token: {distinct} different routes", distinct > 100)
    simulate(proof, program, folder, recorded, "SmolLM2-135M, routes by thresholds, recorded under transformers")


def early_exit(proof: Proof, program: list[str], folder: Path, gguf: Path, prompts: list[list[int]]) -> None:
    """Drafts of the first 24 layers, verified by all 30."""
    model, _ = load(gguf)
    dense = generated(model, prompts, batch=False)
    # The cache of transformers holds back drafts that are not sure; here every draft is to run.
    model.generation_config.assistant_confidence_threshold = 0.0
    passes: list[tuple[int, int, int]] = []
    handle = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append(
            (module.config.num_hidden_layers, int(kwargs["position_ids"][0, 0]), kwargs["position_ids"].shape[1])
        ),
        with_kwargs=True,
    )
    recorded = folder / "early-exit.jsonl"
    with radialsim.record(model, recorded, name=MODEL) as recording:
        tokens = generated(model, prompts, batch=False, assistant_early_exit=24)
    handle.remove()
    proof.equal("early exit: the tokens are those of the dense model", tokens, dense)
    runs = [run for request in recording.requests for run in request.runs]
    seen = sum(depth * count for depth, _, count in passes)
    proof.equal("early exit: calls of layers, token by token", sum(len(route) for run in runs for route in run.routes), seen)
    proof.equal("early exit: tokens that count", [request.output_tokens for request in recording.requests], [len(row) for row in tokens])
    drafted = sum(len(run.routes) for run in runs if run.role == "draft")
    verified = [run for run in runs if run.role == "verify"]
    kept = sum(sum(run.accepted or []) for run in verified)
    print(
        f"     {len(verified)} rounds, {drafted} drafts behind prompts, {sum(len(run.routes) for run in verified)} tokens verified, {kept} stayed"
    )
    proof.holds("early exit: there are drafts, and some were accepted", drafted > 0 and kept > len(verified))
    simulate(proof, program, folder, recorded, "SmolLM2-135M, drafts of its first 24 layers")


def residuals(proof: Proof, program: list[str], folder: Path, gguf: Path, prompts: list[list[int]]) -> None:
    """What each branch adds, by both definitions, beside what the executor measures."""
    model, _ = load(gguf)
    recorded = folder / "dense.jsonl"
    with radialsim.record(model, recorded, name=MODEL, residuals=True):
        generated(model, prompts, batch=True)
    ours, theirs = folder / "dense.residuals.csv", folder / "executed.residuals.csv"
    executed(program, folder, gguf, "dense", prompts, "--residuals", str(theirs))
    key = ("prompt", "position", "phase", "layer")
    tables = []
    for path in (ours, theirs):
        with path.open() as file:
            tables.append({tuple(row[name] for name in key): row for row in csv.DictReader(file)})
    found, wanted = tables
    proof.equal("residual ratios: rows, a token and layer each", len(found), len(wanted))
    proof.holds("residual ratios: the same tokens and layers", found.keys() == wanted.keys())
    names = [name for name in next(iter(wanted.values())) if name not in key]
    apart = max(abs(float(found[at][name]) / float(wanted[at][name]) - 1) for at in wanted if at in found for name in names)
    proof.holds(f"residual ratios: {len(names)} of each within 0.1 % of the executor's (furthest {100 * apart:.4f} %)", apart < 1e-3)
    told = run(program, "inspect", "residuals", f"recorded:134515008={ours}", f"executed:134515008={theirs}")
    print("\n".join("     " + line for line in told.splitlines()[:4]))


def experts(proof: Proof, program: list[str], folder: Path) -> None:
    """A tiny random Qwen3-MoE: experts of each token, against its router's scores."""
    torch.manual_seed(7)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = transformers.Qwen3MoeConfig(
        **sizes, num_key_value_heads=2, head_dim=16, num_experts=16, num_experts_per_tok=4, vocab_size=128, eos_token_id=None
    )
    model = transformers.Qwen3MoeForCausalLM(config).eval()
    recorded = folder / "experts.jsonl"
    ids = torch.randint(3, 128, (3, 9))
    with radialsim.record(model, recorded):
        made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
    with torch.no_grad():
        logits = model(made, output_router_logits=True).router_logits
    wanted = [layer.softmax(-1).topk(4).indices.reshape(3, made.shape[1], 4).tolist() for layer in logits]
    found = 0
    other = 0
    for line in map(json.loads, recorded.read_text().splitlines()):
        for index, token in enumerate(line.get("experts", [])):
            at = line["start"] + index
            found += 1
            other += token != [layer[line["request"]][at] for layer in wanted]
    proof.equal("experts: tokens that have theirs", found, 3 * 20)
    proof.equal("experts: tokens whose 4 of 16 experts in 4 layers are not the best of the router's scores", other, 0)
    proof.holds("experts: radialsim reads the trace", "requests       3" in run(program, "trace", "stats", str(recorded)))


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    gguf, folder, program = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    proof = Proof()
    _, tokenizer = load(gguf)
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    prompts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"] for chat in chats]
    print(f"torch {torch.__version__}, transformers {transformers.__version__}; prompts of {[len(prompt) for prompt in prompts]} tokens")
    skip_by_hand(proof, program, folder, gguf, prompts)
    skip_by_token(proof, program, folder, gguf, prompts)
    early_exit(proof, program, folder, gguf, prompts)
    residuals(proof, program, folder, gguf, prompts)
    experts(proof, program, folder)
    if proof.failed:
        raise SystemExit(f"{proof.failed} of these do not hold")


if __name__ == "__main__":
    main()
