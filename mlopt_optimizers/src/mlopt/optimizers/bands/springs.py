"""Springs along a path, which keep its images apart."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

from pydantic import model_validator

from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.optimizers.bands.tangents import BandPart, Surroundings, on_images


class Spring(BandPart):
    """The stiffness of the springs between neighbouring nodes.

    A spring pulls an image along its tangent with ``k+ d+ - k- d-``, where d+ and d- are geodesic distances of whole
    images. With equal stiffness, equal spacing is at rest.
    """

    @abstractmethod
    def stiffness(self, images: Surroundings) -> tuple[torch.Tensor | float, torch.Tensor | float]:
        """Return (k-, k+), the stiffness on the two sides of each image, each (n_images,) or one number."""
        raise NotImplementedError(f"{type(self).__name__} must define `stiffness`")


class ConstantSpring(Spring):
    """One stiffness for all springs (Henkelman & Jónsson, J. Chem. Phys. 113, 9978 (2000), eq. 12).

    With gradient descent of step gamma, the spacing is stable only for ``gamma stiffness <= 1/2``.
    """

    k: float = setting(1.0, "stiffness of the springs", unit="energy/length^2", ge=0)

    def stiffness(self, images: Surroundings) -> tuple[torch.Tensor | float, torch.Tensor | float]:
        """Return the same stiffness for both sides."""
        k = on_images(images.chain, self.k)
        return k, k


class EnergyWeightedSpring(Spring):
    """Stiffer springs where the energy is higher, so that images gather about the saddle.

    The stiffness is ``k = (1 - a) k_high + a k_low`` with ``a = (E_max - E) / (E_max - E_ref)``. E is the higher energy
    of the two nodes that the spring joins. E_ref is the energy of the higher end, and E_max that of the highest image.
    Where E is not above E_ref, k is k_low. Source: Ásgeirsson et al., J. Chem. Theory Comput. 17, 4929 (2021).
    """

    k_low: float = setting(0.1, "stiffness at the ends", unit="energy/length^2", gt=0)
    k_high: float = setting(1.0, "stiffness at the highest image", unit="energy/length^2", gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.k_low > self.k_high:
            raise ValueError(f"k_low must not be above k_high, got {self.k_low} and {self.k_high}")
        return self

    def stiffness(self, images: Surroundings) -> tuple[torch.Tensor | float, torch.Tensor | float]:
        """Return the stiffness by the higher energy on each side."""
        low, high = on_images(images.chain, self.k_low), on_images(images.chain, self.k_high)
        reference = torch.maximum(images.start, images.end)
        top = images.chain.max(images.energy)
        floor = images.chain.rows_of(reference)
        # where no image is above the ends, every spring is weak, whatever the range is
        range_ = images.chain.rows_of(torch.where(top > reference, top - reference, 1.0))

        def between(other: torch.Tensor) -> torch.Tensor:
            share = (torch.maximum(images.energy, other) - floor) / range_
            return low + (high - low) * share.clamp(0.0, 1.0)

        return between(images.before), between(images.after)
