"""Pictures by matplotlib, without a screen; the same picture always has the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def pyplot() -> Any:
    """Return ``matplotlib.pyplot``, set up; it is imported here, at the first use, because that is slow."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "mlopt"
    import matplotlib.pyplot as plt

    return plt


def save(figure: Any, file: Path) -> None:
    """Write a figure without the date, and close it."""
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    pyplot().close(figure)
