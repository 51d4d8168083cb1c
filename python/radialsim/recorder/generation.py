"""Calls of `generate`: what they say of their requests, and which of them cannot be recorded."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import RecordError
from . import tensors
from .pieces import Sequence

# Criteria of transformers that end all rows at once.
_WHOLE_BATCH = ("MaxLengthCriteria", "MaxTimeCriteria")
# Values of an option with which it does nothing.
_OFF = (None, 1, 1.0, False)


@dataclass
class Generation:
    """One call of `generate`, while it runs."""

    speculative: bool
    width: int
    # Tokens that end a row.
    ends: frozenset[int]
    # An option that ends rows otherwise than by a token.
    stops: str | None
    # The attention mask that the caller gave, by row.
    mask: list[list[bool]] | None
    # The rows' requests, and their padding on the left, once the first pass shows them.
    sequences: list[Sequence] = field(default_factory=list[Sequence])
    padding: list[int] = field(default_factory=list[int])
    # Columns of the passes so far, drafts not among them.
    columns: int = 0

    def stop(self, criteria: Any) -> None:
        """What really ends the rows, where transformers says so: its criteria, after all of its defaults."""
        ids = [getattr(each, "eos_token_id", None) for each in criteria]
        self.ends = frozenset(end for each in ids if each is not None for end in _numbers(each))
        others = [each for each, end in zip(criteria, ids) if end is None and type(each).__name__ not in _WHOLE_BATCH]
        self.stops = type(others[0]).__name__ if others else None

    def finish(self, output: Any) -> None:
        """Counts the tokens that each row got: up to its first end of text, which padding may follow."""
        ids = getattr(output, "sequences", output)
        rows = tensors.rows_of(ids, len(self.sequences)) if self.sequences else None
        if rows is None:
            return
        if len(rows) > 1 and self.stops:
            raise RecordError(
                f"generate with {self.stops} and {len(rows)} rows cannot be recorded: where a row ended cannot be told from its padding. Run one text "
                "at a time"
            )
        for sequence, row in zip(self.sequences, rows):
            new = row[self.width :]
            sequence.output_tokens = next((index + 1 for index, token in enumerate(new) if token in self.ends), max(1, len(new)))


def begin(model: Any, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Generation:
    """Reads the arguments of a call of `generate`. Raises `RecordError` for methods that would be recorded wrongly."""
    try:
        bound = inspect.signature(call).bind_partial(*args, **kwargs).arguments
    except TypeError:
        bound = dict(kwargs)
    bound = {**{key: value for key, value in bound.items() if key != "kwargs"}, **dict(bound.get("kwargs", {}))}
    option = _Options(model, bound)
    refuse(option, bound)
    device = getattr(getattr(model, "device", None), "type", "cpu")
    if device != "cpu" and option("cache_implementation") is not None and option("disable_compile") is not True:
        raise RecordError(
            f"generate(cache_implementation={option('cache_implementation')!r}) compiles passes on this device ({device}), and compiled calls pass "
            "hooks by: add disable_compile=True"
        )
    ids = bound.get("inputs") if bound.get("inputs") is not None else bound.get("input_ids")
    width = tensors.shape(ids)[-1] if tensors.is_tensor(ids) else 0
    ends = bound["eos_token_id"] if "eos_token_id" in bound else option("eos_token_id")
    speculative = option("assistant_early_exit") is not None or option("prompt_lookup_num_tokens") is not None
    mask = bound.get("attention_mask")
    lines = tensors.rows_of(mask, tensors.shape(mask)[0]) if tensors.is_tensor(mask) and len(tensors.shape(mask)) == 2 else None
    known = None if lines is None else [[bool(value) for value in line] for line in lines]
    stops = next((name for name in ("stop_strings", "stopping_criteria") if option(name)), None)
    return Generation(speculative, width, frozenset(_numbers(ends)), stops, known)


def _numbers(said: Any) -> list[int]:
    """Whole numbers: none, one, a list or a tensor of them."""
    if tensors.is_tensor(said):
        said = said.reshape(-1).tolist() if hasattr(said, "reshape") else said.tolist()
    return [] if said is None else [int(each) for each in said] if isinstance(said, (list, tuple)) else [int(said)]


class _Options:
    """An option of a generation: what the call says, else its config, else the model's."""

    def __init__(self, model: Any, bound: dict[str, Any]) -> None:
        self.places = [bound, bound.get("generation_config"), getattr(model, "generation_config", None)]

    def __call__(self, name: str) -> Any:
        for place in self.places:
            value = place.get(name) if isinstance(place, dict) else getattr(place, name, None)
            if value is not None:
                return value
        return None


def refuse(option: Callable[[str], Any], bound: dict[str, Any]) -> None:
    """Raises `RecordError` for what a trace cannot say."""
    reasons = {
        "num_beams": "beam search runs several continuations of a text and drops some: no position has one route",
        "num_beam_groups": "beam search runs several continuations of a text and drops some: no position has one route",
        "penalty_alpha": "contrastive search runs several candidates of each token: no position has one route",
        "dola_layers": "DoLa reads the head after several layers, which a route does not say",
        "guidance_scale": "guidance runs every text a second time without its prompt",
        "custom_generate": "what a custom loop does with the passes is not known",
        "constraints": "constraints are met by beam search",
        "force_words_ids": "constraints are met by beam search",
    }
    for name, why in reasons.items():
        if option(name) not in _OFF:
            raise RecordError(f"generate({name}={option(name)!r}) cannot be recorded: {why}")
    if bound.get("assistant_model") is not None:
        raise RecordError(
            "generate(assistant_model=...) cannot be recorded: the drafts of a second model have no place in a trace of this one. "
            "Drafts of the model itself (assistant_early_exit) and of the prompt (prompt_lookup_num_tokens) can"
        )
    if option("use_cache") is False:
        raise RecordError("generate(use_cache=False) cannot be recorded: each pass runs all positions again, and a trace has each once")
