"""The time that a search has taken, over all its sittings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any


class SearchClock:
    """Counts seconds from `start` on, and apart from these the seconds that compiling took.

    spent: seconds of the sittings before. compile_s: of all sittings.
    """

    def __init__(self, spent: float = 0.0, compile_s: float = 0.0) -> None:
        self.spent, self.compile_s = spent, compile_s
        self._began: float | None = None

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> SearchClock:
        """As a checkpoint left it; those of older versions do not know what compiling took."""
        return cls(float(meta["seconds"]), float(meta.get("compile_seconds", 0.0)))

    @property
    def meta(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"seconds": self.seconds, "compile_seconds": self.compile_s}

    @property
    def seconds(self) -> float:
        """Spent on the search so far, compiling apart."""
        return self.spent + (0.0 if self._began is None else time.monotonic() - self._began)

    def start(self) -> None:
        """From now on time counts."""
        self._began = time.monotonic()
