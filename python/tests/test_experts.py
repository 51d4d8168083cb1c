"""Experts of each token, from what gates give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reading
from stand_ins import Array, Block, Cache, Model, Module, ints, states

import radialsim
from radialsim import RecordError
from radialsim.recorder.experts import chosen


def model(layers: int = 4, **config: Any) -> Model:
    return Model([Block() for _ in range(layers)], **config)


def prompt(*rows: list[int]) -> dict[str, Any]:
    """Rows of tokens and their mask; 0 is padding."""
    return {"input_ids": ints(list(rows)), "attention_mask": ints([[int(token != 0) for token in row] for row in rows])}


def test_experts_of_gates(tmp_path: Path) -> None:
    class Gate(Module):
        def forward(self, hidden: Any) -> Any:
            return states(6, 4), states(6, 2), ints([[index, (index + self.layer) % 4] for index in range(6)])  # type: ignore[attr-defined]

    class Moe(Module):
        def forward(self, hidden: Any) -> Any:
            self.gate(hidden)  # type: ignore[attr-defined]
            return hidden

    def layer(index: int) -> Block:
        block = Block()
        if index:
            block.mlp = Moe(gate=Gate(layer=index), experts=Module())  # type: ignore[attr-defined]
        return block

    it, out = Model([layer(index) for index in range(3)]), tmp_path / "t.jsonl"
    with radialsim.record(it, out):
        it(**prompt([0, 5, 6], [7, 8, 9]))
    experts = {line["request"]: line["experts"] for line in reading.lines(out) if line["type"] == "tokens"}
    assert experts[0] == [[[], [1, 2], [1, 3]], [[], [2, 3], [2, 0]]]
    assert experts[1] == [[[], [index, (index + 1) % 4], [index, (index + 2) % 4]] for index in (3, 4, 5)]
    with radialsim.record(it, out, experts=False):
        it(**prompt([0, 5, 6], [7, 8, 9]))
    assert all("experts" not in line for line in reading.lines(out))


def test_experts_that_are_not_seen_are_said_to_be_missing(tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    for count, said in ((1, False), (8, True)):
        it = model(num_experts=count)
        with radialsim.record(it, out):
            it(**prompt([5, 6]), cache=Cache())
        assert ("experts tokens took is not recorded" in reading.lines(out)[0]["source"]) == said


def test_gates_that_give_scores_are_taken_at_their_best() -> None:
    class Scores(Array):
        def topk(self, count: int, dim: int) -> Any:
            best = [sorted(range(len(row)), key=lambda expert: -row[expert])[:count] for row in self.values]
            return type("Best", (), {"indices": ints(best)})

    config = type("Config", (), {"num_experts_per_tok": 2})
    scores = Scores([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]])
    assert chosen("gate", object(), config, scores, 2) == [(1, 2), (0, 2)]
    for gate, settings, said in (
        (type("Gate", (), {"e_score_correction_bias": 0}), config, "chosen with e_score_correction_bias"),
        (object(), type("Config", (), {"num_experts_per_tok": 2, "n_group": 4}), "n_group = 4"),
        (object(), object(), "how many experts a token takes is not known"),
    ):
        with pytest.raises(RecordError, match=said):
            chosen("gate", gate, settings, scores, 2)
    with pytest.raises(RecordError, match="expected a row for each of 3 tokens"):
        chosen("gate", object(), config, scores, 3)
