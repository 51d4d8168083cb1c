"""The simulator: `simulate`, `sweep`, `fit`, `predict`. They run without holding the interpreter, and Ctrl-C stops them."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._built import core
from .errors import InputError
from .results import Results, Rows
from .scenario import Scenario, _json

PathLike = str | os.PathLike[str]


def simulate(
    scenario: PathLike | Mapping[str, Any] | Scenario,
    *,
    hardware: PathLike | None = None,
    trace: PathLike | None = None,
    set: Mapping[str, Any] | None = None,
    seed: int | None = None,
    seeds: int | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> Results:
    """Simulates a scenario: a row for each variant.

    `scenario`: a file, a text in RON (it begins with `(`), a dict of its keys, or a `Scenario`. `hardware`: a shipped device or a profile
    file; `trace`: a recorded trace; both in place of the scenario's, from the working folder. `set`: keys of the scenario by their paths, as
    `--set`. `threads`: results do not depend on them. `progress`: a bar where tqdm is installed and the run takes longer than a second.

    Raises `InputError`, a `ValueError` with file, line and key, for what cannot be simulated.

    >>> results = simulate("examples/smollm2-skip25-h100.ron", set={"serving.max_sequences": 8})
    >>> [variant.name for variant in results.variants][:2]
    ['dense', 'static, middle dropped']
    >>> results["dense"]["work.mean_depth"]
    30.0
    """
    settings = dict(set or {})
    if hardware is not None:
        settings["hardware"] = _absolute(hardware)
    if trace is not None:
        settings["workload.trace"] = os.path.abspath(trace)
    settings |= {key: value for key, value in (("seed", seed), ("seeds", seeds)) if value is not None}
    words = [f"{key}={_json({'': value})[5:-1]}" for key, value in settings.items()]
    text, path = _source(scenario)
    with _bar("tokens", progress) as tick:
        return Results(core.simulate(text, path, words, _threads(threads), tick))


def sweep(study: PathLike, out: PathLike, *, threads: int | None = None, progress: bool = True) -> Rows:
    """Runs the study in the file `study`, or goes on with it, and writes what `radialsim sweep` does into the folder `out`: its tables and
    `report.html`. Returns its rows: a row for each point and variant."""
    with _bar("points", progress) as tick:
        return Rows(json.loads(core.sweep(os.fspath(study), os.fspath(out), _threads(threads), tick)))


@dataclass(frozen=True)
class Fitted:
    """A fitted profile."""

    #: The profile as a text; `save` writes it.
    profile: str
    #: A row for each operator: the error on families of shapes that no fit has seen, in percent.
    errors: Rows

    def save(self, path: PathLike) -> str:
        """Writes the profile, for `simulate(..., hardware=path)`. Returns the path."""
        Path(path).write_text(self.profile, encoding="utf-8")
        return os.fspath(path)


def fit(
    base: PathLike,
    *,
    data: PathLike | None = None,
    kineto: PathLike | None = None,
    name: str | None = None,
    hold_one_in: int = 4,
    seed: int = 0,
) -> Fitted:
    """Fits the profile `base` (a shipped device or a file) to measured operators: to the tables in the folder `data`, or to a profile of
    PyTorch, `kineto` (`docs/CALIBRATION.md`)."""
    if (data is None) == (kineto is None):
        raise InputError("data, kineto: expected one of them", key="data", expected="one of data and kineto")
    if not 2 <= hold_one_in <= 100:
        raise InputError(f"hold_one_in: found {hold_one_in}, expected 2 to 100", key="hold_one_in", found=str(hold_one_in))
    texts = [None if path is None else os.fspath(path) for path in (data, kineto)]
    profile, errors = core.fit(os.fspath(base), texts[0], texts[1], name, hold_one_in, seed)
    return Fitted(profile, Rows(json.loads(errors)))


def predict(
    hardware: PathLike, operator: str, rows: PathLike | Sequence[Mapping[str, int]], *, format: str | None = None
) -> Rows:
    """What a profile says of calls: `predicted_ms` and `source`, of dicts beside their sizes.

    `operator`: `gemm` (`m`, `n`, `k`), `context_attention` or `generation_attention` (`batch_size`, `isl`, `step`, `num_heads`,
    `num_key_value_heads`, `head_dim`). `rows`: dicts of these, or a table (CSV, Parquet). `format`: `fp8`, `fp8_block`, `nvfp4`; absent:
    16 bits.

    >>> rows = predict("nvidia-h100-sxm", "gemm", [{"m": 64, "n": 4096, "k": 4096}])
    >>> 0.005 < rows[0]["predicted_ms"] < 0.1
    True
    """
    if isinstance(rows, (str, os.PathLike)):
        prices = core.predict(os.fspath(hardware), operator, os.fspath(rows), format or "")
        return Rows([{"predicted_ms": ms, "source": source} for ms, source in prices])
    if not rows:
        return Rows([])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, fieldnames=list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        try:
            prices = core.predict(os.fspath(hardware), operator, str(path), format or "")
        except InputError as error:
            # The table is not the caller's, and its first line has names.
            at = "rows" if error.line is None or error.line < 2 else f"rows[{error.line - 2}]"
            said = str(error).removeprefix(f"{path}:").lstrip("0123456789: ")
            said = f"{at}: {said}" if error.file == str(path) else str(error)
            raise InputError(said, key=error.key, found=error.found, expected=error.expected) from None
    return Rows([{**row, "predicted_ms": ms, "source": source} for row, (ms, source) in zip(rows, prices)])


def _source(scenario: PathLike | Mapping[str, Any] | Scenario) -> tuple[str | None, str]:
    """The text and the folder of a scenario, or no text and the path of a file."""
    if isinstance(scenario, Scenario):
        return scenario.to_ron(), scenario.folder
    if isinstance(scenario, Mapping):
        return core.scenario_to_ron(_json(scenario)), ""
    if isinstance(scenario, str) and scenario.lstrip().startswith(("(", "//", "#![", "/*")):
        return scenario, ""
    return None, os.fspath(scenario)


def _absolute(hardware: PathLike) -> str:
    """A file by its full path, since the scenario's folder is another; names as they are."""
    return os.path.abspath(hardware) if os.path.isfile(hardware) else os.fspath(hardware)


def _threads(threads: int | None) -> int | None:
    if threads is not None and not 1 <= threads <= 1024:
        raise InputError(f"threads: found {threads}, expected 1 to 1024", key="threads", found=str(threads), expected="1 to 1024")
    return threads


@contextmanager
def _bar(unit: str, wanted: bool) -> Iterator[Callable[[int, int], object] | None]:
    """What moves a bar of tqdm on, where that is installed."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        wanted = False
    if not wanted:
        yield None
        return
    with tqdm(unit=unit, delay=1.0, leave=False) as bar:

        def tick(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tick
