"""Answers of SGLang with their experts."""

from __future__ import annotations

import base64
import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import reading

from radialsim import RecordError
from radialsim.serving import sglang


def answer(prompt: int, output: int, ids: list[int]) -> dict[str, Any]:
    coded = base64.b64encode(struct.pack(f"<{len(ids)}i", *ids)).decode()
    return {"text": "", "meta_info": {"prompt_tokens": prompt, "completion_tokens": output, "routed_experts": coded}}


@pytest.mark.parametrize("seed", range(5))
def test_experts_come_back(seed: int, tmp_path: Path) -> None:
    draw, layers, each = random.Random(seed), 3, 2
    answers, wanted = [], {}
    for number in range(4):
        prompt, output = draw.randint(1, 5), draw.randint(1, 4)
        tokens = [[[draw.randrange(8) for _ in range(each)] for _ in range(layers)] for _ in range(prompt + output - 1)]
        answers.append(answer(prompt, output, [id for token in tokens for layer in token for id in layer]))
        wanted[number] = (prompt, output, [[[] if layer == 0 else ids for layer, ids in enumerate(token)] for token in tokens])
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in answers))
    sglang.main([str(tmp_path / "a.jsonl"), str(tmp_path / "t.jsonl"), "--layers", "3", "--experts", "2", "--dense", "0", "--model", "m"])
    for number, runs in reading.runs(tmp_path / "t.jsonl").items():
        prompt, output, experts = wanted[number]
        assert reading.counts(tmp_path / "t.jsonl")[number] == (prompt, output)
        assert [token for run in runs for token in run["experts"]] == experts


def test_what_is_wrong_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = answer(2, 1, [0] * 12)
    for wrong, said in (
        ({"meta_info": {"prompt_tokens": 2, "completion_tokens": 1}}, "answer 0: meta_info: found no .* ask with return_routed_experts"),
        (answer(2, 2, [0] * 12), "found 48 bytes, expected 72: 2 numbers of 4 bytes in each of 3 layers for 3 tokens"),
        (answer(2, 1, [0] * 11 + [-1]), "found -1, expected ids from 0"),
    ):
        with pytest.raises(RecordError, match=said):
            sglang.requests([wrong], 3, 2)
    with pytest.raises(RecordError, match="dense layers: found .3., expected 0 to 2"):
        sglang.requests([good], 3, 2, dense=[3])
    (tmp_path / "a.jsonl").write_text(json.dumps(good) + "\n{\n")
    with pytest.raises(SystemExit) as left:
        sglang.main([str(tmp_path / "a.jsonl"), str(tmp_path / "t.jsonl"), "--layers", "3", "--experts", "2"])
    assert left.value.code == 2 and "a.jsonl:2: expected an answer" in capsys.readouterr().err
    assert not (tmp_path / "t.jsonl").exists()
