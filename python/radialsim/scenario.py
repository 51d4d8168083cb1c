"""Scenarios as objects. Their keys are those of `docs/SCENARIOS.md`; what stands under each is a dict."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ._built import core
from .errors import InputError


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What to compare: a model, a device, who arrives, how batches form, and the variants.

    Keys that are `None` are left to their defaults. Words of RON are strings here, and what has a value is a dict with one key:
    `Method(Dense)` is `{"Method": "Dense"}`.

    >>> scenario = Scenario.load("examples/smollm2-skip25-h100.ron")
    >>> scenario.hardware
    'nvidia-h100-sxm'
    >>> Scenario.from_ron(scenario.to_ron()) == scenario
    True
    >>> scenario.replace(seed=7).seed
    7
    """

    title: str
    model: str
    hardware: str
    workload: Mapping[str, Any]
    serving: Mapping[str, Any]
    dispatch: Mapping[str, Any]
    seed: int
    variants: Sequence[Mapping[str, Any]]
    formats: Mapping[str, Any] | None = None
    engine: str | None = None
    tiers: Mapping[str, Any] | None = None
    limits: Mapping[str, Any] | None = None
    parallel: Mapping[str, Any] | None = None
    experts: Mapping[str, Any] | None = None
    fidelity: str | None = None
    slo: Mapping[str, Any] | None = None
    warm_up: Any = None
    seeds: int = 1
    #: Where relative paths start from; empty: the working folder. No key of the file.
    folder: str = field(default="", compare=False)

    @classmethod
    def from_dict(cls, keys: Mapping[str, Any], *, folder: str | os.PathLike[str] = "") -> Scenario:
        """Of the keys of a file. Raises `InputError` for what is no scenario, with its key."""
        return cls._of_json(core.scenario_from_ron(core.scenario_to_ron(_json(keys)), ""), folder)

    @classmethod
    def from_ron(cls, text: str, *, folder: str | os.PathLike[str] = "") -> Scenario:
        """Of the text of a file."""
        return cls._of_json(core.scenario_from_ron(text, ""), folder)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Scenario:
        """Of a file; relative paths in it start from its folder."""
        return cls._of_json(core.scenario_from_ron(None, os.fspath(path)), Path(path).parent)

    @classmethod
    def _of_json(cls, text: str, folder: str | os.PathLike[str]) -> Scenario:
        keys = {key: value for key, value in json.loads(text).items() if value is not None}
        return cls(**keys, folder=str(folder))

    def to_dict(self) -> dict[str, Any]:
        """The keys that are set, a copy."""
        keys = {key.name: getattr(self, key.name) for key in fields(self) if key.name != "folder"}
        return copy.deepcopy({key: value for key, value in keys.items() if value is not None})

    def to_ron(self) -> str:
        """The text of a file. Raises `InputError` for what is no scenario, with its key."""
        return core.scenario_to_ron(_json(self.to_dict()))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file. Relative paths in it then start from where it lies."""
        Path(path).write_text(self.to_ron(), encoding="utf-8")

    def replace(self, **keys: Any) -> Scenario:
        """The same scenario with other values of these keys."""
        known = {key.name for key in fields(self)}
        unknown = [key for key in keys if key not in known]
        if unknown:
            said = f"{unknown[0]}: found an unknown key, expected one of {', '.join(sorted(known))}"
            raise InputError(said, key=unknown[0], found="an unknown key", expected=f"one of {', '.join(sorted(known))}")
        return Scenario(**{**self.to_dict(), "folder": self.folder, **keys})


def _json(keys: Mapping[str, Any]) -> str:
    """As JSON; tuples are lists, paths and other mappings are what they are of."""

    def plain(value: object) -> object:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, Mapping):
            return dict(value)
        item = getattr(value, "item", None)
        if callable(item):  # a number of NumPy
            return item()
        raise InputError(f"found {value!r}, expected a number, a text, a list or a dict", found=repr(value))

    return json.dumps(dict(keys), default=plain)
