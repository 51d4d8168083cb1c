"""Examples in docstrings and in docs/PYTHON.md, run from the root of the repository."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

pytest.importorskip("radialsim._core", reason="the compiled module is not built")

ROOT = Path(__file__).parent.parent.parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", ["radialsim", "radialsim.scenario", "radialsim.simulator"])
def test_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert found.attempted and not found.failed


def test_the_page() -> None:
    found = doctest.testfile(str(ROOT / "docs" / "PYTHON.md"), module_relative=False, optionflags=FLAGS, encoding="utf-8")
    assert found.attempted > 10 and not found.failed
