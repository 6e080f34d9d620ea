"""The experiment `active`: walkers stop where they should, labels are computed once, and a run may be cut anywhere."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import read, write
from pydantic import ValidationError
from small_actives import Counting, dynamics, relaxation, search

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import Stream, problem_keys
from mlopt.core.driver.driver import minimize
from mlopt.core.driver.stop import Reason
from mlopt.core.errors import InputError, MloptError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.plugins import build
from mlopt.core.structures.labels import LabelledFile
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.experiment import check_experiment
from mlopt.core.testing.recorder import FolderRecorder
from mlopt.optimizers.experiments.active import Active, Asking, Beginning
from mlopt.optimizers.experiments.active.hunt import Hunt
from mlopt.optimizers.experiments.active.journey import Journey
from mlopt.optimizers.experiments.active.learned import Learned
from mlopt.optimizers.labelling import Ledger, PotentialLabeller
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.searches.basin_hopping import BasinHopping
from mlopt.optimizers.starts.starts import HarmonicStart
from mlopt.potentials import AsePotential, Gupta, Mtp, StillingerWeber

LABELLER = {"name": "potential", "potential": "stillinger-weber"}


@pytest.fixture(autouse=True)
def _none_yet() -> None:
    Counting.counted.clear()


@pytest.mark.parametrize(
    "make", [pytest.param(one, marks=pytest.mark.slow) for one in (dynamics, relaxation, search)]
)
def test_contract(make: Any, tmp_path: Path) -> None:
    whole = check_experiment(make, tmp_path)
    with Ledger(whole / "results" / "ledger.db") as ledger:
        done = sum(one.done for one in ledger.counts())
    rows = list(csv.DictReader((whole / "results" / "labels.csv").read_text().splitlines()))
    images = read(whole / "results" / "labels.extxyz", ":")
    assert done == len(rows) == len(images) > 3


def test_a_label_is_computed_once(tmp_path: Path) -> None:
    """In one run, and in a second one that shares the ledger."""
    first = dynamics(ledger=str(tmp_path / "all.db")).run()
    paid = sum(Counting.counted)
    assert paid == len(first.record.labels)
    again = dynamics(ledger=str(tmp_path / "all.db")).run()
    assert sum(Counting.counted) == paid
    assert torch.equal(first.potential.parameters, again.potential.parameters)


def begun(experiment: Active) -> tuple[Journey, Learned]:
    """The walkers after the first fit."""
    system = experiment.system.load()
    learned = experiment.learner(system).begun(experiment.labeller.label(experiment.beginning(system)))
    walk = experiment.walk(system, print)
    walk.learn(learned)
    assert isinstance(walk, Journey)
    return walk, learned


def test_looking_less_often_stops_at_the_same_point() -> None:
    """The first structure beyond `stop` does not depend on how often grades are looked at."""
    found = []
    for every in (1, 7):
        walk, learned = begun(dynamics(asking=Asking(every=every, save=3.0, stop=6.0)))
        wishes = walk.advance(lambda: None)
        (stopped,) = [one for one in wishes if one.trigger == "stopped"]
        assert stopped.grade > 6.0 and 1 < stopped.calls < 60
        assert all(3.0 < one.grade <= 6.0 for one in wishes if one.trigger == "put aside")
        assert float(learned.grader.grade(stopped.structure).system) == stopped.grade
        found.append((stopped.walker, stopped.calls, stopped.structure.pos))
    assert found[0][:2] == found[1][:2] and torch.equal(found[0][2], found[1][2])


def test_what_was_labelled_is_known() -> None:
    """Its grade is at most 1 afterwards, and the walker goes on with its velocities."""
    experiment = dynamics()
    walk, learned = begun(experiment)
    wishes = walk.advance(lambda: None)
    asked = Systems.concatenate([one.structure for one in wishes])
    before, state = walk.progress.calls, walk.progress.state
    after = experiment.learner(experiment.system.load()).extended(learned, experiment.labeller.label(asked))
    assert float(after.grader.grade(asked).system.max()) < 1.01
    walk.learn(after)
    assert walk.progress.calls == before and torch.equal(walk.progress.state.velocity, state.velocity)


def test_knowledge_is_restored_bit_for_bit() -> None:
    experiment = dynamics()
    _, learned = begun(experiment)
    again = experiment.learner(experiment.system.load()).restored(learned.to_tensors())
    assert torch.equal(again.potential.parameters, learned.potential.parameters)
    there = experiment.beginning(experiment.system.load())
    assert torch.equal(again.grader.grade(there).row, learned.grader.grade(there).row)


def test_rows_are_added_as_if_all_were_there_at_once() -> None:
    experiment = dynamics(begin=Beginning(structures=12, displacement=0.05))
    data = experiment.labeller.label(experiment.beginning(experiment.system.load()))
    learner = experiment.learner(experiment.system.load())
    once = learner.begun(data)
    pieces = learner.extended(learner.begun(data.select(range(8))), data.select(range(8, 12)))
    there = data.systems
    ours, theirs = (one.potential.evaluate(there) for one in (once, pieces))
    torch.testing.assert_close(ours.energy, theirs.energy, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.force, theirs.force, rtol=0, atol=1e-6)


def test_a_search_finds_the_minimum_of_the_true_potential(tmp_path: Path) -> None:
    experiment = search(force_calls=1000)
    experiment.check()
    found = experiment.run(FolderRecorder(tmp_path))
    assert isinstance(found.walk, Hunt)
    true = Gupta()
    systems = Systems.cluster([79] * 6, 8)
    x = HarmonicStart().sample(systems, true.diameter(systems.z), problem_keys(1, torch.arange(8)))
    plain = minimize(AtomsLandscape(systems, true), BasinHopping(temperature=0.4), x, force_calls=1000)
    lowest = read(tmp_path / "results" / "minima.extxyz", 0)
    assert lowest.get_potential_energy() == pytest.approx(float(plain.energy.min()), abs=2e-4)
    assert float(abs(lowest.get_forces()).max()) < 0.01, "the polish has relaxed it by labels"
    assert sum(Counting.counted) == len(found.record.labels) < 60
    page = found.summary().page()
    assert [one["title"] for one in page["tables"]] == ["Rounds", "Cost", "Walkers"]
    for figure in page["figures"]:
        for file in [figure["file"]] if "file" in figure else [one["file"] for one in figure["structures"]]:
            assert (tmp_path / "results" / file).exists()


def test_a_potential_that_runs_by_name(tmp_path: Path) -> None:
    found = dynamics().run(FolderRecorder(tmp_path))
    again = Mtp(weights=str(tmp_path / "results" / "potential.safetensors"))
    there = found.learned.data.systems
    torch.testing.assert_close(again.evaluate(there).energy, found.potential.evaluate(there).energy)


def test_a_walker_whose_label_fails_is_given_up() -> None:
    found = dynamics(labeller=Counting(potential=StillingerWeber(), most=3.0)).run()
    assert found.record.failed > 0 and Reason.NON_FINITE in found.reasons
    assert any("labels failed" in one for one in found.warnings)
    assert bool(torch.isfinite(found.learned.data.energy).all())


def test_first_labels_that_fail_are_counted() -> None:
    system = dynamics().beginning(dynamics().system.load())
    forces = PotentialLabeller(potential=StillingerWeber()).label(system)
    largest = system.segments.longest2(forces.force).sqrt().sort().values
    most = float(largest[:2].mean())
    found = dynamics(labeller=Counting(potential=StillingerWeber(), most=most), force_calls=1).run()
    begun = sum(one["trigger"] == "beginning" for one in found.record.labels)
    assert begun == 1 and found.record.failed >= 2


def test_a_labeller_that_always_fails_ends_the_run() -> None:
    with pytest.raises(MloptError, match=r"3 labels in a row have failed.*Correct the labeller"):
        dynamics(labeller=Counting(potential=StillingerWeber(), most=0.0, patience=3)).run()
    with pytest.raises(
        InputError, match="none of the first structures could be labelled; the first one: the pot"
    ):
        dynamics(labeller=Counting(potential=StillingerWeber(), most=0.0)).run()


def test_a_labeller_whose_program_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is computed."""
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    Counting.counted.clear()
    with pytest.raises(InputError, match="'tblite' is not installed: `pip install tblite`"):
        dynamics(labeller=Counting(potential=AsePotential(calculator="tblite"))).check()
    assert not Counting.counted


