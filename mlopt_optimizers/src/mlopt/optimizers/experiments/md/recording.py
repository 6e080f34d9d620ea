"""The frames of molecular dynamics: energies and temperatures of all walkers, trajectories, and walkers that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlopt.core.atoms.neighbours import find_neighbours
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Reason
from mlopt.core.files.growing import GrowingFile
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.lazy import torch
from mlopt.core.structures.write import extxyz
from mlopt.optimizers.dynamics.mechanics import kinetic_energy, temperature

#: columns of the series
POTENTIAL, KINETIC, TEMPERATURE, CONSERVED = range(4)
#: relative rise of an energy that is rounding
_ROUNDING = 1e-6


class Recording:
    """The data that are kept of each frame. Checkpoints store all of them, so that a resumed run goes on with them.

    landscape: the landscape of all walkers.
    thermal (n_walkers,) float64: kT that each walker is set to.
    min_distance: distance of two atoms below which a walker fails.
    folder: the folder of trajectories; None writes none.

    last: the last frame, (n_walkers, 4), see `stacked`.
    """

    def __init__(
        self,
        landscape: AtomsLandscape,
        thermal: torch.Tensor,
        min_distance: float | None,
        folder: Path | None,
    ) -> None:
        self.landscape, self.thermal, self.min_distance, self.folder = (
            landscape,
            thermal,
            min_distance,
            folder,
        )
        self.last = torch.full((len(landscape.systems), 4), torch.nan, dtype=torch.float64)
        self._highest = torch.zeros_like(thermal)  # kinetic energy of each walker so far
        self._steps: list[int] = []
        self._series: list[torch.Tensor] = []
        self._files: list[GrowingFile] = []

    @property
    def steps(self) -> torch.Tensor:
        """(n_frames,) int64 steps of the frames."""
        return torch.tensor(self._steps, dtype=torch.int64)

    @property
    def stacked(self) -> torch.Tensor:
        """(n_frames, n_walkers, 4) float64, by `POTENTIAL` and so on; NaN for walkers that have ended."""
        if not self._series:
            return torch.zeros(0, len(self.landscape.systems), 4, dtype=torch.float64)
        return torch.stack(self._series)

    def begin(self) -> None:
        """Begin all files anew."""
        self._open([0] * len(self.landscape.systems))

    def _open(self, lengths: list[int]) -> None:
        if self.folder is not None:
            names = [f"walker-{number:04d}.extxyz" for number in range(len(lengths))]
            files = zip(names, lengths, strict=True)
            self._files = [GrowingFile(self.folder / name, length) for name, length in files]

    def to_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return tensors and plain data that `load_checkpoint` takes back; files are forced to the disk before."""
        for file in self._files:
            file.sync()
        tensors = {"series": self.stacked, "frames": self.steps}
        return tensors, {"lengths": [file.length for file in self._files]}

    def load_checkpoint(self, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
        """Go on from a checkpoint, and cut files back to it.

        Raises:
            CheckpointError: a file is shorter than it was.
        """
        self._steps, self._series = tensors["frames"].tolist(), list(tensors["series"].unbind(0))
        if self._series:
            self.last = self._series[-1]
            self._highest = tensors["series"][:, :, KINETIC].nan_to_num().amax(0)
        lengths = [int(one) for one in meta["lengths"]]
        if self.folder is not None:
            self._open(lengths or [0] * len(self.landscape.systems))

    def frame(self, step: int, progress: Progress) -> None:
        """Record all walkers that run, after ``step`` steps, and end those that fail."""
        active, state, tally = progress.active, progress.state, progress.tally
        part = self.landscape.select(active)
        kinetic = kinetic_energy(part, state.velocity)
        degrees = temperature(part, state.velocity, state.freedom)
        now = torch.stack([tally.energy, kinetic, degrees, state.conserved], 1).to("cpu", torch.float64)
        index, before = active.cpu(), self.last
        self.last = torch.full_like(self.last, torch.nan).index_copy(0, index, now)
        self._highest = torch.fmax(self._highest, self.last[:, KINETIC])
        self._series.append(self.last)
        self._steps.append(step)
        self._write(step, part, progress, now)
        # an unstable integration makes kinetic energy out of nothing: within a few steps, more than there ever was
        gained = (self.last - before)[index, CONSERVED].nan_to_num()
        usual = 0.5 * (self._highest[index] + state.freedom.to(self.thermal) * self.thermal[index])
        exploded = gained > usual + _ROUNDING * (1.0 + now[:, POTENTIAL].abs())
        reasons = self._contacts(part, tally.x, exploded * Reason.EXPLODED.code)
        if bool(reasons.any()):
            progress.end(reasons.to(active.device), progress.calls)

    def _contacts(self, part: AtomsLandscape, x: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return codes (k,) of reasons, with that of a contact where two atoms are too close at ``x (n_rows, 3)``."""
        if self.min_distance is None:
            return codes
        systems = part.systems.with_pos(x)
        pairs = find_neighbours(systems, self.min_distance)
        met = torch.zeros(len(systems), dtype=torch.bool)
        met[systems.batch[pairs.first].cpu()] = True
        return torch.where(met, Reason.CONTACT.code, codes)

    def _write(self, step: int, part: AtomsLandscape, progress: Progress, now: torch.Tensor) -> None:
        """Append the frame to the trajectories."""
        if not self._files:
            return
        import ase.units

        units = part.units
        images = part.systems.with_pos(progress.tally.x).to_atoms()
        velocities = progress.state.velocity.to("cpu", torch.float64).split(part.segments.counts.tolist())
        walkers = progress.active.tolist()
        for walker, atoms, velocity, told in zip(walkers, images, velocities, now.tolist(), strict=True):
            if units.reduced:
                atoms.set_array("velocities", velocity.numpy())
            else:  # in the units of ASE, which finds them as momenta
                speed = velocity.numpy() * (units.angstrom / ase.units.fs)
                atoms.set_momenta(speed * atoms.get_masses()[:, None], apply_constraint=False)
            atoms.info |= {
                "walker": walker,
                "step": step,
                "energy": told[POTENTIAL],
                "temperature": told[TEMPERATURE],
            }
            self._files[walker].append(extxyz([atoms]))
