"""Settings of trained potentials between rounds of active learning."""

from __future__ import annotations

from mlopt.core.plugins.plugin import Plugin, setting


class Further(Plugin):
    """Settings for learning new labels, from the present parameters and now and then from scratch."""

    evaluations: int = setting(
        100, "of the loss after each round, for each seed, by the optimizer of the last stage", ge=1
    )
    growth: float = setting(
        1.5,
        "times the labels of the last training from scratch, at which there is another; of `radial` likewise",
        gt=1,
    )
    loss: float = setting(
        10.0, "times the loss of the last training from scratch, above which there is another", gt=1
    )
