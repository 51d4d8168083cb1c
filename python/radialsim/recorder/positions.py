"""Which position each token of a pass has, and which of its cells are padding."""

from __future__ import annotations

from typing import Any

from ..errors import RecordError
from . import tensors
from .generation import Generation

Positions = list[list["int | None"]]


def of_pass(bound: dict[str, Any], rows: int, columns: int, inside: Generation | None) -> tuple[Positions, list[int]]:
    """Positions of a pass by row and column, `None` for padding; and how many cells of each row were padding so far.

    They come from the two-dimensional attention mask where there is one, else from `position_ids`, else from how much the cache holds.
    Raises `RecordError` where mask and `position_ids` disagree, as they do for texts that are packed into one row.
    """
    given = tensors.rows_of(bound.get("position_ids"), rows)
    if given is not None and any(len(row) != columns for row in given):
        given = None
    mask = _mask(bound.get("attention_mask"), rows, columns)
    held = _held(bound, inside)
    if mask is None and not held and inside is not None and (known := given_mask(inside, rows)) is not None:
        mask = [row + [True] * max(0, columns - len(row)) for row in known]
    if mask is not None:
        past = len(mask[0]) - columns
        positions = [_counted(row, past) for row in mask]
        if given is not None:
            _agree(positions, given)
        return positions, [sum(not real for real in row) for row in mask]
    padding = inside.padding if inside is not None and inside.padding else [0] * rows
    if given is not None:
        return [list(row) for row in given], padding
    return [[held + column - pads for column in range(columns)] for pads in padding], padding


def _mask(mask: Any, rows: int, columns: int) -> list[list[bool]] | None:
    if not tensors.is_tensor(mask) or len(tensors.shape(mask)) != 2 or tensors.shape(mask)[1] < columns:
        return None
    lines = tensors.rows_of(mask, rows)
    return None if lines is None else [[bool(value) for value in line] for line in lines]


def _held(bound: dict[str, Any], inside: Generation | None) -> int:
    """Cells that ran before this pass."""
    at = tensors.rows_of(bound.get("cache_position"), 1)
    if at is not None and at[0]:
        return at[0][0]
    for name in ("cache", "past_key_values"):
        cache = bound.get(name)
        if cache is not None and hasattr(cache, "get_seq_length"):
            try:
                return int(cache.get_seq_length())
            except ValueError:
                break  # layers without attention keep a state, and do not count
        if isinstance(cache, (list, tuple)) and cache:
            return tensors.shape(cache[0][0])[-2]
    return inside.columns if inside is not None else 0


def _counted(mask: list[bool], past: int) -> list[int | None]:
    count = sum(mask[:past])
    positions: list[int | None] = []
    for real in mask[past:]:
        positions.append(count if real else None)
        count += real
    return positions


def _agree(positions: Positions, given: list[list[int]]) -> None:
    for row, (counted, said) in enumerate(zip(positions, given)):
        for ours, theirs in zip(counted, said):
            if ours is not None and ours != theirs:
                raise RecordError(
                    f"row {row} of a pass: position_ids say {theirs}, and {ours} tokens of the attention mask stand before: several texts packed "
                    "into a row, and positions that do not count tokens, cannot be recorded"
                )


def given_mask(inside: Generation, rows: int) -> list[list[bool]] | None:
    """The mask that the caller of `generate` gave, for each row of its passes: a row comes as often as sequences of it are asked for."""
    if inside.mask is None or rows % len(inside.mask):
        return None
    return [row for row in inside.mask for _ in range(rows // len(inside.mask))]


def prompts(inside: Generation, grid: Positions, padding: list[int]) -> list[int]:
    """Tokens of each row's prompt, told from the first pass of a generation."""
    mask = given_mask(inside, len(grid))
    if mask is not None and len(mask[0]) == inside.width:
        return [sum(row) for row in mask]
    if inside.width:
        return [inside.width - pads for pads in padding]
    return [sum(position is not None for position in row) for row in grid]


def of_call(layer: int, lengths: tuple[int, ...], kwargs: dict[str, Any], rows: int, columns: int) -> list[list[int]]:
    """Positions of the tokens of a layer's call that holds fewer than its pass of so many rows and columns."""
    called, held = (1, lengths[0]) if len(lengths) == 2 else lengths[:2]
    given = kwargs.get("position_ids") if kwargs.get("position_ids") is not None else kwargs.get("cache_position")
    lines = tensors.rows_of(given, called)
    if called != rows or lines is None or any(len(line) != held for line in lines):
        raise RecordError(
            f"layer {layer} was called with {lengths[:-1]} of {rows} rows of {columns} tokens, and its position_ids do not say which: run one "
            "text at a time, pass position_ids of the tokens, or say it with decide="
        )
    return lines