def test_labels_that_are_used_up() -> None:
    found = dynamics(labels=5).run()
    assert len(found.record.labels) == 5 and found.unanswered
    summary = found.summary()
    assert summary.reached is False and any("Raise `labels`" in one for one in found.warnings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": 3}, "leaves none beyond the 3 structures"),
        ({"system": SystemSpec(cluster="Si4"), "start": {"name": "given"}}, "needs positions"),
        ({"optimizer": BasinHopping(), "fmax": 0.1}, "`fmax` ends relaxations only"),
        ({"fmax": 0.1}, "leave it out with a search, and with dynamics"),
        ({"optimizer": LBFGS()}, "`fmax` is missing: .* such as 0.01"),
        ({"asking": {"strategy": "passiv"}}, "Did you mean 'passive'"),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    config = {name: getattr(dynamics(), name) for name in ("system", "potential", "labeller", "optimizer")}
    with pytest.raises(InputError, match=message):
        build(Active, config | {"begin": Beginning(structures=3)} | settings).check()


def labels_of(file: Path, images: list[Atoms]) -> Beginning:
    """First labels of silicon in a file."""
    data = PotentialLabeller(potential=StillingerWeber()).label(Systems.from_atoms(images))
    write(file, data.to_atoms())
    return Beginning(file=LabelledFile(file=str(file)))


def shaken(count: int) -> list[Atoms]:
    """Cells of silicon with tags, one isotope and an atom that is fixed."""
    images = []
    for seed in range(count):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(0.05, seed=seed)
        atoms.set_tags(range(8))
        atoms.set_masses([30.0, *atoms.get_masses()[1:]])
        atoms.set_constraint(FixAtoms([3]))
        images.append(atoms)
    return images


def test_columns_are_restored(tmp_path: Path) -> None:
    """Tags, isotopes and fixed atoms of labelled structures, which a resumed run writes as one that was not stopped."""
    begin = labels_of(tmp_path / "first.extxyz", shaken(3))
    write(tmp_path / "system.extxyz", shaken(1))
    experiment = dynamics(system=SystemSpec(file=str(tmp_path / "system.extxyz")), begin=begin)
    assert begin.file is not None
    system, first = experiment.system.load(), begin.file.read()
    learner = experiment.learner(system)
    more = experiment.labeller.label(experiment.drawn(system, 2, Stream.START))
    learned = learner.extended(learner.begun(first), more)
    again = learner.restored(learned.to_tensors())
    for one, other in zip(learned.data.to_atoms(), again.data.to_atoms(), strict=True):
        assert one == other and one.get_masses()[0] == other.get_masses()[0] == 30.0
        assert other.get_tags().tolist() == list(range(8)) and len(other.constraints) == 1


def test_first_labels_of_another_system(tmp_path: Path) -> None:
    """They are fitted to, but their energies are no minima of this system."""
    begin = labels_of(tmp_path / "first.extxyz", shaken(3))
    system = SystemSpec(cluster="Si4")
    found = search(
        system=system, begin=begin, labeller=Counting(potential=StillingerWeber()), walkers=1, force_calls=60
    ).run()
    energy = found.learned.data.energy
    assert float(energy.min()) < -20.0 < min(float(energy[index]) for index in found.minima)
    assert found.summary()["lowest_energy"] == float(energy[found.minima[0]])
    with pytest.raises(
        InputError, match=r"structures of `begin\.file` have no Ge, which the system has; add some"
    ):
        search(system=SystemSpec(cluster="Si3Ge"), begin=begin).check()


def test_a_relaxation_keeps_to_its_force_calls() -> None:
    """Also where its last points are labelled."""
    for budget in (4, 7):
        found = relaxation(force_calls=budget, fmax=1e-9, asking=Asking(save=1.01, stop=1e9)).run()
        assert found.walk.used.tolist() == [budget, budget]
        assert any(one["trigger"] == "put aside" for one in found.record.labels)


def test_walkers_at_one_place_share_a_label() -> None:
    """Those that begin alike, by default at the structure itself, ask for the same labels and have the same ends."""
    found = relaxation(start=None, fmax=0.05, asking=Asking(labels=4, stop=1e3)).run()
    assert sum(Counting.counted) == len(found.record.labels) == len(found.learned.data)
    assert sorted(found.ends or {}) == [0, 1] and len(set((found.ends or {}).values())) == 1


def test_a_search_whose_labels_end_before_its_minima_are_relaxed_says_so() -> None:
    few = {
        "force_calls": 30,
        "walkers": 1,
        "asking": Asking(labels=1, lowest=1, patience=1),
        "polish_fmax": 1e-9,
    }
    found = search(labels=7, **few).run()
    assert len(found.record.labels) == 7
    (told,) = [one for one in found.warnings if one.startswith("forces of labels")]
    assert told.startswith("forces of labels are above 1e-09 at 1 of the 1 lowest minima, up to")
    assert not any("forces" in one for one in search(labels=7, **few, polish=0).run().warnings)


def test_a_strategy_by_name() -> None:
    config = dynamics().config() | {
        "asking": {"labels": 3, "strategy": "farthest-point"},
        "labeller": LABELLER,
    }
    found = build(Active, config).run()
    assert any(one["trigger"] == "stopped" for one in found.record.labels)


def test_thresholds_in_order() -> None:
    with pytest.raises(ValidationError, match=r"`stop` \(2\) is below `save` \(5\)"):
        Asking(save=5.0, stop=2.0)
