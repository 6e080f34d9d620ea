"""The direction of a path at an image, made of the steps from the image before and to the image after."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Self

from mlopt.core.batch.segments import Segments
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin, setting


@dataclass(frozen=True)
class Surroundings:
    """What tangents and springs look at: one number an image.

    chain: Segments whose rows are the moving images of each problem.
    energy, before, after: (n_images,) energy of each image and of the nodes on its two sides.
    rise: (n_images,) ``g . (tau- + tau+)`` with the Riemannian gradient g of the energy, tau+ the step to the node
        after and tau- that from the node before: what the energy gains, to first order, from one side to the other.
    start, end: (n_problems,) energies of the ends.
    """

    chain: Segments
    energy: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor
    rise: torch.Tensor
    start: torch.Tensor
    end: torch.Tensor


class BandPart(Plugin):
    """Base of what a band is made of. Settings may be tensors, 0-d or (n_problems,), given through `replace`."""

    def select(self, problems: torch.Tensor) -> Self:
        """This part for some of the problems: settings with one number a problem are cut down to them."""
        changed: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, torch.Tensor) and value.ndim:
                changed[name] = value[problems]
        return self.replace(**changed) if changed else self


def on_images(chain: Segments, value: torch.Tensor | float) -> torch.Tensor | float:
    """A setting for each image: a float or a 0-d tensor passes through, (n_problems,) becomes (n_images,)."""
    return chain.rows_of(value) if isinstance(value, torch.Tensor) and value.ndim else value


class Tangent(BandPart):
    """Chooses how the steps on the two sides of an image are mixed.

    The tangent of an image is ``w- tau- + w+ tau+``, divided by its length over the whole image. tau+ is the logarithm
    of the image after at this image and tau- minus that of the image before, neither normalised.
    """

    @abstractmethod
    def weights(self, images: Surroundings) -> tuple[torch.Tensor, torch.Tensor]:
        """(w-, w+), each (n_images,), not both zero."""
        raise NotImplementedError(f"{type(self).__name__} must define `weights`")


class ImprovedTangent(Tangent):
    """The step to the side where the energy is higher; near an extremum a mixture, so that nothing jumps.

    Source: Henkelman & Jónsson, J. Chem. Phys. 113, 9978 (2000), eqs. 8-11. Where both sides are equally high, which a
    symmetric path meets exactly, eq. 10 leaves the choice open; its two cases agree there and give the sum. On a
    plateau, where all weights vanish, the sum is taken as well.
    """

    def weights(self, images: Surroundings) -> tuple[torch.Tensor, torch.Tensor]:
        """1 and 0 on a slope, energy differences at an extremum."""
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

    Source: Bushuev & Lobanov 2020, eq. 3. Their weight W(a; b) with a = g.tau+ and b = g.tau- is exactly this
    sigmoid; as they print it, it overflows. Differentiable everywhere, in beta as well. At an extremum both weights
    are 1/2, which bisects, where `ImprovedTangent` weighs by energy differences; with beta -> infinity, the sign of
    the central slope decides. tau- and tau+ are steps, so their products with g are energies and shrink with the number
    of images: the same beta is less upwind in a longer band.
    """

    beta: float = setting(3.0, "sharpness of the choice", unit="1/energy", ge=0)

    def weights(self, images: Surroundings) -> tuple[torch.Tensor, torch.Tensor]:
        """Two sigmoids, by way of tanh: torch's sigmoid may round the last numbers of a tensor differently."""
        lean = torch.tanh(0.5 * (on_images(images.chain, self.beta) * images.rise))
        return 0.5 * (1.0 - lean), 0.5 * (1.0 + lean)


class CentralTangent(Tangent):
    """The step from the image before to the image after.

    Smooth, but a band on a steep path kinks with it (Henkelman & Jónsson, J. Chem. Phys. 113, 9978 (2000), sec. III).
    """

    def weights(self, images: Surroundings) -> tuple[torch.Tensor, torch.Tensor]:
        """Both alike."""
        one = torch.ones_like(images.energy)
        return one, one
