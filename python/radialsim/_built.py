"""The compiled module, or what says that there is none: the recorder works without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import _core as core
else:
    try:
        from . import _core as core
    except ImportError as missing:
        _missing = missing

        class _Core:
            def __getattr__(self, name: str) -> object:
                raise ImportError(
                    f"radialsim._core, which {name} needs, is not there ({_missing}): install the package with `pip install ./python`,"
                    " which needs Rust. The recorder and traces work without it."
                ) from _missing

        core = _Core()

__all__ = ["core"]
