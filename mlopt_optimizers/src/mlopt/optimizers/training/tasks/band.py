"""The task `band`: learn step, spring and tangent of a band, so that it finds its barrier fast."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import model_validator

from mlopt.core.batch.random import Draws, Stream, derive, problem_keys
from mlopt.core.driver.driver import minimize
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.learning import Task
from mlopt.core.protocols.model import Model
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.initial import geodesic, perturb, through
from mlopt.optimizers.bands.profile import highest_point
from mlopt.optimizers.bands.springs import ConstantSpring
from mlopt.optimizers.bands.tangents import SigmoidTangent
from mlopt.optimizers.local.gradient_descent import GradientDescent
from mlopt.optimizers.local.lbfgs import LBFGS

#: the epoch whose paths are for `BandTask.evaluate` alone
HELD_OUT = 2**31
#: of the band that finds the reference
_TIGHT, _MOST = 1e-10, 5000


@dataclass(frozen=True)
class RelaxedPath:
    """The relaxed path that a task measures against, with its barrier and two scales.

    path (nodes, rows, d): the images, ends included.
    barrier: the barrier, in units of energy.
    rise: the barrier per step between images, in units of energy.
    curvature: largest |eigenvalue| of the Hessian on the path.
    """

    path: torch.Tensor
    barrier: float
    curvature: float
    rise: float


class BandTask(Task):
    """The task of learning a band: gradient descent's step gamma, the spring mu, and the tangent's sharpness beta.

    The paths of an epoch are copies of the relaxed path, each disturbed at random. The loss is the mean over them of
    ``ln((D_K + e) / (D_0 + e)) / K``. D is the barrier of the continuous path less the true one, and K the number of
    iterations that are differentiated through. The parameters theta are the logarithms of ``gamma L``, ``mu / L`` and
    ``beta E``. Here L is the largest curvature on the path and E the barrier per image. These numbers have no
    dimension, and so mean the same on another landscape.

    Source: Bushuev & Lobanov 2020, with the corrections that stand at `Band` and `SigmoidTangent`. Their loss is the
    mean log ratio of successive errors, which telescopes to this one. They have no floor e. Without it, single paths
    that hit the barrier to the last digit decide everything.
    """

    model: Annotated[Model, FromRegistry("model")] = setting(..., "the landscape of the paths")
    initial: dict[str, Any] = setting(..., "a state of the model, a minimum")
    final: dict[str, Any] = setting(..., "another minimum, a state of the model")
    axis: list[float] | None = setting(None, "axis about which opposite spins turn")
    images: list[int] = setting(
        [8, 14], "smallest and largest number of moving images of a path", min_length=2, max_length=2
    )
    paths: int = setting(100, "number of paths in each epoch", ge=1)
    disturbance: float = setting(0.05, "random displacement of the images, in lengths of the path", ge=0)
    bend: float = setting(
        0.0, "sideways displacement of every row in the middle of the path; radians for spins", ge=0
    )
    iterations: int = setting(5, "number of inner steps, which are differentiated through", ge=1)
    step: float = setting(0.01, "initial gamma", unit="length^2/energy", gt=0)
    spring: float = setting(1.0, "initial mu", unit="energy/length^2", gt=0)
    sharpness: float = setting(3.0, "initial beta", unit="1/energy", gt=0)
    floor: float = setting(1e-12, "error that counts as zero, in units of the barrier", gt=0)
    prior: float = setting(
        0.0, "weight in the loss of the squared distance of theta from its initial value", ge=0
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 1 <= self.images[0] <= self.images[1]:
            raise ValueError(f"images: give the fewest, then the most, 1 or more; got {self.images}")
        return self

    @cached_property
    def relaxed(self) -> RelaxedPath:
        """The relaxed path, found by L-BFGS with a climbing image from the shortest path.

        Raises:
            InputError: the path does not relax, or its ends are no barrier apart.
        """
        landscape = self.model.landscape()
        start, end = self.model.state(self.initial), self.model.state(self.final)
        band = Band(landscape, start, end, self.images[1])
        x = geodesic(band, self.axis)
        # in units of the landscape: steps of a tenth of the way between images, an inverse curvature for a beginning
        gap = float(band.arc_length(x)[-1]) / (self.images[1] + 1)
        size = float(band.segments.longest2(band.evaluate(x).force).sqrt().max())
        quench = LBFGS(max_step=min(0.1, 0.3 * gap), scale=min(0.014, 0.1 * gap / size))
        found = minimize(band, quench, x, fmax=0.05 * size, force_calls=_MOST, engine="eager")
        band = band.replace(climb=1)
        fmax = max(_TIGHT, 1e-12 * size)
        found = minimize(band, quench, found.x, fmax=fmax, force_calls=_MOST, engine="eager")
        barrier = float(found.energy[0] - band.at_start.energy[0])
        if not bool(found.converged[0]) or not barrier > 0:
            raise InputError(
                f"the path between `initial` and `final` did not relax to a barrier (largest force "
                f"{float(found.fmax[0]):.3g}, barrier {barrier:.6g}); give two neighbouring minima, and an `axis` "
                f"where spins turn over"
            )
        (path,) = band.unpack(found.x)
        curvature = _largest_curvature(band.inner, found.x)
        return RelaxedPath(path, barrier, curvature, barrier / (self.images[1] + 1))

    @property
    def _scales(self) -> torch.Tensor:
        found = self.relaxed
        return torch.tensor([found.curvature, 1.0 / found.curvature, found.rise], dtype=torch.float64)

    @property
    def theta(self) -> torch.Tensor:
        given = torch.tensor([self.step, self.spring, self.sharpness], dtype=torch.float64)
        return (given * self._scales).log()

    def named(self, theta: torch.Tensor) -> dict[str, float]:
        gamma, mu, beta = (theta.detach().exp() / self._scales).tolist()
        return {"gamma": gamma, "mu": mu, "beta": beta}

    def losses(self, theta: torch.Tensor, epoch: int, seed: int = 0) -> torch.Tensor:
        band, x = self.disturbed(epoch, seed)
        found = torch.stack([self._rate(*self.errors(one, band, x)).mean() for one in theta])
        return found + self.prior * (theta - self.theta.to(theta)).square().sum(-1)

    def _rate(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        least = self.floor * self.relaxed.barrier
        return (
            (after.clamp(min=0.0) + least).log() - (before.clamp(min=0.0) + least).log()
        ) / self.iterations

    def errors(
        self, theta: torch.Tensor, band: Band, x: torch.Tensor, iterations: int | None = None
    ) -> torch.Tensor:
        """Return errors (2, n_paths) of the barrier at ``x (n_rows, d)`` and after the last iteration."""
        gamma, mu, beta = (theta.exp() / self._scales.to(theta)).unbind()
        band = band.replace(
            tangent=SigmoidTangent().replace(beta=beta), spring=ConstantSpring().replace(k=mu)
        )
        descent = GradientDescent().replace(step_size=gamma)
        state = descent.init(band, x, torch.zeros(band.segments.n_problems, dtype=torch.int64))
        before = self._error(band, x).detach()
        for _ in range(self.iterations if iterations is None else iterations):
            x, state = descent.step(band, x, band.evaluate(x), state)
        return torch.stack([before, self._error(band, x)])

    def _error(self, band: Band, x: torch.Tensor) -> torch.Tensor:
        return highest_point(band, x, calls=40).energy - band.at_start.energy - self.relaxed.barrier

    def disturbed(self, epoch: int, seed: int = 0, paths: int | None = None) -> tuple[Band, torch.Tensor]:
        """Return the paths of an epoch: bands without their parameters, and their images (n_rows, d)."""
        found, count = self.relaxed, self.paths if paths is None else paths
        few, most = self.images
        images = few + torch.arange(count) % (most - few + 1)
        start, end = (found.path[k].repeat(count, 1) for k in (0, -1))
        band = Band(self.model.landscape(count), start, end, images)
        x = through(band, [one.repeat(count, 1) for one in found.path[1:-1]])
        keys = problem_keys(seed, torch.arange(count))
        if self.bend:
            x = self._bent(band, x, derive(keys, Stream.BEND))
        if self.disturbance:
            x = perturb(band, x, keys, self.disturbance, counter=epoch * most * found.path[0].numel())
        return band, x

    def _bent(self, band: Band, x: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Return the path ``x (n_rows, d)`` bent by ``A sin(pi s)`` across it, with A up to the setting."""
        layout, frames = band.layout, band.layout.frames
        _, ahead = band.steps(x)
        along = frames.scale(1.0 / frames.dot(ahead, ahead).clamp(min=1e-300).sqrt(), ahead)
        across = band.manifold.project(x, torch.ones_like(x))
        across = frames.scale(-frames.dot(across, along), along, across)
        across = frames.scale(1.0 / frames.dot(across, across).clamp(min=1e-300).sqrt(), across)
        draws = Draws(keys, torch.zeros_like(keys), band.segments)
        height = self.bend * (2.0 * draws.uniform(1)[:, 0] - 1.0).to(x)
        share = layout.position.to(x) / (layout.chain.rows_of(layout.images) + 1).to(x)
        return band.inner.manifold.retract(
            x, frames.scale(layout.chain.rows_of(height) * torch.sin(torch.pi * share), across)
        )

    def evaluate(self, theta: torch.Tensor, seed: int = 0) -> dict[str, float]:
        """Return ``error_ratio``, the median of D_K / D_0 on 1000 fresh paths, and that of the first parameters."""
        band, x = self.disturbed(HELD_OUT, seed, 1000)
        with torch.no_grad():
            ratios = {}
            for name, one in (("error_ratio", theta), ("error_ratio_at_start", self.theta)):
                before, after = self.errors(one, band, x)
                ratios[name] = float((after.abs() / before.abs()).median())
        return ratios


def _largest_curvature(landscape: Landscape, x: torch.Tensor, products: int = 60) -> float:
    """Return the largest |eigenvalue| of the Hessians at ``x (n_rows, d)``, to some percent, by power iteration."""
    segments = landscape.segments
    draws = Draws(
        problem_keys(0, torch.arange(segments.n_problems)),
        torch.zeros(segments.n_problems, dtype=torch.int64),
        segments,
    )
    v = landscape.manifold.project(x, (draws.rows(x.shape[1]) - 0.5).to(x))
    size = torch.ones(segments.n_problems, dtype=x.dtype)
    for _ in range(products):
        v = segments.scale(1.0 / segments.dot(v, v).clamp(min=1e-300).sqrt(), v)
        v = landscape.hessian_product(x, v)
        size = segments.dot(v, v).sqrt()
    return float(size.max())
