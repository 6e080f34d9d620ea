"""Bands: paths between two points, their first images, springs and profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.bands.band import Band
    from mlopt.optimizers.bands.initial import geodesic, linear
    from mlopt.optimizers.bands.profile import Profile, highest_point
    from mlopt.optimizers.bands.settings import BandSettings
    from mlopt.optimizers.bands.springs import ConstantSpring
    from mlopt.optimizers.bands.string import String
    from mlopt.optimizers.bands.tangents import SigmoidTangent

__all__ = [
    "Band",
    "BandSettings",
    "ConstantSpring",
    "Profile",
    "SigmoidTangent",
    "String",
    "geodesic",
    "highest_point",
    "linear",
]

__getattr__ = names_of(
    __name__,
    {
        "band": ("Band",),
        "initial": ("geodesic", "linear"),
        "profile": ("Profile", "highest_point"),
        "settings": ("BandSettings",),
        "springs": ("ConstantSpring",),
        "string": ("String",),
        "tangents": ("SigmoidTangent",),
    },
)
