"""The report of a run: one HTML file about its outcome, made from the files of its run directory alone.

It needs no network and no script (its own policy forbids both), so it can be mailed, archived and opened in ten years.
It can be written at any time, also during the run; missing parts are left out. Its sections follow from the files that
exist, so every kind of run gets the same page.

Invariant: every text that comes from a file passes through ``html.escape``.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from mlopt.cli.report import balls, presented
from mlopt.cli.report.exhibits import Exhibits
from mlopt.cli.report.files import number
from mlopt.cli.report.markup import details, duration, energy, pairs, plain, table, tiles
from mlopt.cli.report.minima import MINIMA_SHOWN
from mlopt.cli.report.read import Record, read_record
from mlopt.cli.report.search import sections
from mlopt.cli.report.stylesheet import CSS
from mlopt.cli.terminal.output import cells, is_table
from mlopt.core.files import atomic
from mlopt.core.reporting.spelling import rounded
from mlopt.optimizers.experiments.search.verdict import Verdict

PICTURES = 6
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
# Shown elsewhere on the page.
_TOLD = ("experiment", "status", "name", "headline", "units")


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
    parts = [
        _head(record),
        _cards(record),
        _exhibits(record),
        sections.drawn(record.starts, record.units),
        _minima(record),
        sections.listed(record.starts, record.units),
        details("Configuration", f"<pre>{escape(record.config_text)}</pre>" if record.config_text else ""),
        details("Environment", pairs(record.environment)),
        details(
            "All numbers of the run",
            pairs({k: v for k, v in record.summary.items() if k not in _TOLD and not is_table(v)}),
        ),
        _reproduce(record),
    ]
    title = f"<title>{escape(record.name)} – mlopt</title>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{title}<style>{CSS}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _head(record: Record) -> str:
    facts = [
        str(record.summary.get("experiment") or record.config.get("experiment") or "run"),
        record.folder,
        f"{record.state}" + (f", {record.status['updated']}" if record.status.get("updated") else ""),
    ]
    parts = [
        f"<h1>{escape(f'{record.name}: {_headline(record)}')}</h1>",
        f'<p class="soft">{escape(" · ".join(facts))}</p>',
    ]
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


def _verdict(record: Record) -> Verdict | None:
    return sections.verdict(record.starts, record.summary, record.unit, record.n_minima)


def _headline(record: Record) -> str:
    """Return the outcome that the run gives, or one from its starts, or else its state."""
    told = record.summary.get("headline")
    if told:
        return str(told)
    verdict = _verdict(record)
    if verdict is not None:
        return verdict.headline
    return "no results yet" if record.partial else record.state


def _cards(record: Record) -> str:
    """Return the cards of the run, else those of its starts, and the card of the time."""
    shown = record.exhibits
    verdict = None if shown.cards else _verdict(record)
    if verdict is not None:
        shown = Exhibits(tuple(verdict.cards))
    return tiles(presented.cards(shown) + _time(record)) + presented.remarks(record.exhibits)


def _time(record: Record) -> list[tuple[str, str, str]]:
    wall, calls, compiling = (
        number(record.summary.get(name)) for name in ("wall_s", "force_calls", "compile_s")
    )
    if wall is None:
        return []
    engine = record.summary.get("engine")
    parts = (
        f"{rounded(calls / wall)} calls/s" if calls and wall > 0 else "",
        f"{engine} engine" if engine else "",
        f"compiling: {duration(compiling)} more" if compiling else "",
    )
    note = ", ".join(part for part in parts if part)
    return [("wall time", duration(wall), note)]


def _exhibits(record: Record) -> str:
    """Return the figures and tables that the run names, else all that it has."""
    shown = record.exhibits
    return presented.figures(shown.figures or record.drawn) + (presented.tables(shown) or _rows(record))


def _rows(record: Record) -> str:
    """Return the tables of the summary."""
    parts = []
    for value in record.summary.values():
        if is_table(value):
            heads, *rows = cells(value)
            parts.append(table(heads, rows, left=0))
    return "".join(parts)


def _minima(record: Record) -> str:
    if not record.minima:
        return ""
    shown = balls.pictured(record.minima, PICTURES)
    cards = "".join(
        f"<figure>{balls.picture(m, f'Structure of minimum {m.rank}')}"
        f"<figcaption>{m.rank}. <b>{energy(m.energy)}</b><br>"
        f"{escape(' · '.join(filter(None, [_group(m.point_group), _times(m.hits)])))}</figcaption></figure>"
        for m in shown
    )
    gallery = (
        f'{balls.gradients(shown)}<div class="gallery">{cards}</div>{balls.legend(shown)}' if shown else ""
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
