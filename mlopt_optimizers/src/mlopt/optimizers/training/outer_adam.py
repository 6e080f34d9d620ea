"""The optimizer of theta: Adam with a step that decays."""

from __future__ import annotations

from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin, setting


class OuterAdam(Plugin):
    """Adam (Kingma & Ba, ICLR 2015) with the schedule of Learn2Hop (section 3.3): 0.01, times 0.98 every 10 updates."""

    step_size: float = setting(0.01, "initial step size", gt=0)
    decay: float = setting(0.98, "factor on the step every `decay_every` updates", gt=0, le=1)
    decay_every: int = setting(10, "updates between two decays", ge=1)
    beta1: float = setting(0.9, "share of the old mean that is kept", ge=0, lt=1)
    beta2: float = setting(0.999, "share of the old mean square that is kept", ge=0, lt=1)
    epsilon: float = setting(1e-8, "added to the root mean square", gt=0)

    def change(self, gradient: torch.Tensor, memory: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the change of theta (p,) for ``gradient (p,)``, and update ``memory`` (``count``, ``m``, ``v``)."""
        count = memory.get("count", torch.zeros((), dtype=torch.int64)) + 1
        m = memory.get("m", torch.zeros_like(gradient)).lerp(gradient, 1.0 - self.beta1)
        v = memory.get("v", torch.zeros_like(gradient)).lerp(gradient * gradient, 1.0 - self.beta2)
        memory |= {"count": count, "m": m, "v": v}
        updates = int(count)
        step_size = self.step_size * self.decay ** ((updates - 1) // self.decay_every)
        unbiased = m / (1.0 - self.beta1**updates), v / (1.0 - self.beta2**updates)
        return -step_size * unbiased[0] / (unbiased[1].sqrt() + self.epsilon)
