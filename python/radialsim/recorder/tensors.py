"""Tensors as plain lists. Everything that looks like a tensor will do: it has a `shape` and a `tolist`."""

from __future__ import annotations

from typing import Any

from ..errors import RecordError


def shape(tensor: Any) -> tuple[int, ...]:
    """The lengths of a tensor's dimensions."""
    return tuple(int(length) for length in tensor.shape)


def whole(tensor: Any) -> list[Any]:
    """A tensor as nested lists of numbers."""
    return list(tensor.tolist())


def is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "tolist")


def rows_of(tensor: Any, rows: int) -> list[list[int]] | None:
    """A tensor of whole numbers as `rows` lists: of (rows, n), (1, n) or (n). `None` for any other shape."""
    if not is_tensor(tensor):
        return None
    lengths = shape(tensor)
    if len(lengths) == 1:
        line = [int(value) for value in whole(tensor)]
        return [list(line) for _ in range(rows)]
    if len(lengths) != 2 or lengths[0] not in (1, rows):
        return None
    lines = [[int(value) for value in line] for line in whole(tensor)]
    return lines if len(lines) == rows else [list(lines[0]) for _ in range(rows)]


def integers(tensor: Any) -> bool:
    """Whether a tensor holds whole numbers."""
    return is_tensor(tensor) and ("int" in str(tensor.dtype))


def argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, *names: str) -> Any:
    """An argument of a call by one of its names, else by its place, else `None`."""
    for name in names:
        if kwargs.get(name) is not None:
            return kwargs[name]
    return args[place] if 0 <= place < len(args) else None


def hidden(what: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The hidden states that a module was called with. Raises `RecordError`, naming `what`, where there are none of a known name."""
    found = argument(args, kwargs, 0, "hidden_states", "x", "hidden_state", "inputs", "input")
    if not is_tensor(found) or len(shape(found)) < 2:
        raise RecordError(f"{what}: found no hidden states in its call (neither the first argument nor hidden_states)")
    return found
