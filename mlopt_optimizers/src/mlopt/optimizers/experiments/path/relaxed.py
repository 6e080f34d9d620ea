"""A relaxed path: its images, its energies, its saddle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Self

from mlopt.core.atoms.units import Units
from mlopt.core.driver.result import Result
from mlopt.core.errors import MloptError
from mlopt.core.files import atomic
from mlopt.core.lazy import torch
from mlopt.core.protocols.model import Model
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.profile import Profile, image_at


@dataclass(frozen=True, kw_only=True)
class RelaxedPath:
    """The lowest of the bands that were relaxed in one batch; tensors are on the CPU.

    model: the subject of the path.
    band: this band alone.
    converged: True if the band reached its force threshold.
    fmax: its largest force on a row.
    path (images + 2, n_rows, d): images, ends included.
    s, energy, slope (images + 2,): distance along the path, energy, and its derivative by ``s``, at each image.
    curve: points of the cubic curve through the images, (m,) distances and (m,) energies.
    saddle (n_rows, d): the climbing image, or the maximum of the curve.
    saddle_energy: energy of the saddle.
    barriers: heights above the start, of all bands of the batch; NaN where an energy is not finite.
    """

    model: Model
    band: Band
    converged: bool
    fmax: float
    path: torch.Tensor
    s: torch.Tensor
    energy: torch.Tensor
    slope: torch.Tensor
    curve: tuple[torch.Tensor, torch.Tensor]
    saddle: torch.Tensor
    saddle_energy: float
    barriers: list[float]

    @classmethod
    def of(cls, model: Model, band: Band, result: Result, folder: FilePath | None = None) -> Self:
        """Evaluate the relaxed ``band``, a batch, and write the images of the lowest path to ``folder``.

        Raises:
            MloptError: no path has a finite barrier; the images have been written.
        """
        with torch.no_grad():
            profiles = Profile.of(band, result.x)
            tops, energies = profiles.summit, band.look(result.x)
        climbing = energies.climbing
        barriers = profiles.barrier_forward.clone()
        highest = band.layout.chain.argmax(torch.where(climbing, energies.energy, -torch.inf))
        climbs = climbing[highest] & result.converged.to(climbing.device)
        barriers = torch.where(climbs, energies.energy[highest] - band.at_start.energy, barriers)
        # without a finite energy of every image the height of the path is unknown
        lost = [(~torch.isfinite(one)).to(barriers.dtype) for one in (energies.energy, profiles.energy)]
        unknown = band.layout.chain.sum(lost[0]) + profiles.nodes.sum(lost[1]) > 0
        barriers = barriers.masked_fill(unknown, float("nan"))
        best = int(torch.where(torch.isfinite(barriers), barriers, torch.inf).argmin())
        chosen = torch.tensor([best], device=result.x.device)
        one, (_, rows) = band.select(chosen), band.segments.select(chosen)
        x = result.x[rows]
        (path,) = one.unpack(x)
        nodes = slice(int(profiles.nodes.ptr[best]), int(profiles.nodes.ptr[best + 1]))
        along = profiles.energy[nodes].cpu()
        if folder is not None:  # the relaxed images are written, whatever happens later
            model.write(folder / "path", path.cpu(), along.tolist())
        if not math.isfinite(float(barriers[best])):
            raise MloptError(_lost(result, along))
        if bool(climbs[best]):
            place = int(highest[best]) - int(band.layout.chain.ptr[best]) + 1
            saddle, energy = path[place], float(energies.energy[highest[best]])
        else:
            with torch.no_grad():
                saddle = image_at(one, x, tops.node[best : best + 1], tops.share[best : best + 1])
            energy = float(tops.energy[best])
        distances, heights = profiles.curve(best)
        return cls(
            model=model,
            band=one,
            converged=bool(result.converged[best]),
            fmax=float(result.fmax[best]),
            path=path.cpu(),
            s=profiles.s[nodes].cpu(),
            energy=along,
            slope=profiles.slope[nodes].cpu(),
            curve=(distances.cpu(), heights.cpu()),
            saddle=saddle.cpu(),
            saddle_energy=energy,
            barriers=barriers.tolist(),
        )

    @property
    def units(self) -> Units:
        """Units of energies and distances."""
        return Units.of(self.model.energy_units)

    @property
    def barrier_forward(self) -> float:
        """The height of the saddle above the start."""
        return self.saddle_energy - float(self.energy[0])

    @property
    def barrier_reverse(self) -> float:
        """The height of the saddle above the end."""
        return self.saddle_energy - float(self.energy[-1])

    @property
    def tops(self) -> list[int]:
        """The images that are higher than their neighbours; empty if they outnumber the climbing images."""
        e = self.energy.tolist()
        found = [k for k in range(1, len(e) - 1) if e[k] > e[k - 1] and e[k] >= e[k + 1]]
        return found if self.band.climb >= len(found) else []

    def write(self, folder: FilePath) -> None:
        """Write the saddle in the model's format, ``profile.csv``, and ``barriers.json`` of several bands."""
        self.model.write(folder / "saddle", self.saddle[None], [self.saddle_energy])
        lines = [
            f"{s:.12g},{e:.12g},{d:.12g}"
            for s, e, d in zip(self.s.tolist(), self.energy.tolist(), self.slope.tolist(), strict=True)
        ]
        atomic.write_text(folder / "profile.csv", "\n".join(["s,energy,slope", *lines]) + "\n")
        if len(self.barriers) > 1:
            atomic.write_json(folder / "barriers.json", self.barriers)


def _lost(result: Result, energy: torch.Tensor) -> str:
    """Return the reason why no path has a barrier."""
    bad = [str(k) for k, one in enumerate(energy.tolist()) if not math.isfinite(one)]
    where = f"image {', '.join(bad)} of the path" if bad else "the path"
    ended = sorted({reason.value for reason in result.reason})
    return (
        f"there is no barrier: {where} has no finite energy (the relaxation ended because: {'; '.join(ended)}). Atoms "
        f"may have met: try `start: {{way: idpp}}`, key images, or a smaller `max_step` of the optimizer. Or the "
        f"potential failed: resume the run to look at the relaxed path again. Its images are in the results"
    )
