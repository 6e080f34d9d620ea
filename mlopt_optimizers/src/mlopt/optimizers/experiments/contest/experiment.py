"""The experiment `contest`: optimizers on the same systems, from the same starts, at equal force calls."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import field_validator, model_validator

from mlopt.core.driver.engine import EngineName
from mlopt.core.plugins.plugin import FromRegistry, Plugin, setting
from mlopt.core.protocols.optimizer import Optimizer, energies_only
from mlopt.core.quoting import quoted
from mlopt.core.runs.experiment import Context, Experiment
from mlopt.core.runs.nested import NestedContext
from mlopt.core.runs.session import Session
from mlopt.optimizers.experiments.contest.result import ContestResult, line
from mlopt.optimizers.experiments.search.experiment import Search
from mlopt.optimizers.experiments.search.polish import Polish
from mlopt.optimizers.searches.settings import Budget, MinimaSettings, Target
from mlopt.optimizers.training.tasks.systems import Case, labels_of


class Contestant(Plugin):
    """An optimizer and its name."""

    label: str = setting(..., "name in tables", min_length=1)
    optimizer: Annotated[Optimizer, FromRegistry("optimizer")] = setting(..., "local optimizer or search")
    systems: list[str] | None = setting(None, "labels of its systems, such as Ar38; none: all systems")

    @field_validator("optimizer")
    @classmethod
    def _of_energies(cls, optimizer: Optimizer) -> Optimizer:
        return energies_only(optimizer)


class Contest(Experiment):
    """A comparison of optimizers on systems, from the same starts: final energies, hits and cost.

    Each pair is a `Search` with its own folder of files. Random numbers are the same for all optimizers. All force
    calls are counted, including those of the final descent. A mean is over all starts that ended at a finite energy.

    With ``stop: start`` a start ends when it hits. If the target is the global minimum, the mean, the lowest energy and
    the hits do not change; only ``force_calls`` are fewer.
    """

    systems: list[Case] = setting(..., "the systems, of any sizes, species and potentials", min_length=1)
    contestants: list[Contestant] = setting(..., "the optimizers with their names", min_length=1)
    starts: int = setting(150, "number of starts of every optimizer on every system", ge=1, le=1_000_000)
    force_calls: int = setting(50_000, "limit for each start", ge=1)
    stop: Literal["never", "start"] = setting("start", "what ends when a start hits")
    polish: Polish = setting(Polish(), "final descent, the same for every optimizer")
    seed: int = setting(0, "seed of random numbers; the same seed gives the same result", ge=0, le=2**62)
    dtype: Literal["float64", "float32"] = setting(
        "float64", "floating-point type of the searches; the polish is in float64"
    )
    device: str = setting("cpu", "cpu, cuda, cuda:1, ...")
    engine: EngineName = setting("auto", "eager, fused or auto, as in `search`")

    @field_validator("contestants")
    @classmethod
    def _different(cls, value: list[Contestant]) -> list[Contestant]:
        labels = [one.label for one in value]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(
                f"two contestants are called {quoted(twice[0])}; tables could not tell them apart"
            )
        return value

    @model_validator(mode="after")
    def _meet(self) -> Contest:
        labels = labels_of(self.systems)
        for one in self.contestants:
            for name in one.systems or []:
                if name not in labels:
                    raise ValueError(
                        f"contestant {quoted(one.label)} is to meet {quoted(name)}, which is none of the systems; "
                        f"these are {', '.join(labels)}"
                    )
        return self

    @property
    def pairs(self) -> list[tuple[str, Contestant, Search]]:
        """Label of the system, contestant, and its search, in the order of the table."""
        return [
            (label, one, self._search(case, one))
            for label, case in zip(labels_of(self.systems), self.systems, strict=True)
            for one in self.contestants
            if one.systems is None or label in one.systems
        ]

    def check(self) -> None:
        """Check every search; errors as in `Search.check`."""
        for _, _, search in self.pairs:
            search.check()

    def run(self, context: Context | None = None) -> ContestResult:
        """Run all searches, one after the other; write results if ``context`` has a folder for them.

        Raises:
            InputError: as in `check`.
            Preempted: ``context`` asked to stop; a checkpoint has been saved.
        """
        session = Session(context)
        context, pairs = session.context, self.pairs
        found = ContestResult.of(self.starts, session.restored)
        nested = NestedContext(session, "search", found.to_checkpoint, column="pair")
        for number in range(nested.number, len(pairs)):
            label, contestant, search = pairs[number]
            began, name = time.monotonic(), f"{contestant.label} on {label}"
            to_follow = (len(pairs) - number - 1) * self.starts * self.force_calls
            nested.begin(name, of=len(pairs), calls_to_follow=to_follow)
            found.add(label, contestant.label, search.run(nested))
            context.log(f"{name}: {line(found.rows[-1])}, {time.monotonic() - began:.0f} s")
            nested.end()
        folder = context.results()
        if folder is not None:
            found.write(folder)
        return found

    def _search(self, case: Case, contestant: Contestant) -> Search:
        target = None
        if case.target is not None:
            target = Target(energy=case.target, tolerance=case.tolerance, stop=self.stop)
        return Search(
            system=case.system,
            potential=case.potential,
            optimizer=contestant.optimizer,
            start=case.start,
            starts=self.starts,
            budget=Budget(force_calls=self.force_calls),
            target=target,
            polish=self.polish,
            minima=MinimaSettings(keep=1, per_start=1),
            seed=self.seed,
            dtype=self.dtype,
            device=self.device,
            engine=self.engine,
        )
