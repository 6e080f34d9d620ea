"""The report of a run: one HTML file that explains what came out, made from the files of its run directory alone.

It needs no network and no script (its own policy forbids both), so it can be mailed, archived and opened in ten
years. It can be written at any time, also while the run goes on; what is not there yet is left out.

Invariant: every text that comes from a file passes through ``html.escape``.
"""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

from mlopt.cli.report import presented
from mlopt.cli.report.exhibits import Exhibits
from mlopt.cli.report.markup import details, duration, pairs, table, tiles
from mlopt.cli.report.read import MINIMA_SHOWN, Record, number, read_record
from mlopt.cli.report.search import figures, pictures
from mlopt.cli.report.search.verdict import Outcome, energy, plain, rounded
from mlopt.cli.report.stylesheet import CSS
from mlopt.cli.terminal.output import cells, is_table
from mlopt.core.driver.stop import Reason
from mlopt.core.files import atomic

PICTURES = 6
_REASONS = {reason.name.lower().replace("_", "-"): reason.value for reason in Reason}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
# Shown elsewhere on the page.
_TOLD = (
    "experiment",
    "status",
    "name",
    "headline",
    "units",
    "best_energy",
    "target_energy",
    "starts",
    "hits",
)


def write_report(run_directory: Path, out: Path | None = None) -> Path:
    """Write ``report.html`` into a run directory, or the report to ``out``, and return its path.

    Raises:
        RunDirectoryError: the folder holds nothing of a run.
        MloptError: the page cannot be written.
    """
    folder = Path(run_directory)
    path = out or folder / "report.html"
    atomic.write_text(path, page(read_record(folder)))
    return path


def page(record: Record) -> str:
    """Return the report as HTML."""
    outcome = Outcome.of(record)
    sections = [
        _head(record, outcome),
        _cards(record, outcome),
        _exhibits(record),
        _figure("Energy against force calls", figures.energy_figure(record), _ENERGY),
        _figure("Distribution of minima", figures.distribution_figure(record), _DISTRIBUTION),
        _success(outcome),
        _minima(record),
        _starts(record),
        details("Configuration", f"<pre>{escape(record.config_text)}</pre>" if record.config_text else ""),
        details("Environment", pairs(record.environment)),
        details(
            "All numbers of the run",
            pairs({k: v for k, v in record.summary.items() if k not in _TOLD and not is_table(v)}),
        ),
        _reproduce(record),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(record.name)} – mlopt</title><style>{CSS}</style></head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body></html>\n"
    )


_ENERGY = (
    "Each line is one start: the lowest energy it has met after so many force calls (evaluations of energy and"
    " forces, line searches included). A dot is where it first reached the target."
)
_DISTRIBUTION = (
    "How many starts ended in which minimum: for each, the lowest energy it found. Below the bars, one line for"
    " every energy that occurs."
)


def _head(record: Record, outcome: Outcome) -> str:
    facts = [
        str(record.summary.get("experiment") or record.config.get("experiment") or "run"),
        record.folder,
        f"{record.state}" + (f", {record.status['updated']}" if record.status.get("updated") else ""),
    ]
    parts = [f"<h1>{escape(outcome.sentence)}</h1>", f'<p class="soft">{escape(" · ".join(facts))}</p>']
    if record.partial:
        message = str(record.status.get("message") or "")
        text = {
            "running": "The run goes on: these are the numbers so far.",
            "unknown": "The run has not said how it ended: these are the numbers that it left.",
        }.get(record.state, f"The run ended early ({record.state}): these are the numbers up to then.")
        parts.append(f'<div class="warn">{escape(text)} {escape(message)}</div>')
    if record.notes:
        rows = "".join(f"<li>{escape(note)}</li>" for note in record.notes)
        parts.append(f'<div class="warn">Some files could not be used:<ul>{rows}</ul></div>')
    return "".join(parts)


