"""Settings of a path: its first images, the band, the ends, and the analysis of the saddle."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.input_file import InputFile
from mlopt.core.plugins.plugin import Plugin, setting
from mlopt.core.protocols.model import ModelState
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.springs import ConstantSpring, EnergyWeightedSpring, Spring
from mlopt.optimizers.bands.string import String
from mlopt.optimizers.bands.tangents import CentralTangent, ImprovedTangent, SigmoidTangent, Tangent


class PathStart(Plugin):
    """The first images of a path."""

    way: Literal["auto", "straight", "idpp"] = setting(
        "auto",
        "straight: the shortest path (a geodesic); idpp: by distances between atoms, which avoids "
        "contacts; auto: idpp where atoms would come too close",
    )
    axis: list[float] | None = setting(
        None, "axis about which opposite spins turn", min_length=3, max_length=3
    )
    keys: list[ModelState] = setting([], "states through which the path passes, in order")
    file: InputFile | None = setting(None, "a file with the whole path, ends included")
    disturbance: float = setting(0.0, "random displacement of the images, in lengths of the path", ge=0)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.file is not None and (self.keys or self.way == "idpp"):
            raise ValueError("file: is the whole path; leave out `keys` and `way`")
        return self


class BandSettings(Plugin):
    """The images of a band, and their tangent and springs."""

    kind: Literal["neb", "string"] = setting("neb", "nudged elastic band, or string method")
    images: int = setting(5, "number of moving images", ge=1)
    tangent: Literal["improved", "sigmoid", "central"] = setting(
        "improved", "direction of the path at an image"
    )
    sharpness: float = setting(3.0, "beta of the sigmoid tangent", unit="1/energy", gt=0)
    spring: float = setting(1.0, "stiffness of the springs", unit="energy/length^2", ge=0)
    stiff_spring: float | None = setting(
        None,
        "stiffness at the highest image; springs are then weighted by energy",
        unit="energy/length^2",
        gt=0,
    )
    nudge: Literal["single", "double", "switched"] = setting(
        "single", "part of the spring force that acts perpendicular to the path"
    )
    climb: int | None = setting(
        None, "number of climbing images, at the highest maxima; none: one of a band, none of a string", ge=0
    )

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.kind == "string" and self.climb:
            raise ValueError("climb: no image of a string climbs; leave it out, or take kind neb")
        return self

    @property
    def climbing(self) -> int:
        """The number of images that climb."""
        return self.climb if self.climb is not None else int(self.kind == "neb")

    def make(self, landscape: Landscape, start: torch.Tensor, end: torch.Tensor) -> Band:
        """Return bands without climbing images between ``start`` and ``end``, each (rows of the landscape, d)."""
        tangent: Tangent = {
            "improved": ImprovedTangent(),
            "sigmoid": SigmoidTangent(beta=self.sharpness),
            "central": CentralTangent(),
        }[self.tangent]
        if self.kind == "string":
            return String(landscape, start, end, self.images, tangent=tangent)
        spring: Spring = ConstantSpring(k=self.spring)
        if self.stiff_spring is not None:
            spring = EnergyWeightedSpring(k_low=self.spring, k_high=self.stiff_spring)
        return Band(landscape, start, end, self.images, tangent=tangent, spring=spring, nudge=self.nudge)


class Ends(Plugin):
    """The relaxation and alignment of the two ends before a path is laid between them."""

    align: Literal["auto", "mirror", "none"] = setting(
        "auto",
        "auto: exchange like atoms of the final state, and rotate and translate free clusters, for "
        "the shortest path; mirror: also try the mirror image; none: keep the order of atoms",
    )
    relax: bool = setting(True, "false: take the ends as given, and refuse those that are no minima")
    fmax: float | None = setting(None, "largest force at an end; none: a tenth of that of the path", gt=0)
    evaluations: int = setting(20_000, "limit for each end", ge=1)


class Saddle(Plugin):
    """The analysis of the saddle."""

    modes: int = setting(6, "number of the lowest eigenvalues of the Hessian to compute; 0: none", ge=0)
    connect: bool = setting(True, "descend from the saddle on both sides, and compare with the ends")
    temperature: float | None = setting(
        None, "temperature of a rate and a lifetime; in reduced units an energy", unit="K", gt=0
    )
    damping: float | None = setting(
        None, "Gilbert's alpha, for the rate of spins by Langer's theory instead of HTST", ge=0
    )
