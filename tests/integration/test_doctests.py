"""Examples in docstrings (lines that begin with ``>>>``) of all four distributions print what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def modules_with_examples() -> list[str]:
    found = []
    for part in ("core", "potentials", "optimizers", "cli"):
        source = REPOSITORY / f"mlopt_{part}" / "src"
        for path in sorted(source.rglob("*.py")):
            if ">>>" in path.read_text(encoding="utf-8"):
                found.append(".".join(path.relative_to(source).with_suffix("").parts))
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert tried, f"{name}: there is a >>> that is no example"
    assert not failed, "see above"