def _cards(record: Record, outcome: Outcome) -> str:
    """What the run wants to be seen first, else what its starts tell; and the time."""
    shown = record.exhibits or Exhibits()
    first = presented.cards(shown) or _cards_of_starts(record, outcome)
    return tiles(first + _time(record, outcome)) + presented.remarks(shown)


def _time(record: Record, outcome: Outcome) -> list[tuple[str, str, str]]:
    wall = number(record.summary.get("wall_s"))
    if wall is None:
        return []
    speed = f"{rounded(outcome.force_calls / wall)} calls/s" if outcome.force_calls and wall > 0 else ""
    engine, compiling = record.summary.get("engine"), number(record.summary.get("compile_s"))
    parts = (
        speed,
        f"{engine} engine" if engine else "",
        f"compiling: {duration(compiling)} more" if compiling else "",
    )
    note = ", ".join(part for part in parts if part)
    return [("wall time", duration(wall), note)]


def _cards_of_starts(record: Record, outcome: Outcome) -> list[tuple[str, str, str]]:
    cards: list[tuple[str, str, str]] = []
    if outcome.best is not None:
        off = None if record.target is None else outcome.best - record.target
        gap = "" if off is None else "the target" if abs(off) < 5e-7 else f"{off:+.6f} from the target"
        cards.append((f"lowest energy ({record.units})", energy(outcome.best), gap))
    if outcome.n_starts:
        failed = f"{outcome.n_failed} failed (not finite)" if outcome.n_failed else ""
        cards.append(("starts", f"{outcome.n_starts:,}", failed))
    if outcome.rate is not None:
        rate = outcome.rate
        interval = f"{100 * rate.mean:.3g} % [{100 * rate.low:.2g}–{100 * rate.high:.3g}]"
        cards.append(("reached the target", f"{outcome.n_hits} of {outcome.n_starts}", interval))
    if outcome.mean is not None:
        mean = outcome.mean
        if math.isfinite(mean.mean):
            cards.append(
                (
                    "mean calls to first hit",
                    rounded(mean.mean),
                    f"95 %: {rounded(mean.low)}–{rounded(mean.high)}",
                )
            )
        else:
            cards.append(("mean calls to first hit", f"> {rounded(mean.low)}", "95 %, one-sided"))
    if outcome.force_calls is not None:
        cards.append(("force calls in all", rounded(outcome.force_calls), ""))
    if record.n_minima:
        cards.append(("distinct minima", f"{record.n_minima:,}", ""))
    return cards


def _figure(title: str, figure: figures.Figure | None, caption: str, name: str = "") -> str:
    if figure is None:
        return ""
    key = "".join(f'<li><i class="{kind}"></i>{escape(text)}</li>' for kind, text in figure.key)
    remark = f" {escape(figure.remark)}" if figure.remark else ""
    return (
        f'<h2>{escape(title)}</h2><ul class="key">{key}</ul><figure class="{name}">{figure.svg}'
        f"<figcaption>{escape(caption)}{remark}</figcaption></figure>"
    )


def _exhibits(record: Record) -> str:
    """Figures and tables that the run wants to be shown, else all that it has."""
    shown = record.exhibits or Exhibits()
    return presented.figures(shown.figures or record.drawn) + (presented.tables(shown) or _rows(record))


def _rows(record: Record) -> str:
    """Tables of the summary."""
    parts = []
    for value in record.summary.values():
        if is_table(value):
            heads, *rows = cells(value)
            parts.append(table(heads, rows, left=0))
    return "".join(parts)


