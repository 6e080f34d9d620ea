"""The settings of the experiment `active`, and the parts that they ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import field_validator, model_validator

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import Draws, Stream, derive, problem_keys
from mlopt.core.driver.engine import EngineName
from mlopt.core.driver.external import ExternalOptimizer
from mlopt.core.driver.stop import Stop
from mlopt.core.lazy import torch
from mlopt.core.plugins.input_file import AbsolutePath
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.core.protocols.labeller import Labeller
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.protocols.start import StartSampler
from mlopt.core.runs.experiment import Experiment
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers.experiments.active.band_walk import BandBetween, BandWalk
from mlopt.optimizers.experiments.active.further import Further
from mlopt.optimizers.experiments.active.hunt import Hunt
from mlopt.optimizers.experiments.active.journey import Journey
from mlopt.optimizers.experiments.active.learned import Learner
from mlopt.optimizers.experiments.active.linear import LinearLearner
from mlopt.optimizers.experiments.active.settings import Asking, Beginning
from mlopt.optimizers.experiments.active.trained import TrainedLearner
from mlopt.optimizers.experiments.active.walk import Walk
from mlopt.optimizers.fitting.least_squares import Weights
from mlopt.optimizers.fitting.prior import Prior
from mlopt.optimizers.fitting.training import Look, Stage, Training
from mlopt.optimizers.querying.grade import By
from mlopt.optimizers.searches.settings import MinimaSettings
from mlopt.optimizers.starts.starts import GivenStart, HarmonicStart

#: settings that are for potentials that are linear in their parameters, and for trained ones, and what to do
_LINEAR = {
    "weights": "say what residuals count by `training.loss.weights`",
    "prior": "`training.loss.decay` keeps parameters small",
    "memory": "`training.block` says how many atoms are evaluated at a time",
    "radial": "`training` is of all parameters",
}
_TRAINED = {
    "training": "leave it out; `weights` say what residuals count",
    "further": "leave it out; only with `radial` its `growth` counts",
}


class ActivePlan(Experiment):
    """The settings of `Active`, with the learner, the walkers and the first structures that follow from them."""

    system: SystemSpec = setting(..., "the system: a formula, a crystal or a structure file")
    potential: Annotated[FittablePotential, FromRegistry("potential")] = setting(
        ..., "what is fitted, by least squares where it is linear in its parameters, else by training"
    )
    labeller: Annotated[Labeller, FromRegistry("labeller")] = setting(
        ..., "what computes energies and forces"
    )
    optimizer: Annotated[Optimizer, FromRegistry("optimizer")] = setting(
        ..., "what walkers do: an integrator, a local optimizer or a search"
    )
    start: Annotated[StartSampler | None, FromRegistry("start")] = setting(
        None, "initial positions of each walker; none: those of the file, or random ones for a formula"
    )
    walkers: int = setting(
        8,
        "number of walkers; all share one potential; with `band` these are its ends and images",
        ge=1,
        le=100_000,
    )
    force_calls: int = setting(
        5000, "of the fitted potential, for each walker; of a search, in each round", ge=1
    )
    fmax: float | None = setting(
        None, "largest force at which a relaxation or a band ends", unit="energy/length", gt=0
    )
    band: BandBetween | None = setting(
        None, "a nudged elastic band from the system to another minimum, instead of walkers"
    )
    begin: Beginning = setting(Beginning(), "the labels before the first walk")
    asking: Asking = setting(Asking(), "when labels are asked for, and which")
    labels: int = setting(500, "largest number of labels of the run, those to begin with included", ge=1)
    ledger: AbsolutePath | None = setting(
        None, "file of all labels, which runs can share; none: one in the results of the run"
    )
    weights: Weights = setting(Weights(), "what residuals count")
    prior: Prior = setting(Prior(), "what keeps coefficients small")
    radial: Stage | None = setting(
        None, "how radial functions of a linear potential are fitted, from those that it has; none: they stay"
    )
    training: Training = setting(
        Training(stages=[Stage(evaluations=500)], seeds=4, validation=0.0),
        "how a potential that is not linear in its parameters is fitted from scratch; its seeds are a committee",
    )
    further: Further = setting(Further(), "how it learns the labels of each round")
    soften: float | None = setting(
        None,
        "force at which a structure counts half in the fit; none: all count alike",
        unit="eV/angstrom",
        gt=0,
    )
    polish: int = setting(
        3, "of a search: lowest structures that are relaxed at the end by labels alone, 0 for none", ge=0
    )
    polish_fmax: float = setting(
        0.01,
        "largest force of a label there, at the ends of relaxations, and at the ends and the saddle of `band`",
        unit="energy/length",
        gt=0,
    )
    minima: MinimaSettings = setting(MinimaSettings(), "of a search: which minima are different")
    memory: float = setting(1.0, "that a block of rows may take", unit="GB", gt=0)
    seed: int = setting(0, "seed of random numbers; the same seed gives the same result", ge=0, le=2**62)
    engine: EngineName = setting("auto", "eager, fused or auto; see `search`")

    @field_validator("optimizer")
    @classmethod
    def _steps(cls, optimizer: Optimizer) -> Optimizer:
        if isinstance(optimizer, ExternalOptimizer):
            raise ValueError(
                f"{type(optimizer).__name__} owns its loop and cannot wait for labels; take lbfgs, a search or an "
                f"integrator"
            )
        return optimizer

    @field_validator("prior")
    @classmethod
    def _without_folds(cls, prior: Prior) -> Prior:
        if prior.strength == "cross-validation":
            raise ValueError("labels come one by one, and are not in folds; take `strength: evidence`")
        return prior

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        """Refuse settings that would be passed over."""
        linear, name = self.potential.linear, type(self.potential).__name__
        kind = "linear in its parameters" if linear else "trained"
        for one, instead in (_TRAINED if linear else _LINEAR).items():
            given, plain = getattr(self, one), type(self).model_fields[one].default
            if one == "further" and self.radial is not None:
                given = given.replace(growth=plain.growth)
            if given != plain:
                raise ValueError(f"`{one}` plays no part, for {name} is {kind}: {instead}")
        if self.asking.by == "committee" and linear:
            raise ValueError(
                f"`asking.by: committee` is for potentials that are trained, and {name} is {kind}"
            )
        if self.by == "committee" and self.training.seeds < 2:
            raise ValueError(
                "a committee has two members or more: give `training.seeds: 4`, or grades by an active set, "
                "`asking.by: neighbourhoods`"
            )
        if self.by != "committee" and self.asking.agreement != Asking().agreement:
            raise ValueError(
                "`asking.agreement` is of a committee, and grades are by an active set; leave it out"
            )
        return self

    @property
    def by(self) -> Literal["neighbourhoods", "configurations", "committee"]:
        """What grades are by: that of the settings, or what suits the potential."""
        return self.asking.by or ("neighbourhoods" if self.potential.linear else "committee")

    @property
    def starter(self) -> StartSampler:
        """The start of walkers: that of the settings, or what suits the system."""
        if self.start is not None:
            return self.start
        return HarmonicStart() if not self.system.placed else GivenStart()

    @property
    def ends_labelled(self) -> bool:
        """Whether walkers are relaxations whose ends are labelled."""
        relaxing = self.fmax is not None and self.band is None
        return relaxing and self.asking.ends and self.asking.cut is None

    def states(self, system: Systems) -> list[Systems]:
        """Return the structures between which walkers are: the system, and the other end of a band."""
        return [system] if self.band is None else [system, self.band.final.load()]

    def learner(self, system: Systems, looked: Callable[[Look], None] = lambda look: None) -> Learner:
        """Return the learner, which fits potentials to labels.

        system: a batch of one, which walkers move.
        looked: a function that is called at every look of a training, or of a fit of radial functions.
        """
        about = (system, self.potential, self.soften)
        by: By | None = None if self.by == "committee" else self.by
        if by is None or not self.potential.linear:
            agreement = self.asking.agreement if by is None else None
            return TrainedLearner(*about, self.training, self.further, by, agreement, self.seed, looked)
        strength = self.prior.strength if isinstance(self.prior.strength, float) else None
        return LinearLearner(
            *about,
            weights=self.weights,
            strength=strength,
            smooth=self.prior.smooth,
            memory=self.memory,
            by=by,
            radial=self.radial,
            growth=self.further.growth,
            spread=self.prior.radial,
            seed=self.seed,
            looked=looked,
        )

    def drawn(self, system: Systems, count: int, *streams: int) -> Systems:
        """Return ``count`` copies of the system, or by turns of both ends, where walkers or first structures are."""
        states = self.states(system)
        many = Systems.concatenate([states[index % len(states)] for index in range(count)])
        key = derive(problem_keys(self.seed, torch.arange(count)), *streams)
        diameter = self.potential.diameter(many.z)
        drawn = self.starter.sample(many, diameter, key)
        return many.with_pos(torch.where(many.fixed[:, None], many.pos, drawn))

    def beginning(self, system: Systems) -> Systems:
        """Return the structures that are labelled first: starts, or shaken and strained copies of a given structure."""
        count = self.begin.structures
        many = self.drawn(system, count, Stream.BEGINNING)
        if not self.starter.given:
            return many
        draws = Draws(
            derive(problem_keys(self.seed, torch.arange(count)), Stream.SHAKEN),
            torch.zeros(count, dtype=torch.int64),
            many.segments,
        )
        noise = (2.0 * draws.uniform(9) - 1.0).reshape(-1, 3, 3)
        crystal = many.pbc.all(-1)[:, None, None]
        strain = torch.eye(3, dtype=torch.float64) + crystal * self.begin.strain * 0.5 * (noise + noise.mT)
        moved = (many.pos[:, None, :] @ strain[many.batch])[:, 0]
        shaken = moved + self.begin.displacement * draws.normal_rows(3)
        pos = torch.where(many.fixed[:, None], moved, shaken)
        return replace(many, pos=pos, cell=many.cell @ strain)

    def walk(self, system: Systems, announce: Any) -> Walk:
        """Return the walkers before their first step."""
        band = self.band
        number = self.walkers if band is None else band.images + 2
        systems = self.drawn(system, number, Stream.START)
        key = problem_keys(self.seed, torch.arange(number))
        stop = Stop(self.force_calls, self.fmax)
        about = (systems, self.optimizer, stop, self.asking, key)
        if band is not None:
            ends = systems.select([0] * (number - 1) + [1])
            return BandWalk(ends, *about[1:], self.engine, announce, band=band, settled=self.polish_fmax)
        if self.optimizer.searching:
            window, tolerance = self.minima.energy_window, self.minima.distance_tolerance
            return Hunt(
                *about,
                self.engine,
                announce,
                tolerance=tolerance,
                window=window,
                fresh=lambda number: self.drawn(system, self.walkers, Stream.START, number).pos,
            )
        return Journey(*about, self.engine, announce)
