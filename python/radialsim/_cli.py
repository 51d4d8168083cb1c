"""The command-line program: `radialsim`, and `python -m radialsim`."""

from __future__ import annotations

import signal
import sys

from ._built import core


def main() -> None:
    # The program knows no Python: Ctrl-C ends it as it ends any other.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(core.program(["radialsim", *sys.argv[1:]]))
