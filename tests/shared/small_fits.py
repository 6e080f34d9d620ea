"""Small fits to silicon by Stillinger-Weber, and fits that are stopped and resumed, for the tests of `fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlopt.core.plugins import build
from mlopt.core.runs.experiment import Preempted
from mlopt.core.testing.recorder import Recorder, Resumed
from mlopt.optimizers.experiments.fit import Fit
from mlopt.optimizers.experiments.fit.result import FitResult

#: 18 structures of 8 atoms to fit to, and 6 to test on
SILICON: dict[str, Any] = {
    "drawn": {
        "crystal": {"element": "Si", "repeat": [1, 1, 1]},
        "count": 24,
        "labeller": {"name": "potential", "potential": "stillinger-weber"},
    },
    "leave_out": 0.25,
}


def fit_of(config: dict[str, Any]) -> Fit:
    """The experiment of a configuration, on these structures where it names no others."""
    made = build(Fit, {"data": SILICON, **config})
    assert isinstance(made, Fit)
    return made


def in_sittings(experiment: Fit, folder: Path, pauses: int) -> tuple[FitResult, int, list[Any]]:
    """The result of a fit that is stopped after so many looks and resumed, its sittings, and its rows of metrics."""
    recorder, sittings, rows = Recorder(folder, pauses=pauses), 0, list[Any]()
    while True:
        sittings += 1
        try:
            found = experiment.run(recorder)
        except Preempted:
            rows += recorder.metrics
            recorder = Resumed(recorder, pauses=pauses)
        else:
            return found, sittings, [*rows, *recorder.metrics]
