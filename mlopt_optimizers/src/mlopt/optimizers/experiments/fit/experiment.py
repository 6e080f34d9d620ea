"""The experiment `fit`: a potential fitted to labelled structures, over a scan of its settings if one is asked for."""

from __future__ import annotations

import functools
import itertools
import math
import os
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self

from pydantic import ValidationError, field_validator, model_validator

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.elements import SYMBOLS
from mlopt.core.batch.random import Stream, problem_keys, uniform
from mlopt.core.errors import InputError
from mlopt.core.files.atomic import JSON
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, explain, setting
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.core.runs import processes
from mlopt.core.runs.experiment import Context, Experiment
from mlopt.core.runs.session import Session
from mlopt.optimizers.experiments.fit import pictures
from mlopt.optimizers.experiments.fit.candidate import Candidate, with_costs
from mlopt.optimizers.experiments.fit.radial import fit_radial
from mlopt.optimizers.experiments.fit.result import FitResult
from mlopt.optimizers.experiments.fit.trained import train_all
from mlopt.optimizers.fitting.checks import check_energies, check_stresses
from mlopt.optimizers.fitting.data import FitData
from mlopt.optimizers.fitting.least_squares import (
    Solution,
    Triangle,
    Weights,
    atom_bytes,
    left_out,
    solve,
    triangle,
)
from mlopt.optimizers.fitting.prior import Prior
from mlopt.optimizers.fitting.projected import RadialFit, check_radial
from mlopt.optimizers.fitting.training import Stage, Trainer, Training

#: settings that are for linear potentials alone, and for trained ones alone; and what to do
_LINEAR = {
    "weights": "say what residuals count by `training.loss.weights`",
    "prior": "`training.loss.decay` keeps parameters small",
    "folds": "`training.validation` is the share that is held back",
    "memory": "`training.block` says how many atoms are evaluated at a time",
}
_TRAINED = {"training": "leave it out; `weights` say what residuals count"}
#: numbers of checkpoints that each candidate of a scan has to itself
_STEPS = 1000


