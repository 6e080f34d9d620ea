"""Numbers formatted for people."""

from __future__ import annotations

import math


def rounded(value: float) -> str:
    """Format a number to three digits, with thousands separated.

    >>> "; ".join(rounded(one) for one in (391234.0, 1234.5, 12.345, 0.0, float("inf")))
    '391,000; 1,230; 12.3; 0; ∞'
    """
    if not math.isfinite(value):
        return "∞"
    if value == 0:
        return "0"
    places = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(places, 0) if abs(value) < 100 else 0}f}"


def counted(count: int, one: str, more: str = "") -> str:
    """Format a count with its noun.

    >>> counted(1, "start"), counted(2_000, "start"), counted(2, "minimum", "minima")
    ('1 start', '2,000 starts', '2 minima')
    """
    return f"{count:,} {one if count == 1 else more or one + 's'}"
