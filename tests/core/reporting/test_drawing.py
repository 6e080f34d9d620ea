"""Pictures: numbers on logarithmic scales."""

from __future__ import annotations

from pathlib import Path

from mlopt.core.reporting.drawing import logarithmic, pyplot, save


def test_numbers_of_a_narrow_logarithmic_scale(tmp_path: Path) -> None:
    """They are plain, and no two of them are the same."""
    figure, axis = pyplot().subplots()
    axis.plot([1, 2], [0.0041, 0.0053])
    logarithmic(axis, x=False)
    figure.canvas.draw()
    ticks = [*axis.get_yticklabels(), *axis.get_yticklabels(minor=True)]
    told = [one.get_text() for one in ticks if one.get_text()]
    assert "0.0044" in told and len(told) == len(set(told))
    assert axis.get_xscale() == "linear"
    save(figure, tmp_path / "a.svg")
