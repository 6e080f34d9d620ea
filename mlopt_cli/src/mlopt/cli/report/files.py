"""Tolerant reading of a run directory: a missing file is empty, an unreadable one is noted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mlopt.core.files import atomic


def number(value: Any) -> float | None:
    """Return a finite float, or None for anything else (null, NaN, text, booleans)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        # Values read by ASE are NumPy's.
        if isinstance(value, bool) or not hasattr(value, "item") or getattr(value, "ndim", 1) != 0:
            return None
        value = value.item()
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def read_text(path: Path, notes: list[str]) -> str:
    """Return the text of a file, empty if it is missing."""
    try:
        return atomic.read_bytes(path).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        notes.append(f"{path.name}: cannot be read ({error.strerror})")
        return ""


def read_json(path: Path, notes: list[str]) -> Any:
    """Return the content of a JSON file, None if it is missing or damaged."""
    text = read_text(path, notes)
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        notes.append(f"{path.name}: cannot be read ({error})")
        return None


def read_object(path: Path, notes: list[str]) -> dict[str, Any]:
    """Return the object in a JSON file, empty if there is none."""
    value = read_json(path, notes)
    if value is not None and not isinstance(value, dict):
        notes.append(f"{path.name}: holds no object")
    return value if isinstance(value, dict) else {}