def _success(outcome: Outcome) -> str:
    if outcome.curve is None or outcome.mean is None:
        return ""
    caption = (
        "Fraction of starts that reached the target within so many force calls (Kaplan–Meier: a start whose budget"
        " ended counts only up to there), with a pointwise 95 % band (Wilson)."
    )
    chart = _figure("Success curve", figures.success_figure(outcome.curve, outcome.mean), caption, "success")
    rows = []
    for share in (0.1, 0.5, 0.9):
        seen = outcome.curve.quantile(share)
        law = -outcome.mean.mean * math.log1p(-share)
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
    mean = outcome.mean
    text = (
        f"Mean force calls to the first hit: {rounded(mean.mean)}, 95 % interval {rounded(mean.low)} to"
        f" {rounded(mean.high)}. It is all calls made before a hit, or without one, divided by the hits: what a hit"
        " costs if starts are run one after the other. The interval (chi-square) takes a hit to be equally likely at"
        " every call; compare the dotted line with the observed one to see whether that holds."
        if math.isfinite(mean.mean)
        else f"No start reached the target. Had the mean been below {rounded(mean.low)} calls, a hit would have been"
        " seen with 95 % probability."
    )
    return f"{chart}<p>{escape(text)}</p>{quantiles if outcome.n_hits else ''}"


def _minima(record: Record) -> str:
    if not record.minima:
        return ""
    shown = pictures.pictured(record.minima, PICTURES)
    cards = "".join(
        f"<figure>{pictures.picture(m, f'Structure of minimum {m.rank}')}"
        f"<figcaption>{m.rank}. <b>{energy(m.energy)}</b><br>"
        f"{escape(' · '.join(filter(None, [_group(m.point_group), _times(m.hits)])))}</figcaption></figure>"
        for m in shown
    )
    gallery = (
        f'{pictures.gradients(shown)}<div class="gallery">{cards}</div>{pictures.legend(shown)}'
        if shown
        else ""
    )
    best = record.minima[0].energy
    rows = []
    for m in record.minima:
        first = [
            f"start {m.start:.0f}" if m.start is not None else "",
            f"{m.calls:,.0f} calls" if m.calls else "",
        ]
        rows.append(
            [
                str(m.rank),
                energy(m.energy),
                f"{m.energy - best:.6f}" if m.energy is not None and best is not None else "–",
                _group(m.point_group) or "–",
                plain(m.hits),
                ", ".join(filter(None, first)) or "–",
                "–" if m.fmax is None else f"{m.fmax:.1e}",
            ]
        )
    heads = [
        "rank",
        f"energy ({record.units})",
        "above the lowest",
        "point group",
        "times found",
        "first found by",
    ]
    # Not every run says who found a minimum, and how well it is converged: no columns of dashes.
    told = [i for i in range(7) if any(row[i] != "–" for row in rows)]
    heads = [[*heads, "largest force"][i] for i in told]
    listed = table(heads, [[row[i] for i in told] for row in rows], left=told.index(5) if 5 in told else -1)
    rest = (
        f" The {MINIMA_SHOWN} lowest of {record.n_minima:,} are shown." if record.n_minima > len(rows) else ""
    )
    return (
        f"<h2>Unique minima</h2>{gallery}{listed}"
        f'<p class="caption">Structures that are equal up to motion, reflection and exchange of like atoms count as'
        f' one.{rest} All are in <a href="results/minima.extxyz">results/minima.extxyz</a>.</p>'
    )


def _starts(record: Record) -> str:
    rows: list[list[str]] = []
    marked: set[int] = set()
    for start in record.starts:
        if start.first_hit is not None:
            marked.add(len(rows))
        rows.append(
            [
                str(start.index),
                energy(start.energy) if start.energy is not None else "not finite",
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
        f"energy ({record.units})",
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


def _reproduce(record: Record) -> str:
    if not record.config_text:
        return ""
    return (
        "<h2>Reproduce</h2><pre><code>mlopt run config.resolved.yaml</code></pre>"
        '<p class="caption">in this folder. The same machine type, torch version and number of threads give the same'
        " numbers bit for bit; others give other roundings, and a search then takes another way.</p>"
    )


def _group(symbol: str) -> str:
    return "" if symbol in ("", "unknown", "None") else symbol


def _times(hits: float | None) -> str:
    return "" if hits is None else f"found {hits:,.0f}×"
