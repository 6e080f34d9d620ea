"""The exhibits of a run as HTML: cards, tables, pictures and structures."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from html import escape

from mlopt.cli.report import balls
from mlopt.cli.report.exhibits import Exhibits, Image, Structures
from mlopt.cli.report.markup import table
from mlopt.cli.report.minima import ShownMinimum, minimum_of
from mlopt.core.reporting.spelling import rounded
from mlopt.core.reporting.statistics import Estimate
from mlopt.core.reporting.summary import Card, Column, Table, Value

#: words for no unit
_NO_UNIT = ("", "reduced", "reduced units")
#: pictures of structures in one row, at most
_MOST = 12
#: points; a wider picture is not made as narrow as a phone
_WIDE = 500.0


def cards(shown: Exhibits) -> list[tuple[str, str, str]]:
    """Return the cards of a run: label, value, and a few words."""
    return [_card(card) for card in shown.cards]


def remarks(shown: Exhibits) -> str:
    """Return the remarks of a run, a paragraph each."""
    return "".join(f"<p>{escape(remark)}</p>" for remark in shown.remarks)


def tables(shown: Exhibits) -> str:
    """Return the tables under their titles."""
    return "".join(_table(one) for one in shown.tables)


def figures(shown: Sequence[Image | Structures]) -> str:
    """Return pictures and structures under their titles.

    A picture is an image, so that nothing in its file becomes part of the page.
    """
    galleries = {id(one): _pictured(one) for one in shown if isinstance(one, Structures)}
    everything = [minimum for minima in galleries.values() for minimum in minima]
    parts = [balls.gradients(everything)] if everything else []
    for one in shown:
        parts.append(_image(one) if isinstance(one, Image) else _structures(one, galleries[id(one)]))
    return "".join(parts)


def spelled(value: Value, decimals: int | None = None, unit: str = "") -> str:
    """Format a value for people: separated thousands, six digits, an interval in brackets, the unit behind."""
    text = _spelled(value, decimals)
    known = unit.split(",", maxsplit=1)[0].strip()  # an older file may say ``eV, angstrom``
    return text if value is None or known in _NO_UNIT else f"{text} {known}"


def _spelled(value: Value, decimals: int | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _number(value, decimals)
    if isinstance(value, Estimate):
        if not math.isfinite(value.mean):
            return f"> {_digits(value.low, decimals)}"
        low, high = _digits(value.low, decimals), _digits(value.high, decimals)
        return f"{_digits(value.mean, decimals)} [{low}–{high}]"
    return value


def _number(value: float, decimals: int | None) -> str:
    if not math.isfinite(value):
        return "–"
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    return f"{value:,.0f}" if 1e5 <= abs(value) < 1e12 else f"{value:.6g}"


def _digits(value: float, decimals: int | None) -> str:
    """Format a number with a known interval, to three digits."""
    if not math.isfinite(value):
        return "∞"
    return rounded(value) if decimals is None else f"{value:,.{decimals}f}"


def _card(card: Card) -> tuple[str, str, str]:
    return card.label, spelled(card.value, unit=card.unit), card.note


def _table(shown: Table) -> str:
    heads = [_head(column) for column in shown.columns]
    texts = [
        i for i in range(len(heads)) if all(row[i] is None or isinstance(row[i], str) for row in shown.rows)
    ]
    rows = [
        [spelled(cell, column.decimals) for cell, column in zip(row, shown.columns, strict=True)]
        for row in shown.rows
    ]
    caption = f'<p class="caption">{escape(shown.caption)}</p>' if shown.caption else ""
    return f"<h2>{escape(shown.title)}</h2>{table(heads, rows, left=texts)}{caption}"


def _head(column: Column) -> str:
    return column.title if column.unit in _NO_UNIT else f"{column.title} ({column.unit})"


def _image(shown: Image) -> str:
    data = base64.b64encode(shown.content).decode("ascii")
    caption = f"<figcaption>{escape(shown.caption)}</figcaption>" if shown.caption else ""
    return (
        f'<h2>{escape(shown.title)}</h2><figure class="drawn{_wide(shown)}"><img alt="{escape(shown.title)}" '
        f'src="data:{shown.kind};base64,{data}">{caption}</figure>'
    )


def _pictured(shown: Structures) -> list[ShownMinimum]:
    """Return the structures to draw; none of a gallery that is too large."""
    minima = [minimum_of(atoms, place) for place, atoms in enumerate(shown.atoms[:_MOST])]
    return minima if len(balls.pictured(minima, _MOST)) == len(minima) else []


def _structures(shown: Structures, minima: Sequence[ShownMinimum]) -> str:
    if not minima:
        return ""
    labels = shown.labels[: len(minima)]
    inside = "".join(
        f"<figure>{svg}<figcaption>{escape(label)}</figcaption></figure>"
        for svg, label in zip(balls.pictures_alike(minima, labels), labels, strict=True)
    )
    caption = f'<p class="caption">{escape(shown.caption)}</p>' if shown.caption else ""
    return f'<h2>{escape(shown.title)}</h2><div class="gallery">{inside}</div>{balls.legend(minima)}{caption}'


def _wide(shown: Image) -> str:
    """Return the class of a picture that needs scrolling on a phone, by the picture's own width."""
    found = re.search(rb'<svg[^>]*\swidth="([\d.]+)(?:pt)?"', shown.content[:4096])
    return " wide" if found and float(found[1]) > _WIDE else ""
