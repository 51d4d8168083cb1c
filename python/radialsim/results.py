"""What comes out: rows for tables of any library, and the results of a scenario."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._built import core

if TYPE_CHECKING:
    import pandas
    import polars

    from ._core import Outcome

Cell = bool | int | float | str | None


class Rows:
    """Rows with the same columns or some of them. pandas, Polars, PyArrow and DuckDB take them as they are (`__arrow_c_stream__`)."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._rows)

    def columns(self) -> dict[str, list[Cell]]:
        """The columns, in the order in which rows name them; `None` where a row lacks one."""
        flat = [dict(_leaves(row)) for row in self._rows]
        names = list(dict.fromkeys(name for row in flat for name in row))
        return {name: [row.get(name) for row in flat] for name in names}

    def to_pandas(self) -> pandas.DataFrame:
        """As a `pandas.DataFrame`."""
        import pandas

        return pandas.DataFrame(self.columns())

    def to_polars(self) -> polars.DataFrame:
        """As a `polars.DataFrame`."""
        import polars

        return polars.DataFrame(self.columns(), strict=False)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """As an Arrow stream: https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html."""
        return core.arrow_stream(list(self.columns().items()))


def _leaves(row: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Cell]]:
    """Numbers and texts under their paths: `ttft_s.p50`. Lists are left out."""
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        elif not isinstance(value, list):
            yield f"{path}{key}", value


class Variant(Mapping[str, Any]):
    """The numbers of a variant, by the keys of `docs/METRICS.md`: `variant["ttft_s"]["p50"]`, or `variant["ttft_s.p50"]`."""

    def __init__(self, numbers: Mapping[str, Any]) -> None:
        self._numbers = numbers

    @property
    def name(self) -> str:
        """Name of the row."""
        return str(self._numbers["name"])

    def __getitem__(self, path: str) -> Any:
        if path in self._numbers:
            return self._numbers[path]
        place: Any = self._numbers
        for key in path.split("."):
            if not isinstance(place, Mapping) or key not in place:
                raise KeyError(path)
            place = place[key]
        return place

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        return f"<Variant {self.name!r}: {self['pass_time_s']:.4g} s, {self['output_tokens_per_s']:.4g} tokens/s>"


class Results(Rows):
    """What came out of a scenario: `print` it for the screen of `radialsim simulate`; in a notebook it shows itself."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._dict: dict[str, Any] = json.loads(outcome.json())
        #: In the order of the scenario; savings are against the first.
        self.variants = [Variant(numbers) for numbers in self._dict["variants"]]
        super().__init__(self.variants)

    @property
    def title(self) -> str:
        """Title of the scenario."""
        return str(self.variants[0]["scenario"])

    @property
    def assumed(self) -> list[dict[str, Any]]:
        """Constants and choices that these results rest on and that nobody measured: `key`, `value`, `why`."""
        return list(self._dict["assumed"])

    def __getitem__(self, index: Any) -> Any:
        """A variant, by its place or its name."""
        if isinstance(index, str):
            found = [variant for variant in self.variants if variant.name == index]
            if not found:
                raise KeyError(f"{index!r} is none of {[variant.name for variant in self.variants]}")
            return found[0]
        return self.variants[index]

    def verdict(self) -> list[str]:
        """What it comes to, in sentences: what the best routed variant saves against the first and against static depth, with its error, and why."""
        return self._outcome.answer()

    def to_dict(self) -> dict[str, Any]:
        """What `radialsim simulate --json` writes."""
        return json.loads(self._outcome.json())  # type: ignore[no-any-return]

    def timeline(self, path: str | os.PathLike[str], *, kernels: int = 200_000) -> list[str]:
        """Runs again and writes every kernel, for ui.perfetto.dev, at most `kernels`. Returns the variants whose timelines end early."""
        return self._outcome.timeline(os.fspath(path), kernels)

    def full(self) -> str:
        """Every table of `radialsim simulate --full`."""
        return self._outcome.table(True)

    def __str__(self) -> str:
        return self._outcome.table(False)

    def __repr__(self) -> str:
        return f"<Results {self.title!r}: {len(self)} variants>"

    def _repr_html_(self) -> str:
        says = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.verdict())
        style = ".radialsim .unseen{position:absolute;left:-99em}.radialsim caption{text-align:left}"
        return f'<div class="radialsim"><style>{style}</style><ul>{says}</ul>{self._outcome.html()}</div>'
