"""The task `rollout`: reach low energies on a family of systems."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Self

from pydantic import field_validator
from pydantic_core import PydanticCustomError

from mlopt.core.batch.random import Stream, derive, uniform
from mlopt.core.driver.engine import EngineName, choose_engine
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.learning import Learnable, SegmentedTask
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.runs.device import device_of
from mlopt.core.runs.processes import share_out
from mlopt.optimizers.local.adam import Adam
from mlopt.optimizers.local.gradient_descent import GradientDescent
from mlopt.optimizers.training.tasks.inner_runs import Batch, MetaLoss, batches
from mlopt.optimizers.training.tasks.settings import HeldOut, Reference, RolloutCase, Truncation
from mlopt.optimizers.training.tasks.systems import labels_of

#: inner steps from which compiling a kernel pays, since a training repeats them many thousand times
_WORTH_COMPILING = 200


class RolloutTask(SegmentedTask):
    """The task of learning an optimizer by its energies after `horizon` steps on systems of a family.

    Source: Merchant et al., ICML 2021, sections 3 and 3.3. The loss of a run is its energy, the last or the lowest,
    divided by the size of the reference of its member. So -1 is the best that Adam finds from 150 starts, and large
    systems do not outweigh small ones. A loss that is not finite, or above `clip`, counts as `clip`.

    All thetas of an epoch meet the same members from the same starts with the same random numbers. Members take turns
    in proportion to their weights. By systematic sampling, shares in one epoch differ from these by less than one
    problem. Runs of a whole population are one batch for each potential, every problem under its own theta.
    """

    members: list[RolloutCase] = setting(..., "systems and potentials, of any sizes and species")
    learnable: Annotated[Learnable, FromRegistry("learnable")] = setting(
        ..., "the optimizer that theta stands for"
    )
    horizon: int = setting(50_000, "inner steps of a run", ge=1)
    truncation: Truncation = setting(Truncation(), "shorter runs in some epochs")
    starts: int = setting(1, "number of problems on which each theta is judged in an epoch", ge=1)
    loss: MetaLoss = setting(
        "final", "energy at the end, or the lowest so far; for a search always the lowest"
    )
    clip: float = setting(1.0, "largest loss", gt=-1.0)
    reference: Reference = setting(Reference(), "Adam's runs for the reference energies of losses")
    held_out: HeldOut = setting(HeldOut(), "judgement of theta")
    seed: int = setting(0, "seed of the first theta", ge=0, le=2**62)
    batch: int | None = setting(
        None, "largest number of runs at once on each rank, to save memory; none: all. If it is set, "
        "results do not depend on the number of ranks even on a GPU", ge=1
    )  # fmt: skip
    engine: EngineName = setting(
        "auto",
        "eager, fused or auto: fused for runs of 200 steps and more on the CPU, if there are kernels",
    )
    dtype: str = setting(
        "float64", "floating-point type of the runs: float64 or float32", pattern="^float(64|32)$"
    )
    device: str = setting("cpu", "cpu, cuda, cuda:1, ...")

    @field_validator("members")
    @classmethod
    def _some(cls, value: list[RolloutCase]) -> list[RolloutCase]:
        if not value:
            raise PydanticCustomError(
                "members",
                "the family has no members; give one at least, such as "
                "{{system: {{cluster: Ar13}}, potential: {{name: lennard-jones}}}}",
            )
        return value

    @property
    def theta(self) -> torch.Tensor:
        """The theta (p,) float64 where the learnable begins.

        Raises:
            InputError: a system, its potential or the device cannot work.
        """
        device_of(self.device)
        for one in self.members:
            one.check()
        return self.learnable.start(self.seed)

    @property
    def problems(self) -> int:
        return self.starts

    @property
    def batch_size(self) -> int | None:
        return self.batch

    @property
    def length(self) -> int:
        return self.horizon

    def named(self, theta: torch.Tensor) -> dict[str, float]:
        return self.learnable.named(theta)

    def losses(self, theta: torch.Tensor, epoch: int, seed: int = 0) -> torch.Tensor:
        problem = torch.arange(self.starts).repeat(len(theta))
        table = self.pair_losses(theta.repeat_interleave(self.starts, 0), problem, epoch, seed)
        return table.reshape(len(theta), self.starts).mean(1)

    def pair_losses(
        self, theta: torch.Tensor, problem: torch.Tensor, epoch: int, seed: int = 0
    ) -> torch.Tensor:
        run = self.begin(problem, epoch, seed)
        return self.carry(run, theta, self.truncation.steps(self.horizon, epoch, seed))[1]

    def begin(self, problem: torch.Tensor, epoch: int, seed: int = 0) -> _Runs:
        member = self.member_of(problem, epoch, seed)
        return self._runs(member, derive(seed, Stream.EPOCH, epoch, problem))

    def carry(self, run: _Runs, theta: torch.Tensor, steps: int) -> tuple[_Runs, torch.Tensor]:
        energy = self._carried(run, self._learned(theta), steps)
        loss = energy / self.references[run.member].abs()
        return run, torch.where(loss < self.clip, loss, self.clip)

    def member_of(self, problem: torch.Tensor, epoch: int, seed: int = 0) -> torch.Tensor:
        """Return the member (m,) int64 of each problem number ``problem (m,)`` of an epoch."""
        weight = torch.tensor([one.weight for one in self.members], dtype=torch.float64)
        upper = weight.cumsum(0) / weight.sum()
        group, place = problem // self.starts, problem % self.starts
        shift = uniform(derive(seed, Stream.MEMBERS, epoch, group), torch.zeros_like(group), 1)[:, 0]
        return torch.searchsorted(upper, (place + shift) / self.starts, right=True).clamp(max=len(weight) - 1)

    def prepare(self) -> None:
        _ = self.references

    @cached_property
    def references(self) -> torch.Tensor:
        """The energies (n_members,) float64 that count as -1: the given ones, or the best of the Adam runs.

        All ranks compute them together, once for a task. They are the same for every seed of a training.

        Raises:
            InputError: Adam found no energy below zero.
        """
        settings = self.reference
        asked = [number for number, one in enumerate(self.members) if one.reference is None]
        adam = Adam(step_size=settings.step_size)

        def energies(index: torch.Tensor) -> torch.Tensor:
            member = torch.tensor(asked)[index // settings.starts]
            run = self._runs(member, derive(0, Stream.REFERENCE, member, index % settings.starts))
            return self._carried(run, lambda batch: adam, settings.steps or self.horizon)

        found = share_out(len(asked) * settings.starts, energies, batch=self.batch)
        best = iter(found.reshape(len(asked), -1).amin(1).tolist() if asked else [])
        values = [next(best) if one.reference is None else one.reference for one in self.members]
        for one, value in zip(self.members, values, strict=True):
            if not -torch.inf < value < 0.0:
                raise InputError(
                    f"the best of {settings.starts} Adam runs of {one.label} has the energy {value:.6g}, and losses "
                    f"are measured in negative ones: give `reference` for this member, or more `reference.steps`"
                )
        return torch.tensor(values, dtype=torch.float64)

    def constants(self) -> torch.Tensor:
        return self.references

    def with_constants(self, constants: torch.Tensor) -> Self:
        if constants.shape != (len(self.members),):
            raise InputError(
                f"the constants of another task: {constants.numel()} references for {len(self.members)} members"
            )
        made = self.model_copy()
        made.__dict__["references"] = constants.to(torch.float64)
        return made

    def evaluate(self, theta: torch.Tensor, seed: int = 0) -> dict[str, float]:
        """Return ``held_out``, the mean loss on held-out starts, and mean, lowest energy and hits of each member.

        Energies that are not finite are left out of mean and minimum, and counted as ``lost``.
        """
        settings, labels = self.held_out, labels_of(self.members)
        self.prepare()
        count = len(self.members) * settings.starts

        def energies(index: torch.Tensor) -> torch.Tensor:
            member = index // settings.starts
            run = self._runs(member, derive(seed, Stream.HELD_OUT, member, index % settings.starts))
            learned = self._learned(theta.expand(len(index), -1))
            reached = self._carried(run, learned, settings.steps or self.horizon)
            if not settings.descent:
                return reached
            descended = self._descended(run)
            return torch.minimum(reached, descended) if self.loss == "best" else descended

        with torch.no_grad():
            table = share_out(count, energies, batch=self.batch).reshape(len(self.members), settings.starts)
        loss = table / self.references.abs()[:, None]
        row = {"held_out": float(torch.where(loss < self.clip, loss, self.clip).mean())}
        for one, label, energy in zip(self.members, labels, table, strict=True):
            sound = energy[torch.isfinite(energy)]
            if sound.numel():
                row |= {f"{label}.mean": float(sound.mean()), f"{label}.min": float(sound.min())}
            if one.target is not None:
                row[f"{label}.hits"] = float((energy <= one.target + one.tolerance).sum())
            if sound.numel() < energy.numel():
                row[f"{label}.lost"] = float(energy.numel() - sound.numel())
        return row

    def _runs(self, member: torch.Tensor, key: torch.Tensor) -> _Runs:
        device, dtype = device_of(self.device), getattr(torch, self.dtype)
        return _Runs(member, batches(self.members, member, key, device, dtype))

    def _learned(self, theta: torch.Tensor) -> Callable[[Batch], Optimizer]:
        """Return a function that gives the optimizer of ``theta (m, p)`` for each batch of runs."""
        return lambda batch: self.learnable.optimizer(theta[batch.index].to(batch.x))

    def _carried(self, run: _Runs, optimizer_of: Callable[[Batch], Optimizer], steps: int) -> torch.Tensor:
        """Carry runs on, and return their energies (m,) float64."""
        energy = torch.full((len(run.member),), torch.inf, dtype=torch.float64)
        for batch in run.batches:
            optimizer = optimizer_of(batch)
            engine = self._engine(batch.landscape, optimizer)
            batch.carry(optimizer, steps, engine, self.loss == "best", self.context)
            energy[batch.index] = batch.energy()
        return energy

    def _descended(self, run: _Runs) -> torch.Tensor:
        """Return energies (m,) float64 after gradient descent from where the runs have ended."""
        settings = self.held_out
        ended = [
            Batch(one.index, one.landscape, one.reached.tally.x, one.key)
            for one in run.batches
            if one.reached is not None
        ]
        descent = GradientDescent(step_size=settings.step_size)
        return self._carried(_Runs(run.member, ended), lambda batch: descent, settings.descent)

    def _engine(self, landscape: AtomsLandscape, optimizer: Optimizer) -> EngineName:
        """Return an engine that is the same for every batch and number of ranks, unlike ``auto`` of `choose_engine`."""
        if self.engine != "auto":
            return self.engine
        if self.horizon < _WORTH_COMPILING or landscape.segments.ptr.device.type != "cpu":
            return "eager"
        try:
            choose_engine("fused", landscape, optimizer, self.horizon)
        except InputError:
            return "eager"
        return "fused"


class _Runs:
    """Runs on members (m,) int64, as batches."""

    def __init__(self, member: torch.Tensor, batches: list[Batch]) -> None:
        self.member, self.batches = member, batches