class Fit(Experiment):
    """Fit a potential to energies, forces and stresses of labelled structures.

    A potential that is linear in its parameters is one least-squares problem. It is solved by QR of blocks of rows and
    singular values, under the prior whose strength has the largest evidence. A scan tries settings of the potential,
    and chooses those with the largest evidence. Structures to test on are evaluated once, in the end::

        Fit(data=FitData(train="train.xyz", test="test.xyz"), potential=Mtp(), scan={"level": [8, 12, 16]}).run()

    ``radial=Stage()`` then fits the radial coefficients of the chosen potential. The least-squares problem is solved
    at each evaluation.

    Any other potential is trained, see `Training`. Settings that play no part in the kind of fit are refused. Under
    ``torchrun`` all processes train together, and the result does not depend on how many there are.
    """

    ranked: ClassVar[bool] = True

    data: FitData = setting(..., "the structures")
    potential: Annotated[FittablePotential, FromRegistry("potential")] = setting(..., "what is fitted")
    weights: Weights = setting(Weights(), "what residuals count")
    group_weights: dict[str, float] = setting({}, "further factors on the weights of groups of structures")
    prior: Prior = setting(Prior(), "what keeps coefficients small")
    radial: Stage | None = setting(
        None, "how the radial coefficients of the chosen potential are fitted; none: they stay as they are"
    )
    training: Training = setting(Training(), "how a potential that is not linear in its parameters is fitted")
    scan: dict[str, list[Any]] = setting(
        {}, "settings of the potential to try, such as {level: [8, 12], cutoff: [5, 6]}"
    )
    folds: int = setting(10, "parts of the data, for cross validation and the learning curve", ge=2, le=100)
    memory: float = setting(1.0, "that a block of rows may take", unit="GB", gt=0)
    seed: int = setting(0, "of drawn structures, of what is left out, and of folds", ge=0, le=2**62)

    @field_validator("scan")
    @classmethod
    def _listed(cls, scan: dict[str, list[Any]]) -> dict[str, list[Any]]:
        empty = [name for name, values in scan.items() if not values]
        if empty:
            raise ValueError(f"`{empty[0]}` lists no values; give at least one, or leave it out")
        return scan

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        """Refuse settings that would be passed over."""
        names, kind = (
            (_TRAINED, "linear in its parameters") if self.potential.linear else (_LINEAR, "trained")
        )
        for name, instead in names.items():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"`{name}` plays no part, for {type(self.potential).__name__} is {kind}: {instead}"
                )
        return self

    def check(self) -> None:
        """Read the data, make every candidate, and check that the largest fits into memory.

        Raises:
            InputError: as `FitData.load`. A candidate is invalid, or would not fit into memory. A group has a weight
                but no structure. A structure to test on has a species that no structure to fit to has. Energies or
                stresses seem to have another unit or sign.
        """
        processes.check(None)
        train, test = self._loaded
        candidates = self._candidates
        if self.radial is not None:
            for _, one in candidates:
                check_radial(one, self.radial)
        if candidates[0][1].linear:
            self._check_memory([len(one.parameters) for _, one in candidates], train)
            smallest = min((one for _, one in candidates), key=lambda one: len(one.parameters))
            check_energies(smallest, train, self.weights)
            check_stresses(smallest, train, self.weights)
        else:
            for _, one in candidates:
                Trainer(self.training, one, train, self.seed)
        known = set(train.systems.z.tolist())
        strange = sorted(set(test.systems.z.tolist()) - known)
        if strange:
            raise InputError(
                f"`data.test` has {', '.join(SYMBOLS[z] for z in strange)}, of which no structure to fit to has any: "
                f"nothing can be learned about it"
            )

    def _check_memory(self, parameters: list[int], train: Dataset) -> None:
        """Refuse a basis whose rows would not fit."""
        largest = max(parameters)
        counts, of_atom = train.systems.segments.counts.tolist(), atom_bytes(largest)
        block = max(of_atom * max(counts, default=0), min(self.memory * 1e9, of_atom * sum(counts)))
        _check_memory(largest, self.folds, block)

    @functools.cached_property
    def _loaded(self) -> tuple[Dataset, Dataset]:
        """What is fitted to, with weights of groups in it, and what is tested on."""
        train, test = self.data.load(self.seed)
        for name, factor in self.group_weights.items():
            chosen = torch.tensor([one == name for one in train.group])
            if not bool(chosen.any()):
                there = ", ".join(sorted(set(train.group) - {""})) or "none"
                raise InputError(
                    f"`group_weights`: no structure is of the group {name!r}; there are: {there}"
                )
            train.weight[chosen] *= factor
        return train, test

    @functools.cached_property
    def _candidates(self) -> list[tuple[dict[str, Any], FittablePotential]]:
        """Each choice of settings of the scan, and the potential with them."""
        train, found = self._loaded[0], []
        for values in itertools.product(*self.scan.values()):
            choice = dict(zip(self.scan, values, strict=True))
            try:
                config = {**self.potential.config(), **choice}
                made = type(self.potential)(**config).prepared(train)
            except ValidationError as error:
                told = "; ".join(explain(error, type(self.potential), config))
                raise InputError(f"`scan`: {choice} makes no potential: {told}") from None
            found.append((choice, made))
        return found

    def run(self, context: Context | None = None) -> FitResult:
        """Fit, choose, test; write results where ``context`` has a place for them.

        Raises:
            InputError: as `check`.
            Preempted: ``context`` asked to stop. A checkpoint of the last whole fold or evaluation has been saved.
        """
        with processes.joined() as here:
            # results and checkpoints are the first process's alone
            return self._run(context if here.rank == 0 else processes.Worker(context), here)

    def _run(self, context: Context | None, here: processes.Ranks) -> FitResult:
        train, test = self._loaded
        session = Session(context, train.digest())
        candidates = self._candidates
        about: dict[str, Any] = {"train": train, "test": test, "experiment": self}
        if candidates[0][1].linear:
            potential, solution, parts, done = self._solved(session, train, candidates)
            if self.radial is not None:
                potential, solution, parts = self._with_radial(
                    self.radial, session, train, potential, solution, done
                )
            about |= {"candidates": self._measured(done, here), "seconds": session.seconds}
            about |= {"smooth": self.prior.smooth}
            result = FitResult.of(potential, solution, parts, **about)
        else:
            potential, trained, done = train_all(
                session, here, candidates, training=self.training, data=train, seed=self.seed
            )
            about |= {"candidates": self._measured(done, here), "seconds": session.seconds}
            result = FitResult.of_training(potential, trained, **about)
        session.context.warn(result.warnings)
        folder = session.context.results()
        if folder is not None:
            result.write(folder)
            pictures.write(result, folder)
        return result

    def _measured(self, done: list[Candidate], here: processes.Ranks) -> list[Candidate]:
        """Return the candidates of a scan with their costs, which the first process alone measures."""
        if len(done) < 2 or here.rank > 0:
            return done
        return with_costs(done, [potential for _, potential in self._candidates], self._loaded[0])

    def _solved(
        self, session: Session, train: Dataset, candidates: list[tuple[dict[str, Any], FittablePotential]]
    ) -> tuple[FittablePotential, Solution, list[Triangle], list[Candidate]]:
        """Return the best linear candidate, its coefficients, its rows, and the measure that decided."""
        fold_of = self._folds(train)
        done: list[Candidate] = []
        parts: list[Triangle] = []
        if session.restored is not None:
            meta = session.restored.meta
            done = [Candidate(**one) for one in meta["candidates"]]
            parts = [_from_tensors(session.restored.tensors, k) for k in range(int(meta["parts"]))]
        best: tuple[FittablePotential, Solution, list[Triangle]] | None = None
        taken = -1
        whole = len(candidates) + (self.radial is not None)
        for number in range(len(done), len(candidates)):
            choice, potential = candidates[number]
            for fold in range(len(parts), self.folds):
                parts.append(self._part(potential, train, fold_of == fold))
                told = f"{len(potential.parameters)} functions, part {fold + 1} of {self.folds}"
                session.context.progress((number + (fold + 1) / self.folds) / whole, told)
                if session.context.pause() and fold + 1 < self.folds:
                    _save(session, _STEPS * number + fold + 1, done, parts)
                    session.leave_if_asked()
            solution = self._solve(potential, parts)
            one = Candidate(choice, len(potential.parameters), solution.evidence, solution.strength)
            if len(candidates) > 1:
                folds = {"strength": solution.strength, "smooth": self.prior.smooth}
                error = left_out(parts, potential.roughness(), **folds)
                one = replace(one, left_out=error, by_folds=self.prior.strength == "cross-validation")
            done.append(one)
            step = _STEPS * (number + 1)
            session.context.metric(step, evidence=solution.evidence, parameters=len(potential.parameters))
            if best is None or one.merit > max(other.merit for other in done[:-1]):
                best, taken = (potential, solution, parts), number
            parts = []
            _save(session, step, done, parts)
            session.leave_if_asked()
        number = max(range(len(done)), key=lambda k: done[k].merit)
        if best is None or taken != number:  # a resumed run has forgotten the rows of the best
            potential = candidates[number][1]
            parts = [self._part(potential, train, fold_of == fold) for fold in range(self.folds)]
            best = potential, self._solve(potential, parts), parts
        return (*best, done)

    def _with_radial(
        self,
        stage: Stage,
        session: Session,
        train: Dataset,
        potential: FittablePotential,
        solution: Solution,
        done: list[Candidate],
    ) -> tuple[FittablePotential, Solution, list[Triangle]]:
        """Return the chosen potential with fitted radial coefficients, solved for anew, and its rows."""
        search = RadialFit(
            potential,
            train,
            stage,
            solution=solution,
            weights=self.weights,
            smooth=self.prior.smooth,
            spread=self.prior.radial,
            memory=self.memory,
            seed=self.seed,
        )
        share = len(done) / (len(done) + 1)
        found = fit_radial(session, search, first_step=_STEPS * len(done), done=done, share=share)
        fold_of = self._folds(train)
        parts = [self._part(found, train, fold_of == fold) for fold in range(self.folds)]
        return found, self._solve(found, parts), parts

    def _part(self, potential: FittablePotential, train: Dataset, chosen: torch.Tensor) -> Triangle:
        """Return the rows of the structures that are chosen (n,) bool."""
        return triangle(potential, train.select(torch.nonzero(chosen).flatten()), self.weights, self.memory)

    def _solve(self, potential: FittablePotential, parts: list[Triangle]) -> Solution:
        strength = self.prior.strength
        return solve(
            Triangle.merged(parts),
            potential.roughness(),
            strength=strength if isinstance(strength, float) else None,
            smooth=self.prior.smooth,
            folds=parts if strength == "cross-validation" else (),
        )

    def _folds(self, train: Dataset) -> torch.Tensor:
        """Return the fold of each structure, (n,). Groups are spread evenly over folds, as far as they go."""
        key = problem_keys(self.seed, torch.arange(len(train)))
        order = uniform(key, torch.full_like(key, Stream.FOLD), 1)[:, 0].argsort()
        places = {name: index for index, name in enumerate(sorted(set(train.group)))}
        group = torch.tensor([places[name] for name in train.group])
        sorted_by_group = order[group[order].argsort(stable=True)]
        found = torch.empty(len(train), dtype=torch.int64)
        found[sorted_by_group] = torch.arange(len(train)) % self.folds
        return found


