"""Settings of the task `rollout`: its family of systems, the length of runs, references and held-out starts."""

from __future__ import annotations

import math
from typing import Literal

from mlopt.core.batch.random import Stream, derive, uniform
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin, setting
from mlopt.optimizers.training.tasks.systems import Case


class RolloutCase(Case):
    """One kind of problem: a system under a potential, from random starts."""

    weight: float = setting(1.0, "share of the problems, relative to the other members", gt=0)
    reference: float | None = setting(
        None, "energy by which losses are divided; none: the best that Adam finds", unit="energy", lt=0
    )


class Truncation(Plugin):
    """The length of the inner runs of an epoch.

    - ``full``: always the horizon.
    - ``grow``: from `shortest` to the horizon, by the same factor in each of `epochs` epochs. So theta learns to
      descend first, and later what needs long runs.
    - ``log-uniform``: drawn between the two in each epoch.
    """

    kind: Literal["full", "grow", "log-uniform"] = setting("full", "full, grow or log-uniform")
    shortest: int = setting(100, "inner steps of the shortest run", ge=1)
    epochs: int = setting(100, "number of epochs in which runs grow", ge=1)

    def steps(self, horizon: int, epoch: int, seed: int) -> int:
        """Return the number of inner steps in that epoch."""
        if self.kind == "full" or self.shortest >= horizon:
            return horizon
        if self.kind == "grow":
            share = min(1.0, epoch / self.epochs)
        else:
            share = float(
                uniform(derive(seed, Stream.LENGTH, epoch)[None], torch.zeros(1, dtype=torch.int64), 1)
            )
        return min(horizon, round(self.shortest * math.exp(share * math.log(horizon / self.shortest))))


class Reference(Plugin):
    """The Adam runs whose best energy counts as -1 (Learn2Hop, section 3.3: 150 starts)."""

    starts: int = setting(150, "number for each member", ge=1)
    steps: int | None = setting(None, "steps of each; none: the horizon", ge=1)
    step_size: float = setting(0.01, "step size of Adam", unit="length", gt=0)


class HeldOut(Plugin):
    """The runs that judge theta during a training and in the end, as in the paper."""

    starts: int = setting(150, "number for each member, outside all epochs", ge=1)
    steps: int | None = setting(None, "steps of each; none: the horizon", ge=1)
    descent: int = setting(1000, "steps of gradient descent afterwards", ge=0)
    step_size: float = setting(1e-3, "step size of that descent", unit="length^2/energy", gt=0)
