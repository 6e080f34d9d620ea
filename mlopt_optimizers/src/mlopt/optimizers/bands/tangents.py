"""Tangents: the direction of a path at an image, from the steps from the image before and to the image after."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Self

from mlopt.core.batch.segments import Segments
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin, setting


@dataclass(frozen=True)
class Surroundings:
    """The surroundings of each image, from which tangents and springs are computed.

    chain: Segments whose rows are the moving images of each problem.
    energy, before, after (n_images,): energy of each image and of the nodes on its two sides.
    rise (n_images,): ``g . (tau- + tau+)``, the gain of energy from one side to the other, to first order. Here g is
    the Riemannian gradient of the energy, tau+ the step to the node after, and tau- that from the node before.
    start, end (n_problems,): energies of the ends.
    """

    chain: Segments
    energy: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor
    rise: torch.Tensor
    start: torch.Tensor
    end: torch.Tensor


class BandPart(Plugin):
    """Base of tangents and springs. Settings may be tensors, 0-d or (n_problems,), given through `replace`."""

    def select(self, problems: torch.Tensor) -> Self:
        """Return this part for some of the problems. Settings with one number a problem are cut down to them."""
        changed: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, torch.Tensor) and value.ndim:
                changed[name] = value[problems]
        return self.replace(**changed) if changed else self


def on_images(chain: Segments, value: torch.Tensor | float) -> torch.Tensor | float:
    """Return a setting for each image. A float or a 0-d tensor stays; (n_problems,) becomes (n_images,)."""
    return chain.rows_of(value) if isinstance(value, torch.Tensor) and value.ndim else value


class Tangent(BandPart):
    """A rule to mix the steps on the two sides of an image.

    The tangent of an image is ``w- tau- + w+ tau+``, divided by its length over the whole image. Here tau+ is the
    logarithm, at this image, of the image after. Likewise tau- is minus the logarithm of the image before. Neither is
    normalised.
    """

    @abstractmethod
    def weights(self, images: Surroundings) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (w-, w+), each (n_images,), not both zero."""
        raise NotImplementedError(f"{type(self).__name__} must define `weights`")


class ImprovedTangent(Tangent):
    """The improved tangent: the step to the higher side, and a mixture near an extremum, so that nothing jumps.

    Source: Henkelman & Jónsson, J. Chem. Phys. 113, 9978 (2000), eqs. 8-11. On a symmetric path both sides can be
    equally high. Eq. 10 leaves the choice open there; its two cases agree and give the sum. On a plateau, where all
    weights vanish, the sum is taken as well.
    """

    def weights(self, images: Surroundings) -> tuple[torch.Tensor, torch.Tensor]:
        """Return 1 and 0 on a slope, and energy differences at an extremum."""
        up, down = images.after - images.energy, images.before - images.energy
        large, small = torch.maximum(up.abs(), down.abs()), torch.minimum(up.abs(), down.abs())
        ahead = images.after >= images.before
        plus, minus = torch.where(ahead, large, small), torch.where(ahead, small, large)
        flat = large == 0
        plus, minus = torch.where(flat, 1.0, plus), torch.where(flat, 1.0, minus)
        one, none = torch.ones_like(up), torch.zeros_like(up)
        rising, falling = (up > 0) & (down < 0), (up < 0) & (down > 0)
        plus = torch.where(rising, one, torch.where(falling, none, plus))
        minus = torch.where(falling, one, torch.where(rising, none, minus))
        # at an extremum with both differences of 1e-300 the tangent must not underflow
        scale = torch.maximum(plus, minus)
        return minus / scale, plus / scale


class SigmoidTangent(Tangent):
    """A smooth choice of the higher side: ``w+ = sigmoid(beta g . (tau- + tau+))``, ``w- = 1 - w+``.

    Source: Bushuev & Lobanov 2020, eq. 3. Their weight W(a; b) with a = g.tau+ and b = g.tau- is exactly this sigmoid.
    As they print it, it overflows. Weights are differentiable everywhere, in beta as well. At an extremum both are 1/2,
    while those of `ImprovedTangent` are energy differences. For beta -> infinity the sign of the central slope decides.

    The products of g with the steps tau- and tau+ are energies, which shrink as the number of images grows. The same
    beta is therefore less upwind in a longer band.
    """

    beta: float = setting(3.0, "sharpness of the switch between the two neighbours", unit="1/energy", ge=0)

    def weights(self, images: Surroundings) -> tuple[torch.Tensor, torch.Tensor]:
        """Return two sigmoids, by way of tanh. torch's sigmoid may round the last numbers of a tensor differently."""
        lean = torch.tanh(0.5 * (on_images(images.chain, self.beta) * images.rise))
        return 0.5 * (1.0 - lean), 0.5 * (1.0 + lean)


class CentralTangent(Tangent):
    """The step from the image before to the image after.

    It is smooth, but a band on a steep path kinks (Henkelman & Jónsson, J. Chem. Phys. 113, 9978 (2000), sec. III).
    """

    def weights(self, images: Surroundings) -> tuple[torch.Tensor, torch.Tensor]:
        """Return equal weights."""
        one = torch.ones_like(images.energy)
        return one, one
