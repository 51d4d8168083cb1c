"""Known families, on stand-ins that call things what their repositories call them."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import reading
from stand_ins import Array, Block, Cache, Model, Module, ModuleList, ints, states

import radialsim
from radialsim import RecordError


def test_early_exit_drafts_and_rounds(tmp_path: Path) -> None:
    """The loop of `assistant_early_exit`: drafts run with fewer layers and a cache of their own, inside of `generate`."""
    it, out = Model([Block() for _ in range(4)]), tmp_path / "t.jsonl"
    own, main = Cache(), Cache()

    def drafts(ids: list[int]) -> None:
        it.config.num_hidden_layers = 2
        it.model(input_ids=ints([ids]), cache=own)
        it.config.num_hidden_layers = 4

    def generate(input_ids: Any = None, assistant_early_exit: Any = None, **kwargs: Any) -> Any:
        drafts([5, 6, 7])  # reads the prompt, drafts 11
        drafts([11])  # drafts 12
        it.model(input_ids=ints([[5, 6, 7, 11, 12]]), cache=main)
        main.length = own.length = 4  # 11 stays, 12 does not; 13 is sampled
        drafts([13])  # drafts 14
        it.model(input_ids=ints([[13, 14]]), cache=main)  # both stay, 15 is sampled
        return ints([[5, 6, 7, 11, 13, 14, 15]])

    it.generate = generate  # type: ignore[method-assign]
    with radialsim.record(it, out):
        it.generate(input_ids=ints([[5, 6, 7]]), assistant_early_exit=2)
    runs = [(run.get("role"), run["start"], run["routes"], run.get("accepted")) for run in reading.runs(out)[0]]
    full, head = "0 1 2 3", "0 1"
    assert runs == [
        (None, 0, [full] * 3, None),
        ("recompute", 0, [head] * 3, None),
        ("draft", 3, [head], None),
        ("verify", 3, [full] * 2, [True, False]),
        ("draft", 4, [head], None),
        ("verify", 4, [full] * 2, [True, True]),
    ]
    header = reading.lines(out)[0]
    assert (header["kv"], header["router"]["kind"], header["granularity"]) == ("write", "fixed", "batch")


def layer_skip(it: Model, rounds: list[tuple[list[int], int]], prompt: list[int], exit_layer: int) -> None:
    """Loops like LayerSkip's forward_early and forward_remainder: they call embedding and layers themselves."""
    layers, ids, at = it.model.layers, prompt, 0
    for drafts, kept in rounds:
        for index in range(len(drafts)):
            held = ids if index == 0 else [drafts[index - 1]]
            it.model.embed_tokens(ints([held]))
            start = at if index == 0 else at + len(ids) + index - 1
            for layer in layers[:exit_layer]:
                layer(states(1, len(held), 4), position_ids=ints([list(range(start, start + len(held)))]))
        whole = list(range(at, at + len(ids) + len(drafts)))
        it.model.embed_tokens(ints([ids + drafts]))
        for index, layer in enumerate(layers):
            held = whole[-1:] if index < exit_layer else whole
            layer(states(1, len(held), 4), position_ids=ints([held]))
        at, ids = at + len(ids) + kept, [99]


def test_layer_skip_loops(tmp_path: Path) -> None:
    it, out = Model([Block() for _ in range(4)]), tmp_path / "t.jsonl"
    with radialsim.record(it, out) as rec:
        layer_skip(it, [([11, 12], 1), ([13, 14], 2), ([15], 0)], [5, 6, 7], 3)
        rec.end_request(output_tokens=6)
        layer_skip(it, [([11], 1)], [5, 6], 3)
    first, second = reading.runs(out).values()
    full, head, tail = "0 1 2 3", "0 1 2", "3"
    assert [(run.get("role"), run["start"], run["routes"], run.get("accepted")) for run in first] == [
        (None, 0, [full] * 3, None),
        ("draft", 3, [head], None),
        ("verify", 3, [tail, full], [True, False]),
        ("draft", 4, [head] * 2, None),
        ("verify", 4, [tail, tail, full], [True, True, True]),
        ("draft", 7, [head], None),
        ("verify", 7, [tail, full], [True, False]),
    ]
    assert reading.counts(out) == {0: (3, 6), 1: (2, 1)}
    # Nobody said what came of the drafted token, so that it counts as refused.
    assert [(run.get("role"), run["routes"], run.get("accepted")) for run in second] == [
        (None, [full] * 2, None),
        ("verify", [full], [False]),
    ]


def test_layer_skip_with_several_rows_is_refused(tmp_path: Path) -> None:
    it = Model([Block() for _ in range(2)])
    with pytest.raises(RecordError, match="runs 2 rows"), radialsim.record(it, tmp_path / "t.jsonl"):
        it.model.embed_tokens(ints([[5], [6]]))
        it.model.layers[0](states(2, 1, 4), position_ids=ints([[0]]))


class SkipLayer(Module):
    """SkipGPT's layer: attention and feed-forward run for all; `routing_matrix` has 1 where a token skips."""

    def __init__(self, attention: list[list[float]], mlp: list[list[float]]) -> None:
        router = SimpleNamespace(hidden_layer=SimpleNamespace(out_features=16))
        super().__init__(block=Block(), router_attention=router, router_mlp=router, routing_matrix={"attention": None, "mlp": None})
        self.plan = {"attention": attention, "mlp": mlp}

    def forward(self, hidden: Any, **kwargs: Any) -> Any:
        self.block.self_attn(hidden)  # type: ignore[attr-defined]
        self.block.mlp(hidden)  # type: ignore[attr-defined]
        self.routing_matrix = {name: Array(values) for name, values in self.plan.items()}
        return hidden