def _save(session: Session, step: int, done: list[Candidate], parts: list[Triangle]) -> None:
    """Keep the candidates that are done, and the parts of the present one."""
    tensors = {name: one for k, part in enumerate(parts) for name, one in _to_tensors(part, k).items()}
    told: list[JSON] = [one.plain() for one in done]
    session.save(step, tensors, {"candidates": told, "parts": len(parts)})


def _to_tensors(part: Triangle, index: int) -> dict[str, torch.Tensor]:
    counts = torch.tensor([part.n_forces, part.rows])
    arrays = {
        "upper": torch.from_numpy(part.upper),
        "squares": torch.from_numpy(part.squares),
        "counts": counts,
    }
    return {f"{index}.{name}": one for name, one in arrays.items()}


def _from_tensors(tensors: dict[str, torch.Tensor], index: int) -> Triangle:
    counts = tensors[f"{index}.counts"].tolist()
    return Triangle(tensors[f"{index}.upper"].numpy(), tensors[f"{index}.squares"].numpy(), *counts)


def _check_memory(parameters: int, folds: int, block: float) -> None:
    """Refuse what would not fit: triangles of all folds, the work of a decomposition, and a block of rows (bytes)."""
    wanted = 8.0 * (parameters + 1) ** 2 * (2 * folds + 8) + block
    there = _memory()
    if wanted > 0.8 * there:
        raise InputError(
            f"{parameters:,} parameters need about {wanted / 1e9:.1f} GB, and this machine has "
            f"{there / 1e9:.1f} GB: take a lower level or degree, fewer `folds`, or smaller "
            f"structures"
        )


def _memory() -> float:
    """Bytes of memory of this machine; infinity where it does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf
