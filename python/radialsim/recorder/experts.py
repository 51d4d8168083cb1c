"""Which experts a token was sent to, from what a gate gave."""

from __future__ import annotations

from typing import Any

from ..errors import RecordError
from . import tensors


def chosen(name: str, module: Any, config: Any, output: Any, tokens: int) -> list[tuple[int, ...]]:
    """The ids that a gate chose for each of `tokens` tokens, in the order in which the gate gives them.

    Gates that give ids are taken at their word. Of those that give one score an expert, the best are taken again; raises
    `RecordError` where scores alone do not say what is chosen, and where the shapes are none of a gate.
    """
    parts = output if isinstance(output, (tuple, list)) else (output,)
    ids = next((part for part in parts if tensors.integers(part)), None)
    if ids is None:
        ids = _best(name, module, config, parts[0])
    lengths = tensors.shape(ids)
    if len(lengths) == 3:
        ids, lengths = ids.reshape(-1, lengths[-1]), (lengths[0] * lengths[1], lengths[2])
    if len(lengths) != 2 or lengths[0] != tokens:
        raise RecordError(f"{name}: found experts of shape {lengths}, expected a row for each of {tokens} tokens")
    return [tuple(int(each) for each in row) for row in tensors.whole(ids)]


def _best(name: str, module: Any, config: Any, scores: Any) -> Any:
    biased = [key for key in ("e_score_correction_bias", "expert_bias", "moe_statics") if hasattr(module, key)]
    groups = getattr(config, "n_group", None) or 1
    if biased or groups > 1:
        why = biased[0] if biased else f"n_group = {groups}"
        raise RecordError(f"{name}: gives scores alone, and experts are chosen with {why} besides: say experts=False")
    count = getattr(module, "top_k", None) or getattr(config, "num_experts_per_tok", None)
    if not count or not tensors.is_tensor(scores) or not hasattr(scores, "topk"):
        raise RecordError(f"{name}: how many experts a token takes is not known: say experts=False")
    return scores.topk(int(count), dim=-1).indices
