"""Reporting: summaries of runs, statistics of searches, and drawings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.reporting.statistics import (
        Estimate,
        SuccessCurve,
        kaplan_meier,
        mean_calls_to_hit,
        wilson,
    )
    from mlopt.core.reporting.summary import Card, Column, Figure, Gallery, Structure, Summary, Table, Value

__all__ = [
    "Card",
    "Column",
    "Estimate",
    "Figure",
    "Gallery",
    "Structure",
    "SuccessCurve",
    "Summary",
    "Table",
    "Value",
    "kaplan_meier",
    "mean_calls_to_hit",
    "wilson",
]

__getattr__ = names_of(
    __name__,
    {
        "statistics": ("Estimate", "SuccessCurve", "kaplan_meier", "mean_calls_to_hit", "wilson"),
        "summary": ("Card", "Column", "Figure", "Gallery", "Structure", "Summary", "Table", "Value"),
    },
)
