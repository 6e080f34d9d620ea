"""The sections of a report about starts: their energies, where they ended, how many reached the target, and a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from mlopt.cli.report import markup
from mlopt.cli.report.files import number
from mlopt.cli.report.markup import details, plain, table
from mlopt.cli.report.search import figures
from mlopt.cli.report.search.starts import Starts
from mlopt.core.driver.stop import Reason
from mlopt.core.reporting.spelling import rounded
from mlopt.core.reporting.statistics import kaplan_meier, mean_calls_to_hit
from mlopt.optimizers.experiments.search.verdict import Verdict

_REASONS = {reason.name.lower().replace("_", "-"): reason.value for reason in Reason}
_ENERGY = (
    "Each line is one start: the lowest energy it has met after so many force calls (evaluations of energy and"
    " forces, line searches included). A dot is where it first reached the target."
)
_DISTRIBUTION = (
    "How many starts ended in which minimum: for each, the lowest energy it found. Below the bars, one line for"
    " every energy that occurs."
)
_SUCCESS = (
    "Fraction of starts that reached the target within so many force calls (Kaplan–Meier: a start whose budget"
    " ended counts only up to there), with a pointwise 95 % band (Wilson)."
)


def verdict(found: Starts, summary: Mapping[str, Any], unit: str, minima: int) -> Verdict | None:
    """Return the verdict on the starts, for a run of an older version without one; None without starts.

    unit: of energies, empty in reduced units. minima: number of distinct ones.
    """
    if not found.starts:
        return None
    energies = [start.energy for start in found.starts]
    told = [energy for energy in (*energies, number(summary.get("best_energy"))) if energy is not None]
    calls = [start.calls for start in found.starts]
    counts = [sum(calls), number(summary.get("force_calls")) or 0.0]  # that counts the polish as well
    return Verdict(
        energies,
        [start.first_hit for start in found.starts],
        calls,
        min(told, default=None),
        target=found.target,
        failed=sum(start.failed for start in found.starts),
        force_calls=round(max(counts)),
        minima=minima,
        unit=unit,
    )


def drawn(found: Starts, units: str) -> str:
    """Return the figures about starts. units: those of energies, in a word."""
    return (
        _figure("Energy against force calls", figures.energy_figure(found, units), _ENERGY)
        + _figure("Distribution of minima", figures.distribution_figure(found, units), _DISTRIBUTION)
        + _success(found)
    )


def listed(found: Starts, units: str) -> str:
    """Return the table of starts, which opens at a click."""
    rows: list[list[str]] = []
    marked: set[int] = set()
    for start in found.starts:
        if start.first_hit is not None:
            marked.add(len(rows))
        rows.append(
            [
                str(start.index),
                markup.energy(start.energy) if start.energy is not None else "not finite",
                "–" if start.fmax is None else f"{start.fmax:.1e}",
                f"{start.calls:,.0f}",
                plain(start.first_hit),
                plain(start.quenches),
                _REASONS.get(start.reason, start.reason),
            ]
        )
    if not rows:
        return ""
    heads = [
        "start",
        f"energy ({units})",
        "largest force",
        "force calls",
        "first hit",
        "quenches",
        "ended because",
    ]
    note = (
        '<p class="caption">First hit: force calls when the target was first reached. Quenches: local minimisations'
        " that arrived. Energies are those after polishing, where that was done.</p>"
    )
    return details(f"Starts ({len(rows)})", table(heads, rows, left=6, marked=marked) + note)


def _figure(title: str, figure: figures.Figure | None, caption: str, name: str = "") -> str:
    if figure is None:
        return ""
    key = "".join(f'<li><i class="{kind}"></i>{escape(text)}</li>' for kind, text in figure.key)
    remark = f" {escape(figure.remark)}" if figure.remark else ""
    return (
        f'<h2>{escape(title)}</h2><ul class="key">{key}</ul><figure class="{name}">{figure.svg}'
        f"<figcaption>{escape(caption)}{remark}</figcaption></figure>"
    )


def _success(found: Starts) -> str:
    if found.target is None or not found.starts:
        return ""
    hits = [start.first_hit for start in found.starts]
    mean = mean_calls_to_hit(hits, [start.calls for start in found.starts])
    curve = kaplan_meier(hits, [start.watched for start in found.starts])
    chart = _figure("Success curve", figures.success_figure(curve, mean), _SUCCESS, "success")
    if not math.isfinite(mean.mean):
        text = (
            f"No start reached the target. Had the mean been below {rounded(mean.low)} calls, a hit would have been"
            " seen with 95 % probability."
        )
        return f"{chart}<p>{escape(text)}</p>"
    rows = []
    for share in (0.1, 0.5, 0.9):
        seen = curve.quantile(share)
        law = -mean.mean * math.log1p(-share)
        rows.append(
            [
                f"{100 * share:.0f} %",
                f"{seen:,.0f}" if seen is not None else "not reached",
                rounded(law) if math.isfinite(law) else "–",
            ]
        )
    quantiles = table(
        ["starts that hit", "calls needed, observed", "if equally likely at every call"], rows, left=0
    )
    text = (
        f"Mean force calls to the first hit: {rounded(mean.mean)}, 95 % interval {rounded(mean.low)} to"
        f" {rounded(mean.high)}. It is all calls made before a hit, or without one, divided by the hits: what a hit"
        " costs if starts are run one after the other. The interval (chi-square) takes a hit to be equally likely at"
        " every call; compare the dotted line with the observed one to see whether that holds."
    )
    return f"{chart}<p>{escape(text)}</p>{quantiles}"
