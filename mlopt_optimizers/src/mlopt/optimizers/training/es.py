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
    """Descent along ``mean of (L(theta + e) - L(theta - e)) e / (2 sigma^2)`` (Learn2Hop, eq. 3).

    Sources: Salimans et al., arXiv 1703.03864; Merchant et al., ICML 2021. The estimate is an unbiased gradient of the
    loss smoothed by the perturbation. Both members of a pair meet the same problems. By default each pair meets its own
    problems, as in the paper, where an epoch has 80 pairs and as many starts. With `common` all pairs meet the same.

    `fitness: rank` replaces each loss by its rank among all (Wierstra et al., JMLR 15, 949 (2014)), so that no outlier
    decides. It is fair with `common` alone. `problem-rank` ranks problem by problem and takes the mean rank. Then
    problems whose losses hardly differ count as much as those that are hit or missed.

    Losses that are not finite count as the highest finite one.
    """

    common: bool = setting(False, "give all pairs the same problems")
    fitness: Literal["loss", "rank", "problem-rank"] = setting(
        "loss", "quantity that is compared: losses, their ranks, or their ranks problem by problem"
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

    The descent is along ``mean of (min[L(theta), L(theta + e)] - min[L(theta), L(theta - e)]) e / (2 sigma^2)``. So a
    perturbation counts where it improves the loss, and not where it spoils it. Each inner problem is clipped, before
    any mean. An epoch costs half as much again as with `ES`. Losses that are not finite count as L(theta).
    """

    common: bool = setting(False, "give all pairs the same problems")

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
    """Return the numbers of the problems that each pair meets, (pairs, k) int64."""
    return torch.arange(k).expand(pairs, k) if common else torch.arange(pairs * k).reshape(pairs, k)


def estimate(difference: torch.Tensor, perturbation: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return the gradient (p,) from ``difference (n,)``: the loss of ``+ perturbation (n, p)`` less that of ``-``."""
    return weighed(difference / (2.0 * sigma**2), perturbation)
