"""The pieces of a report's page: tiles, tables, foldable parts. Invariant: every text is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def tiles(items: Sequence[tuple[str, str, str]]) -> str:
    """Return the cards at the top of a page, each a label, a value and a few words below it."""
    inside = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}{f'<small>{escape(note)}</small>' if note else ''}</dd></div>"
        for name, value, note in items
    )
    return f'<dl class="tiles">{inside}</dl>' if inside else ""


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: int | Sequence[int],
    marked: set[int] | None = None,
) -> str:
    """Return a table in a box that scrolls by itself; columns ``left`` hold text, rows ``marked`` get a bar."""
    texts = (left,) if isinstance(left, int) else left
    align = [' class="left"' if i in texts else "" for i in range(len(heads))]
    top = "".join(f"<th{a}>{escape(head)}</th>" for a, head in zip(align, heads, strict=True))
    body = "".join(
        ('<tr class="reached">' if marked and i in marked else "<tr>")
        + "".join(f"<td{a}>{escape(cell)}</td>" for a, cell in zip(align, row, strict=True))
        + "</tr>"
        for i, row in enumerate(rows)
    )
    # A box that scrolls can be reached by the keyboard.
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def details(title: str, inside: str) -> str:
    """Return a part that opens at a click, or nothing for empty content."""
    return f"<details><summary>{escape(title)}</summary>{inside}</details>" if inside else ""


def pairs(values: Mapping[str, Any]) -> str:
    """Return a table of names and values, those of inner mappings with dots between the names."""
    rows = "".join(
        f'<tr><td class="left">{escape(key)}</td><td class="left wrap">{escape(text)}</td></tr>'
        for key, text in _flat(values, "")
    )
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>' if rows else ""


def _flat(value: Any, prefix: str) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [
            pair
            for key, inner in value.items()
            for pair in _flat(inner, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, "–" if value is None else str(value))]


def duration(seconds: float) -> str:
    """Spell a time."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def energy(value: float | None) -> str:
    """Spell an energy: six decimals, as reference tables do."""
    return "–" if value is None else f"{value:.6f}"


def plain(value: float | None) -> str:
    """Spell a count, or a dash."""
    return "–" if value is None else f"{value:,.0f}"
