"""The experiment `active`: a potential that is learned from labels which walkers ask for on their way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import field_validator

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.digest import structure_digest
from mlopt.core.atoms.elements import SYMBOLS
from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import Draws, Stream, derive, problem_keys
from mlopt.core.driver.engine import EngineName
from mlopt.core.driver.external import ExternalOptimizer
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.input_file import AbsolutePath
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.core.protocols.labeller import Labeller
from mlopt.core.protocols.optimizer import Optimizer, local_only
from mlopt.core.protocols.start import StartSampler
from mlopt.core.runs.experiment import Context, Experiment
from mlopt.core.runs.session import Session
from mlopt.core.structures.checks import check_same_atoms
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers.bands.checks import check_ends
from mlopt.optimizers.experiments.active.band_walk import BandBetween, BandWalk
from mlopt.optimizers.experiments.active.cut import CutOut
from mlopt.optimizers.experiments.active.hunt import Hunt
from mlopt.optimizers.experiments.active.learned import Learner
from mlopt.optimizers.experiments.active.result import ActiveResult
from mlopt.optimizers.experiments.active.settings import Asking, Beginning
from mlopt.optimizers.experiments.active.sitting import Sitting
from mlopt.optimizers.experiments.active.walk import Journey, Walk
from mlopt.optimizers.experiments.fit.experiment import Prior
from mlopt.optimizers.fitting.least_squares import Weights
from mlopt.optimizers.labelling.ledger import Ledger
from mlopt.optimizers.searches.settings import MinimaSettings
from mlopt.optimizers.starts.starts import GivenStart, HarmonicStart


class Active(Experiment):
    """Learning on the fly: walkers move on a fitted potential, and ask for labels where it cannot be trusted.

    ``optimizer`` decides what walkers do: an integrator is molecular dynamics, a local optimizer relaxes, a search
    looks for the lowest minimum. The labeller computes what they ask for, the potential is fitted anew, and they go on
    from where they stood (Podryabinkin & Shapeev, Comput. Mater. Sci. 140, 171 (2017))::

        Active(system="Cu13", potential=Mtp(level=8), labeller=CalculatorLabeller(...), optimizer=BasinHopping()).run()

    Every label is in a ledger before it is used: a run that is killed computes none of them again.
    """

    system: SystemSpec = setting(..., "the system: a formula, a crystal or a structure file")
    potential: Annotated[FittablePotential, FromRegistry("potential")] = setting(
        ..., "what is fitted; linear in its parameters"
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
        "largest force at which that ends; with `band`, of a label at an end or at the saddle",
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

    def check(self) -> None:
        """Read the structure and the first labels, and see whether the settings fit together.

        Raises:
            InputError: they do not; names what to change.
        """
        if not self.potential.linear:
            raise InputError(
                f"active: {type(self.potential).__name__} is not linear in its parameters, and would have to be "
                f"trained anew after every label; take a linear potential such as mtp"
            )
        if self.band is not None:
            self._check_band(self.band)
        if (self.optimizer.searching or self.optimizer.seeks == "nothing") and self.fmax is not None:
            raise InputError("`fmax` ends relaxations only; leave it out with a search, and with dynamics")
        if not self.system.placed and self._start.given:
            raise InputError("`start: given` needs positions, and a formula has none: give a `system.file`")
        if self.asking.cut is not None:
            self._check_cut(self.asking.cut)
        system = self.system.load()
        self.potential.check(system)
        if self.begin.file is not None:
            self._fitting(self.begin.file.read(), system)
        elif self.begin.structures >= self.labels:
            raise InputError(
                f"`labels` ({self.labels}) leaves none beyond the {self.begin.structures} structures of `begin`"
            )

    def _fitting(self, data: Dataset, system: Systems) -> None:
        """Refuse first labels that say nothing about a species of the system, or that the potential refuses."""
        without = sorted(set(system.z.tolist()) - set(data.systems.z.tolist()))
        if without:
            names = ", ".join(SYMBOLS[number] for number in without)
            raise InputError(
                f"active: the structures of `begin.file` have no {names}, which the system has; add some that do, or "
                f"leave the file out"
            )
        self.potential.prepared(data)

    def _check_band(self, band: BandBetween) -> None:
        try:
            local_only(self.optimizer)
        except ValueError as error:
            raise InputError(f"active: `optimizer` relaxes the band: {error}") from None
        if self.fmax is None or self.fmax > self.polish_fmax:
            raise InputError(
                f"a band needs `fmax`, the largest force on it by the fitted potential, of at most `polish_fmax` "
                f"({self.polish_fmax:g}), that of labels; give about half of it"
            )
        if not band.climbing or band.kind != "neb":
            raise InputError(
                "the saddle of a band is labelled where an image has climbed to it; leave out `band.climb` and "
                "`band.kind`"
            )
        if not (self.system.placed and band.final.placed and self._start.given):
            raise InputError("a band is between two structures; give files, and leave out `start`")
        initial, final = self.system.load(), band.final.load()
        check_same_atoms(final, initial, "`band.final`", "`system`")
        check_ends(AtomsLandscape(initial, self.potential), initial.pos, final.pos)

    def _check_cut(self, cut: CutOut) -> None:
        if self.optimizer.searching:
            raise InputError("a search has whole minima labelled; leave out `asking.cut`")
        reach = self.potential.reach
        if reach is None:
            raise InputError(
                f"active: {type(self.potential).__name__} does not tell how far its atoms reach; leave out `asking.cut`"
            )
        if cut.radius < reach:
            raise InputError(
                f"`asking.cut.radius` ({cut.radius:g}) is below the reach of the potential ({reach:g}): the atom in "
                f"the middle would lack neighbours; give at least {reach:g}, better twice that"
            )

    def run(self, context: Context | None = None) -> ActiveResult:
        """Walk, ask, label and fit until no walker asks any more.

        Raises:
            InputError: as `check`; or a labeller refuses the structures.
            MloptError: too many labels failed in a row.
            Preempted: ``context`` asked to stop, or labels have to come from elsewhere; a checkpoint has been saved.
        """
        system = self.system.load()
        session = Session(context, " ".join(structure_digest(one) for one in self.states(system)))
        with self._ledger(session.context) as ledger:
            return Sitting(self, system, session, ledger).whole()

    @property
    def _start(self) -> StartSampler:
        if self.start is not None:
            return self.start
        return HarmonicStart() if not self.system.placed else GivenStart()

    @contextmanager
    def _ledger(self, context: Context) -> Iterator[Ledger]:
        """The ledger of the settings, that of the run, or one that nobody keeps."""
        folder = context.results()
        with tempfile.TemporaryDirectory() as scratch:
            own = Path(scratch if folder is None else folder) / "ledger.db"
            with Ledger(own if self.ledger is None else self.ledger) as ledger:
                yield ledger

    def states(self, system: Systems) -> list[Systems]:
        """Return the structures between which walkers are: the system, and the other end of a band."""
        return [system] if self.band is None else [system, self.band.final.load()]

    def learner(self, system: Systems) -> Learner:
        """Return what makes knowledge of labels; system: a batch of one, which walkers move."""
        strength = self.prior.strength
        return Learner(
            system,
            self.potential,
            self.weights,
            strength if isinstance(strength, float) else None,
            self.prior.smooth,
            self.memory,
            self.soften,
            self.asking.by,
        )

    def drawn(self, system: Systems, count: int, *streams: int) -> Systems:
        """Return ``count`` copies of the system, or by turns of both ends, where walkers or first structures are."""
        states = self.states(system)
        many = Systems.concatenate([states[index % len(states)] for index in range(count)])
        key = derive(problem_keys(self.seed, torch.arange(count)), *streams)
        diameter = self.potential.diameter(many.z)
        drawn = self._start.sample(many, diameter, key)
        return many.with_pos(torch.where(many.fixed[:, None], many.pos, drawn))

    def beginning(self, system: Systems) -> Systems:
        """Return the structures that are labelled first: starts, or shaken and strained copies of a given structure."""
        count = self.begin.structures
        many = self.drawn(system, count, Stream.BEGINNING)
        if not self._start.given:
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
