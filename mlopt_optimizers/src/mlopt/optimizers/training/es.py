"""Evolution strategies with antithetic pairs, plain and with the meta-loss clipping of Learn2Hop."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.learning import MetaState, Task
from mlopt.optimizers.training.population import (
    Pairs,
    centred_ranks,
    checked,
    finite,
    losses_of,
    noise,
    weighed,
)


class ES(Pairs):
    """Descend along ``mean of (L(theta + e) - L(theta - e)) e / (2 sigma^2)`` (Learn2Hop, eq. 3).

    Sources: Salimans et al., arXiv 1703.03864; Merchant et al., ICML 2021. The estimate is an unbiased gradient of the
    loss smoothed by the perturbation. Both members of a pair meet the same problems; by default each pair meets its
    own, as in the paper, where an epoch has 80 pairs and as many starts. With `common` all pairs meet the same, which
    `fitness: rank` needs to be fair: it puts the place of a loss among all in place of the loss (Wierstra et al., JMLR
    15, 949 (2014)), so that no outlier decides. `problem-rank` does so problem by problem, and takes the mean place:
    then problems whose losses hardly differ count as much as those that are hit or missed.

    Losses that are not finite count as the highest finite one.
    """

    common: bool = setting(False, "whether all pairs meet the same problems")
    fitness: Literal["loss", "rank", "problem-rank"] = setting(
        "loss", "what is compared: losses, their places among all, or places problem by problem"
    )

    @model_validator(mode="after")
    def _fair(self) -> Self:
        if self.fitness == "problem-rank" and not self.common:
            raise ValueError("`fitness: problem-rank` compares losses of one problem; set `common: true`")
        return self

    def advance(self, task: Task, state: MetaState, seed: int = 0) -> tuple[MetaState, dict[str, float]]:
        theta, memory = checked(state.theta), dict(state.memory)
        perturbation = noise(seed, state.epoch, torch.arange(self.pairs), len(theta), self.sigma)
        met = problems_met(self.pairs, task.problems, self.common)
        both = torch.cat([theta + perturbation, theta - perturbation])
        table = finite(losses_of(task, both, torch.cat([met, met]), state.epoch, seed))
        loss = table.mean(1)
        score = loss
        if self.fitness == "rank":
            score = centred_ranks(loss)
        elif self.fitness == "problem-rank":
            score = torch.stack([centred_ranks(column) for column in table.unbind(1)]).mean(0)
        gradient = estimate(score[: self.pairs] - score[self.pairs :], perturbation, self.sigma)
        metrics = {"loss": float(loss.mean()), "gradient": float(gradient.norm())}
        theta = theta + self.outer.change(gradient, memory)
        return MetaState(theta, state.epoch + 1, memory), metrics


class ESMC(Pairs):
    """ES whose losses are clipped at that of theta itself, problem by problem (Learn2Hop, eq. 4).

    ``mean of (min[L(theta), L(theta + e)] - min[L(theta), L(theta - e)]) e / (2 sigma^2)``: what a perturbation spoils
    has no weight, what it improves has all. The clipping is that of every single inner problem, before any mean. Costs
    half as much again as `ES`. Losses that are not finite count as L(theta), the clip value.
    """

    common: bool = setting(False, "whether all pairs meet the same problems")

    def advance(self, task: Task, state: MetaState, seed: int = 0) -> tuple[MetaState, dict[str, float]]:
        theta, memory = checked(state.theta), dict(state.memory)
        perturbation = noise(seed, state.epoch, torch.arange(self.pairs), len(theta), self.sigma)
        k = task.problems
        met = problems_met(self.pairs, k, self.common)
        plain = met[:1] if self.common else met  # theta itself, once on each problem
        everyone = torch.cat([theta + perturbation, theta - perturbation, theta.expand(len(plain), -1)])
        # one table: theta is one more row among the perturbed ones, so that all are computed in one batch
        table = losses_of(task, everyone, torch.cat([met, met, plain]), state.epoch, seed)
        base = finite(table[2 * self.pairs :])
        sides = table[: 2 * self.pairs].reshape(2, self.pairs, k)
        clipped = ~(sides <= base)  # true for NaN as well
        sides = torch.where(clipped, base, sides)
        gradient = estimate((sides[0] - sides[1]).mean(1), perturbation, self.sigma)
        metrics = {
            "loss": float(base.mean()),
            "gradient": float(gradient.norm()),
            "clipped": float(clipped.to(torch.float64).mean()),
        }
        theta = theta + self.outer.change(gradient, memory)
        return MetaState(theta, state.epoch + 1, memory), metrics


def problems_met(pairs: int, k: int, common: bool) -> torch.Tensor:
    """The numbers of the problems that each pair meets: (pairs, k) int64."""
    return torch.arange(k).expand(pairs, k) if common else torch.arange(pairs * k).reshape(pairs, k)


def estimate(difference: torch.Tensor, perturbation: torch.Tensor, sigma: float) -> torch.Tensor:
    """The gradient (p,) from ``difference (n,)``, the loss of ``+ perturbation (n, p)`` less that of ``-``."""
    return weighed(difference / (2.0 * sigma**2), perturbation)
