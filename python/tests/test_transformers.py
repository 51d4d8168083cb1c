"""The recorder on tiny random models of Hugging Face transformers. Skipped where torch or transformers are missing."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import reading

import radialsim
from radialsim import RecordError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 97,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MOE = {"intermediate_size": 48, "moe_intermediate_size": 16, "num_key_value_heads": 2, "num_experts_per_tok": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 48, "num_key_value_heads": 2},
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt_neox": {"intermediate_size": 48},
    "bloom": {"n_layer": 4, "n_head": 4},
    "falcon": {},
    "phi": {"intermediate_size": 48},
    "gemma2": {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8},
    "olmo2": {"intermediate_size": 48, "num_key_value_heads": 2},
    "mixtral": {**MOE, "num_local_experts": 6},
    "qwen3_moe": {**MOE, "num_experts": 6, "head_dim": 8},
    "deepseek_v3": {
        **MOE, "n_routed_experts": 8, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8,
        "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "num_key_value_heads": 4,
    },
}  # fmt: skip


def tiny(family: str) -> Any:
    torch.manual_seed(1)
    names = {"gpt2": ("hidden_size", "num_hidden_layers", "num_attention_heads"), "bloom": ("num_hidden_layers", "num_attention_heads")}
    sizes = {key: value for key, value in SIZES.items() if key not in names.get(family, ())}
    config = transformers.AutoConfig.for_model(family, **sizes, **FAMILIES[family])
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def rows(*tokens: list[int]) -> dict[str, Any]:
    """Rows of tokens, padded on the left."""
    width = max(map(len, tokens))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in tokens])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in tokens])
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs_every_layer(family: str, tmp_path: Path) -> None:
    it, out = tiny(family), tmp_path / "t.jsonl"
    with radialsim.record(it, out, experts=False):
        made = it.generate(**rows([5, 6], [7, 8, 9, 10, 11]), do_sample=False, max_new_tokens=4, min_new_tokens=4)
    assert made.shape == (2, 9)
    assert reading.counts(out) == {0: (2, 4), 1: (5, 4)}
    assert reading.routes(out) == {0: ["0 1 2 3"] * 5, 1: ["0 1 2 3"] * 8}
    assert reading.lines(out)[0]["kv"] == "write"


def test_recording_changes_no_token(tmp_path: Path) -> None:
    it, asked = tiny("llama"), rows([5, 6], [7, 8, 9])
    plain = it.generate(**asked, do_sample=False, max_new_tokens=6)
    with radialsim.record(it, tmp_path / "t.jsonl"):
        recorded = it.generate(**asked, do_sample=False, max_new_tokens=6)
    assert torch.equal(plain, recorded)


def test_rows_that_end_early(tmp_path: Path) -> None:
    it, out, asked = tiny("llama"), tmp_path / "t.jsonl", rows([5, 6, 7], [9, 8])
    free = it.generate(**asked, do_sample=False, max_new_tokens=6, eos_token_id=None)[:, 3:]
    row = next(row for row in range(2) if free[row, 2] not in free[1 - row] and free[row, 2] not in free[row, :2])
    with radialsim.record(it, out):
        it.generate(**asked, do_sample=False, max_new_tokens=6, eos_token_id=int(free[row, 2]))
    prompts = [3, 2]
    assert reading.counts(out) == {request: (prompts[request], 3 if request == row else 6) for request in range(2)}
    assert {request: len(routes) for request, routes in reading.routes(out).items()} == {
        request: prompt + (2 if request == row else 5) for request, prompt in enumerate(prompts)
    }


def test_an_end_of_text_that_is_switched_off_is_none(tmp_path: Path) -> None:
    it, out, asked = tiny("llama"), tmp_path / "t.jsonl", rows([5, 6, 7])
    free = it.generate(**asked, do_sample=False, max_new_tokens=6, eos_token_id=None)
    it.generation_config.eos_token_id = int(free[0, 5])
    with radialsim.record(it, out):
        it.generate(**asked, do_sample=False, max_new_tokens=6, eos_token_id=None)
        it.generate(**asked, do_sample=False, max_new_tokens=6)
    counted = reading.counts(out)
    assert counted[0] == (3, 6) and counted[1][1] <= 3


def test_texts_that_end_a_row_are_refused_in_batches(tmp_path: Path) -> None:
    class Never(transformers.StoppingCriteria):  # type: ignore[misc, name-defined]
        def __call__(self, ids: Any, scores: Any, **kwargs: Any) -> Any:
            return torch.zeros(len(ids), dtype=torch.bool)

    it, stops = tiny("llama"), transformers.StoppingCriteriaList([Never()])
    with pytest.raises(RecordError, match="generate with Never and 2 rows"), radialsim.record(it, tmp_path / "t.jsonl"):
        it.generate(**rows([5, 6], [7, 8]), max_new_tokens=3, stopping_criteria=stops)


@pytest.mark.parametrize("exit_layer", [1, 3])
def test_assistant_early_exit(exit_layer: int, tmp_path: Path) -> None:
    it, out = tiny("llama"), tmp_path / "t.jsonl"
    calls: list[tuple[int, int, int]] = []

    def seen(module: Any, args: Any, kwargs: Any) -> None:
        at = kwargs["position_ids"][0]
        calls.append((module.config.num_hidden_layers, int(at[0]), len(at)))

    handle = it.model.register_forward_pre_hook(seen, with_kwargs=True)
    it.generation_config.assistant_confidence_threshold = 0.0
    with radialsim.record(it, out):
        made = it.generate(**rows([5, 6, 7]), assistant_early_exit=exit_layer, do_sample=False, max_new_tokens=12, eos_token_id=None)
    handle.remove()
    assert made.shape[1] == 15 and reading.counts(out) == {0: (3, 12)}
    full, head = "0 1 2 3", " ".join(map(str, range(exit_layer)))
    found = reading.runs(out)[0]
    # Every pass of the model is in the trace, position by position.
    passes: dict[str, list[int]] = {full: [], head: []}
    for depth, start, count in calls:
        passes[full if depth == 4 else head] += range(start, start + count)
    recorded: dict[str, list[int]] = {full: [], head: []}
    for run in found:
        for index, steps in enumerate(run["routes"]):
            recorded[steps].append(run["start"] + index)
    assert sorted(recorded[full]) == sorted(passes[full]) and sorted(recorded[head]) == sorted(passes[head])
    assert {run.get("role") for run in found} == {None, "recompute", "draft", "verify"}
    starts = [start for depth, start, _ in calls if depth == 4][1:] + [14]
    ends = [run["start"] + sum(run["accepted"]) for run in found if run.get("role") == "verify"]
    assert ends == starts[: len(ends)], "what was accepted is where the next pass starts"


def test_prompt_lookup_has_rounds_without_drafts(tmp_path: Path) -> None:
    it, out = tiny("llama"), tmp_path / "t.jsonl"
    with radialsim.record(it, out):
        made = it.generate(**rows([5, 6, 7, 5, 6, 7, 5, 6]), prompt_lookup_num_tokens=3, do_sample=False, max_new_tokens=9, eos_token_id=96)
    assert reading.counts(out) == {0: (8, made.shape[1] - 8)}
    assert len(reading.routes(out)[0]) == made.shape[1] - 1
    roles = [run.get("role") for run in reading.runs(out)[0]]
    assert "verify" in roles and "draft" not in roles


def test_a_skip_by_hand(tmp_path: Path) -> None:
    """Layers that are called for some positions only: prompts in one call, generated tokens one by one."""
    it, out = tiny("llama"), tmp_path / "t.jsonl"

    def taken(layer: int, position: int) -> bool:
        return (layer * 3 + position) % 4 != 1

    class Some(torch.nn.Module):
        def __init__(self, index: int, block: Any) -> None:
            super().__init__()
            self.index, self.block = index, block

        def forward(self, hidden: Any, position_ids: Any = None, position_embeddings: Any = None, **kwargs: Any) -> Any:
            keep = torch.tensor([taken(self.index, int(position)) for position in position_ids[0]])
            if keep.any():
                kwargs.pop("attention_mask", None)
                turned = tuple(part[:, keep] for part in position_embeddings)
                some = self.block(hidden[:, keep], position_ids=position_ids[:, keep], position_embeddings=turned, **kwargs)
                hidden = hidden.clone()
                hidden[:, keep] = some
            return hidden

    for index in (1, 2):
        it.model.layers[index] = Some(index, it.model.layers[index])
    with radialsim.record(it, out):
        it.generate(**rows([5, 6, 7, 8, 9]), do_sample=False, max_new_tokens=7, eos_token_id=None)
    expected = [" ".join(str(layer) for layer in range(4) if layer in (0, 3) or taken(layer, position)) for position in range(11)]
    assert reading.routes(out) == {0: expected}
    assert reading.lines(out)[0]["kv"] == "none"


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "deepseek_v3"])
def test_experts_are_those_of_the_router(family: str, tmp_path: Path) -> None:
    it, out = tiny(family), tmp_path / "t.jsonl"
    chosen: list[Any] = []
    gates = [module for name, module in it.named_modules() if name.endswith(".gate")]
    asked = rows([5, 6, 7, 8], [9, 10, 11])
    if family == "deepseek_v3":
        handles = [
            gate.register_forward_hook(lambda _m, _a, output: chosen.append(next(part for part in output if part.dtype == torch.int64)))
            for gate in gates
        ]
        with torch.no_grad():
            it(**asked)
        [handle.remove() for handle in handles]
        best = [ids.reshape(2, 4, -1) for ids in chosen]
    else:
        with torch.no_grad():
            logits = it(**asked, output_router_logits=True).router_logits
        best = [layer.softmax(-1).topk(2).indices.reshape(2, 4, -1) for layer in logits]
    with radialsim.record(it, out), torch.no_grad():
        it(**asked)
    first_with_experts = 4 - len(gates)
    for row, columns in ((0, range(4)), (1, range(1, 4))):
        (run,) = reading.runs(out)[row]
        expected = [[[]] * first_with_experts + [layer[row, column].tolist() for layer in best] for column in columns]
        assert run["experts"] == expected


@pytest.mark.parametrize("family", ["llama", "gemma2", "olmo2", "qwen3_moe", "gpt2"])
def test_residual_ratios(family: str, tmp_path: Path) -> None:
    """Against the hidden states that the model gives out, and what its branches gave."""
    it, out, asked = tiny(family), tmp_path / "t.jsonl", rows([5, 6, 7, 8])
    with torch.no_grad():
        stream = it(**asked, output_hidden_states=True).hidden_states
    with radialsim.record(it, out, residuals=True), torch.no_grad():
        it(**asked)
    with (tmp_path / "t.residuals.csv").open() as file:
        found = list(csv.DictReader(file))
    assert len(found) == 4 * 4 and [line["phase"] for line in found] == ["prompt"] * 16
    middle: list[Any] = []
    layers = it.transformer.h if family == "gpt2" else it.model.layers
    norm = {"gemma2": "pre_feedforward_layernorm", "olmo2": "mlp", "gpt2": "ln_2"}.get(family, "post_attention_layernorm")
    handles = [getattr(layer, norm).register_forward_pre_hook(lambda _m, args: middle.append(args[0])) for layer in layers]
    last: list[Any] = []
    handles.append(layers[-1].register_forward_hook(lambda _m, _a, output: last.append(output)))
    with torch.no_grad():
        it(**asked)
    [handle.remove() for handle in handles]
    streams = [*stream[:4], last[0][0] if isinstance(last[0], tuple) else last[0]]
    for line in found:
        layer, position = int(line["layer"]), int(line["position"])
        first, between, end = (part[0, position] for part in (streams[layer], middle[layer], streams[layer + 1]))
        for name, added, before, after in (
            ("attn", between - first, first, between),
            ("ffn", end - between, between, end),
            ("block", end - first, first, end),
        ):
            assert float(line[f"{name}_over_input"]) == pytest.approx(float(added.norm() / before.norm()), rel=1e-4)
            assert float(line[f"{name}_over_output"]) == pytest.approx(float(added.norm() / after.norm()), rel=1e-4)
            assert line[f"{name}_ratio"] == line[f"{name}_over_output"]
        assert float(line["cosine"]) == pytest.approx(float(torch.cosine_similarity(first, end, dim=0)), rel=1e-4)


def test_branches_side_by_side_have_no_ratio_of_their_own(tmp_path: Path) -> None:
    with (
        pytest.raises(RecordError, match="side by side"),
        radialsim.record(tiny("gpt_neox"), tmp_path / "t.jsonl", residuals=True) as rec,
        torch.no_grad(),
    ):
        rec.session.found.model(**rows([5, 6]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_beams": 2}, "beam search"),
        ({"use_cache": False}, "use_cache=False"),
        ({"generation_config": {"num_beams": 3}}, "num_beams=3"),
        ({"guidance_scale": 2.0}, "guidance"),
    ],
)
def test_methods_that_are_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    it = tiny("llama")
    if "generation_config" in options:
        options = {"generation_config": transformers.GenerationConfig(**options["generation_config"])}
    with pytest.raises(RecordError, match=said), radialsim.record(it, tmp_path / "t.jsonl"):
        it.generate(**rows([5, 6]), max_new_tokens=3, **options)
    assert not list(tmp_path.iterdir())


def test_static_caches_sampling_and_several_sequences(tmp_path: Path) -> None:
    it, out = tiny("llama"), tmp_path / "t.jsonl"
    with radialsim.record(it, out):
        it.generate(**rows([5, 6], [7, 8, 9]), do_sample=True, num_return_sequences=2, max_new_tokens=4, eos_token_id=None)
        it.generate(**rows([5, 6], [7, 8, 9]), cache_implementation="static", do_sample=False, max_new_tokens=4, eos_token_id=None)
    assert reading.counts(out) == {0: (2, 4), 1: (2, 4), 2: (3, 4), 3: (3, 4), 4: (2, 4), 5: (3, 4)}


def test_loops_of_ones_own(tmp_path: Path) -> None:
    it, out = tiny("llama"), tmp_path / "t.jsonl"
    with radialsim.record(it, out), torch.no_grad():
        for text in ([5, 6, 7], [8, 9]):
            ids, cache = torch.tensor([text]), transformers.DynamicCache(config=it.config)
            word = "cache" if "cache" in it.model.forward.__code__.co_varnames else "past_key_values"
            for _ in range(4):
                ids = it(ids, **{word: cache}, use_cache=True).logits[:, -1:].argmax(-1)
    assert reading.counts(out) == {0: (3, 4), 1: (2, 4)}
