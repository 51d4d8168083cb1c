"""The notebook in `examples`, as somebody would run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import radialsim

pytest.importorskip("radialsim._core", reason="the compiled module is not built")

NOTEBOOK = Path(__file__).parent.parent / "examples" / "does-skipping-pay.ipynb"


def text(cell: dict) -> str:
    parts = [output.get("text") or output.get("data", {}).get("text/html") or "" for output in cell["outputs"]]
    return "".join("".join(part) for part in parts)


def test_every_cell_runs_and_says_something(monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(Path(radialsim.__file__).parent.parent))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "<table>" in text(cells[0]) and "Routing may pay: " in text(cells[0])
    assert "It does not beat static depth: " in text(cells[1])
    assert "ideal" in text(cells[2]) and "union" in text(cells[2])
    assert all(f"{batch:>3} sequences" in text(cells[3]) for batch in (1, 4, 16, 64))
    assert "hardware: \"nvidia-l4\"" in text(cells[5]) and "The same on an L4" in text(cells[5])
    assert "12 requests, 1246 tokens" in text(cells[6])


def test_it_is_shipped_without_results() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
