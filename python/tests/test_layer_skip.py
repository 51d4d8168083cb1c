"""Loops in the manner of LayerSkip on a tiny Llama: they call embedding and layers themselves, and their tokens are those of the dense model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reading

import radialsim

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)
LAYERS, EXIT = 4, 3


class Loop:
    """Drafts with the first layers, whose states the verifying pass carries on."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        sizes = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        }
        config = transformers.LlamaConfig(vocab_size=97, pad_token_id=0, bos_token_id=1, eos_token_id=None, initializer_range=0.2, **sizes)
        self.model = transformers.LlamaForCausalLM(config).eval()
        self.cache = transformers.DynamicCache(config=config)
        self.word = "cache" if "cache" in self.model.model.layers[0].forward.__code__.co_varnames else "past_key_values"

    def layers(self, hidden: Any, first: int, last: int, start: int) -> Any:
        count = hidden.shape[1]
        positions = torch.arange(start, start + count).unsqueeze(0)
        turned = self.model.model.rotary_emb(hidden, positions)
        mask = torch.full((count, start + count), float("-inf")).triu(start + 1)[None, None]
        for layer in self.model.model.layers[first:last]:
            hidden = layer(
                hidden, attention_mask=mask, position_ids=positions, position_embeddings=turned, use_cache=True, **{self.word: self.cache}
            )
        return hidden

    def best(self, hidden: Any) -> list[int]:
        return self.model.lm_head(self.model.model.norm(hidden))[0].argmax(-1).tolist()

    def run(self, prompt: list[int], new: int, ahead: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Generated tokens, and (drafted, accepted) of each round."""
        ids, at, out, rounds = prompt, 0, [], []
        embed = self.model.model.embed_tokens
        while len(out) < new:
            count = min(ahead, new - len(out) - 1)
            drafts: list[int] = []
            saved: list[Any] = []
            for _ in range(count):
                held = ids if not drafts else drafts[-1:]
                start = at if not drafts else at + len(ids) + len(drafts) - 1
                saved.append(self.layers(embed(torch.tensor([held])), 0, EXIT, start))
                drafts.append(self.best(saved[-1])[-1])
            states = embed(torch.tensor([ids + drafts]))
            rest = states[:, -1:] if drafts else states
            rest = self.layers(rest, 0, EXIT, at + len(ids) + len(drafts) - rest.shape[1])
            whole = self.layers(torch.cat([*saved, rest], 1), EXIT, LAYERS, at)
            said = self.best(whole)[len(ids) - 1 :]
            kept = next((index for index, draft in enumerate(drafts) if draft != said[index]), len(drafts))
            out += said[: kept + 1]
            rounds.append((len(drafts), kept))
            at += len(ids) + kept
            ids = said[kept : kept + 1]
            for layer in self.cache.layers:
                layer.crop(-(layer.get_seq_length() - at)) if layer.get_seq_length() > at else None
        return out, rounds


def test_loops_that_carry_drafts_on(tmp_path: Path) -> None:
    loop, prompt, out = Loop(), [5, 6, 7, 8], tmp_path / "t.jsonl"
    ids = torch.tensor([prompt])
    dense = loop.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20)[0, 4:].tolist()
    with radialsim.record(loop.model, out) as recording, torch.no_grad():
        tokens, rounds = loop.run(prompt, 20, 3)
        recording.end_request(output_tokens=20)
    assert tokens == dense, "the loop computes what the dense model does"
    assert 0 < sum(kept for _, kept in rounds) < sum(drafted for drafted, _ in rounds), "some drafts are right, and some are not"
    full, head, tail = "0 1 2 3", "0 1 2", "3"
    expected: list[tuple[Any, ...]] = [(None, 0, [full] * 4, None)]
    at = 0
    for drafted, kept in rounds:
        begin, held = (4, drafted) if at == 0 else (at, drafted + 1)
        early = drafted - 1 if at == 0 else drafted
        if early:
            expected.append(("draft", begin, [head] * early, None))
        stays = kept + (at > 0)
        if drafted:
            expected.append(("verify", begin, [tail] * (held - 1) + [full], [index < stays for index in range(held)]))
        else:
            expected.append((None, begin, [full], None))
        at = begin + stays
    assert [(run.get("role"), run["start"], run["routes"], run.get("accepted")) for run in reading.runs(out)[0]] == expected