def test_skipgpt(tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    layers = [SkipLayer([[0.0, 1.0]], [[0.0, 1.0]]), SkipLayer([[1.0, 0.0]], [[0.0, 1.0]])]
    it = Model(layers)
    with radialsim.record(it, out):
        it(input_ids=ints([[5, 6]]))
    assert reading.routes(out) == {0: ["0 1f", "1a"]}
    header = reading.lines(out)[0]
    assert header["kv"] == "project_only", "attention ran for all tokens, so that all left their keys and values"
    assert header["router"] == {"kind": "mlp", "when": "per_layer", "hidden": 32}
    layers[0].plan["mlp"] = [[0.0]]
    with (
        pytest.raises(RecordError, match="routing_matrix.'mlp'.: found .1, 1., expected one value a token: .1, 2."),
        radialsim.record(it, out),
    ):
        it(input_ids=ints([[5, 6]]))


class Mod(Module):
    """Mixture-of-Depths: scores above (or with) the least of the best run through the block, row by row."""

    def __init__(self, scores: list[list[float]], capacity: float, inclusive: bool, gathered: bool = False) -> None:
        super().__init__(router=Module(), block=Block(), capacity=capacity)
        self.scores, self.inclusive, self.gathered = scores, inclusive, gathered
        self.router.forward = lambda hidden: Array(self.scores)  # type: ignore[attr-defined]

    def taken(self) -> list[list[int]]:
        share = max(1, int(self.capacity * len(self.scores[0])))  # type: ignore[attr-defined]
        out = []
        for row in self.scores:
            least = sorted(row, reverse=True)[share - 1]
            out.append([column for column, score in enumerate(row) if score > least or (self.inclusive and score == least)])
        return out

    def forward(self, hidden: Any, **kwargs: Any) -> Any:
        self.router(hidden)  # type: ignore[attr-defined]
        rows = [row for row in self.taken() if row]
        if self.gathered and rows:
            self.block(states(sum(map(len, rows)), 4))  # type: ignore[attr-defined]
        else:
            for row in rows:
                self.block(states(1, len(row), 4), position_ids=ints([row]))  # type: ignore[attr-defined]
        return hidden


@pytest.mark.parametrize("seed", range(12))
def test_mixture_of_depths(seed: int, tmp_path: Path) -> None:
    draw, out = random.Random(seed), tmp_path / "t.jsonl"
    rows, columns = draw.randint(1, 3), draw.randint(1, 9)
    scores = [draw.sample([index / 10 for index in range(20)], columns) for _ in range(rows)]
    layer = Mod(scores, draw.choice([0.125, 0.5, 0.75]), draw.random() < 0.5, draw.random() < 0.5)
    it = Model([Block(), layer, Block()])
    with radialsim.record(it, out):
        it(input_ids=ints([[5] * columns] * rows))
    expected = {row: ["0 1 2" if column in taken else "0 2" for column in range(columns)] for row, taken in enumerate(layer.taken())}
    assert reading.routes(out) == expected
    header = reading.lines(out)[0]
    assert header["kv"] == "none"
    assert header["router"] == {"kind": "expert_choice", "when": "per_layer", "routed_layers": [1], "capacity": layer.capacity}  # type: ignore[attr-defined]


def test_mixture_of_depths_that_chooses_otherwise_is_refused(tmp_path: Path) -> None:
    layer = Mod([[0.1, 0.2, 0.3, 0.4]], 0.5, True)
    layer.taken = lambda: [[0, 1, 2, 3]]  # type: ignore[method-assign]
    it = Model([Block(), layer])
    with (
        pytest.raises(RecordError, match="called with .4. tokens, but a capacity of 0.5 over 4 tokens"),
        radialsim.record(it, tmp_path / "t.jsonl"),
    ):
        it(input_ids=ints([[5] * 4]))


def dr_llm(decisions: list[int], said: list[int]) -> Model:
    it = Model([Block() for _ in decisions])
    base = it.model
    base.routers = ModuleList([Module(linear1=SimpleNamespace(out_features=128)) for _ in decisions])

    def forward(input_ids: Any = None, **kwargs: Any) -> Any:
        for layer, times in zip(base.layers, decisions):
            for _ in range(times):
                layer(states(1, 2, 4), position_ids=ints([[0, 1]]))
        return SimpleNamespace(decisions=said)

    base.forward = forward
    return it


def test_dr_llm(tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    it = dr_llm([1, 0, 2, 1], [1, 0, 2, 1])
    with radialsim.record(it, out):
        it(input_ids=ints([[5, 6]]))
    assert reading.routes(out) == {0: ["0 2 2 3"] * 2}
    header = reading.lines(out)[0]
    assert header["router"] == {"kind": "mlp", "when": "per_layer", "hidden": 128}
    assert (header["kv"], header["granularity"], header["reuse"]) == ("none", "batch", True)
    it = dr_llm([1, 0, 2, 1], [1, 1, 2, 1])
    with pytest.raises(RecordError, match="layer 1: decisions say 1 calls .*, but it was called 0 times"), radialsim.record(it, out):
        it(input_ids=ints([[5, 6]]))
