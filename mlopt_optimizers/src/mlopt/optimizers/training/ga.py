"""The genetic algorithm of Learn2Hop."""

from __future__ import annotations

from mlopt.core.errors import MloptError
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.learning import MetaState, MetaTrainer, Task
from mlopt.optimizers.training.population import NOTHING_FINITE, checked, losses_of, noise


class GA(MetaTrainer):
    """The genetic algorithm that keeps the best of theta and its perturbed copies.

    Source: Merchant et al., ICML 2021, section 3.2. All members of an epoch, theta among them, meet the same problems.
    The member with the lowest mean loss replaces theta, if its loss is lower. A member with a loss that is not finite
    is never taken.
    """

    population: int = setting(80, "number of perturbed copies of theta in an epoch", ge=1)
    sigma: float = setting(0.1, "standard deviation of the perturbation of each component", gt=0)

    def advance(self, task: Task, state: MetaState, seed: int = 0) -> tuple[MetaState, dict[str, float]]:
        theta = checked(state.theta)
        perturbation = noise(seed, state.epoch, torch.arange(self.population), len(theta), self.sigma)
        everyone = torch.cat([theta[None], theta + perturbation])
        met = torch.arange(task.problems).expand(len(everyone), -1)
        loss = losses_of(task, everyone, met, state.epoch, seed).mean(1).nan_to_num(torch.inf)
        best = int(loss.argmin())  # the first of equals: theta itself where nobody is better
        if not bool(torch.isfinite(loss[best])):
            raise MloptError(NOTHING_FINITE)
        metrics = {"loss": float(loss[best]), "improved": float(best > 0)}
        return MetaState(everyone[best].clone(), state.epoch + 1, {}), metrics
