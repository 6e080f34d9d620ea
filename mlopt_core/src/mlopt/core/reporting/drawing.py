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


def logarithmic(axis: Any, x: bool = True) -> None:
    """Make the scales of ``axis`` logarithmic, with numbers such as 0.05 on them instead of powers.

    x: False to leave the horizontal one as it is.
    """
    from matplotlib.ticker import LogFormatter

    class Numbers(LogFormatter):
        """A formatter that labels the same ticks as its base class, but does not round to one digit."""

        def __call__(self, value: float, place: int | None = None) -> str:
            return f"{value:g}" if super().__call__(value, place) else ""

    axis.set_yscale("log")
    if x:
        axis.set_xscale("log")
    for one in (axis.xaxis, axis.yaxis) if x else (axis.yaxis,):
        one.set_major_formatter(Numbers())
        one.set_minor_formatter(Numbers(minor_thresholds=(1.0, 0.4)))
