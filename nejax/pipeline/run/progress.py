"""Progress on standard error: a bar in a terminal, and lines in a file."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

SECONDS = 10.0
"""Between lines."""


def progress_bar(*arguments: Any, **settings: Any) -> tqdm:
    """A bar of tqdm with these arguments; where standard error is no terminal, a line every `SECONDS` instead."""
    return (tqdm if sys.stderr.isatty() else _Lines)(*arguments, **settings)


class _Lines(tqdm):
    """The last line comes at the end, however soon that is."""

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        shown = time.monotonic()

        def show(state: str) -> None:
            nonlocal shown
            if state and time.monotonic() - shown >= SECONDS:
                shown = time.monotonic()
                file.write(f"{state}\n")
                file.flush()

        return show

    def clear(self, nolock: bool = False) -> None:
        """Lines stay."""

    def close(self) -> None:
        """Write the last line, with the rate of the whole."""
        if not self.disable:
            self.fp.write(f"{self.format_meter(**{**self.format_dict, 'rate': None})}\n")
        self.delay = math.inf  # nothing more is to be shown
        super().close()
