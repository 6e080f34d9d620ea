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


def logarithmic(axis: Any) -> None:
    """Make both scales of ``axis`` logarithmic, with numbers such as 0.05 on them instead of powers."""
    from matplotlib.ticker import LogFormatter

    axis.set_xscale("log")
    axis.set_yscale("log")
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_formatter(LogFormatter())
        one.set_minor_formatter(LogFormatter(minor_thresholds=(1.0, 0.4)))
