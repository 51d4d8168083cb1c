"""What goes wrong, and where. All are `ValueError`s, since all say that an input cannot be used."""

from __future__ import annotations


class InputError(ValueError):
    """A scenario, profile, table or setting that cannot be used. The text says all of it; the parts are attributes, `None` where unknown."""

    def __init__(
        self,
        said: str,
        *,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
        found: str | None = None,
        expected: str | None = None,
    ) -> None:
        super().__init__(said)
        self.file = file
        #: From 1.
        self.line = line
        #: As a path: `variants[2].policy`.
        self.key = key
        self.found = found
        self.expected = expected


class TraceError(ValueError):
    """A trace that could not be read back: the place, what was found, what was expected."""


class RecordError(ValueError):
    """A run that would be recorded wrongly, named, with what to do instead."""
