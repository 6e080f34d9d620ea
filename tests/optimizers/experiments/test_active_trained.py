"""The experiment `active` with potentials that are trained: networks that go on from round to round."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ase.build import bulk

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.driver.stop import Reason
from mlopt.core.errors import InputError
from mlopt.core.plugins import build
from mlopt.core.runs.experiment import Preempted
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.experiment import check_experiment
from mlopt.core.testing.recorder import FolderRecorder, Recorder, Resumed
from mlopt.optimizers.dynamics import Langevin
from mlopt.optimizers.experiments.active import Active, Asking, Beginning, CutOut, Further
from mlopt.optimizers.experiments.active.trained import TrainedLearned, TrainedLearner
from mlopt.optimizers.experiments.active.wishes import Wish
from mlopt.optimizers.fitting.prior import Prior
from mlopt.optimizers.fitting.training import Stage, Training
from mlopt.optimizers.labelling import Ledger, PotentialLabeller
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.querying import Disagreement, Grader
from mlopt.optimizers.searches.basin_hopping import BasinHopping
from mlopt.optimizers.starts.starts import HarmonicStart
from mlopt.potentials import BehlerParrinello, Gupta, Mtp, SchNet, StillingerWeber

pytest.importorskip("numba")

#: a network of 25 parameters for silicon
NETWORK: dict[str, Any] = {
    "cutoff": 3.8,
    "radial": [[1.5, 1.9], [1.5, 2.5], [1.5, 3.1]],
    "angular": [[0.05, 1.0, -1.0]],
    "hidden": [4],
}
QUICK = Training(seeds=2, validation=0.0, stages=[Stage(evaluations=40)], every=20)


def dynamics(**settings: Any) -> Active:
    """Silicon that warms up."""
    given: dict[str, Any] = {
        "system": SystemSpec(crystal={"element": "Si", "repeat": [1, 1, 1]}),
        "potential": BehlerParrinello(**NETWORK),
        "labeller": PotentialLabeller(potential=StillingerWeber()),
        "optimizer": Langevin(time_step=2.0, temperature=1500.0, friction=0.02),
        "walkers": 2,
        "force_calls": 40,
        "begin": Beginning(structures=4, displacement=0.05),
        "training": QUICK,
        "further": Further(evaluations=15),
        "asking": Asking(labels=2),
        "labels": 14,
    }
    return Active(**(given | settings))


def by_active_set(**settings: Any) -> Active:
    return dynamics(**({"asking": Asking(labels=2, by="neighbourhoods"), "labels": 10} | settings))


def relaxation(**settings: Any) -> Active:
    return dynamics(**({"optimizer": LBFGS(), "fmax": 0.05, "start": HarmonicStart()} | settings))


@pytest.mark.slow
@pytest.mark.parametrize("make", [dynamics, by_active_set, relaxation])
def test_contract(make: Any, tmp_path: Path) -> None:
    """Among others a run that is stopped or killed, in a training as well, ends with the same bytes."""
    whole = check_experiment(make, tmp_path)
    with Ledger(whole / "results" / "ledger.db") as ledger:
        done = sum(one.done for one in ledger.counts())
    rows = list(csv.DictReader((whole / "results" / "labels.csv").read_text().splitlines()))
    assert done == len(rows) > 4


def test_a_run_in_sittings(tmp_path: Path) -> None:
    """One that leaves wherever it may, also in a training, has the same parameters in the end."""
    whole = dynamics().run()
    recorder, sittings = Recorder(tmp_path, pauses=2), 1
    while True:
        try:
            found = dynamics(ledger=str(tmp_path / "all.db")).run(recorder)
        except Preempted:
            recorder, sittings = Resumed(recorder, pauses=2), sittings + 1
        else:
            break
    assert sittings > 1 and torch.equal(found.learned.members, whole.learned.members)
    assert found.record.plain() == whole.record.plain()


def data_of(experiment: Active, count: int = 6) -> Dataset:
    """Shaken cells with labels."""
    images = []
    for seed in range(count):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(0.05 + 0.02 * seed, seed=seed)
        images.append(atoms)
    return experiment.labeller.label(Systems.from_atoms(images))


def learner_of(experiment: Active) -> TrainedLearner:
    found = experiment.learner(experiment.system.load())
    assert isinstance(found, TrainedLearner)
    return found


def known(learner: TrainedLearner, data: Dataset) -> TrainedLearned:
    found = learner.begun(data)
    assert isinstance(found, TrainedLearned)
    return found


@pytest.mark.parametrize("make", [dynamics, by_active_set])
def test_knowledge_is_restored_bit_for_bit(make: Any) -> None:
    """Also where the potential has taken its scales from fewer labels than there are."""
    experiment = make()
    learner, data = learner_of(experiment), data_of(experiment)
    learned = learner.extended(learner.begun(data.select(range(5))), data.select([5]))
    again = learner.restored(learned.to_tensors())
    assert again.told() == learned.told() and not again.told()["from_scratch"]
    assert torch.equal(again.members, learned.members) and again.potential == learned.potential
    there = experiment.beginning(experiment.system.load())
    assert torch.equal(again.grader.grade(there).row, learned.grader.grade(there).row)
    more = data_of(experiment, 8).select([6, 7])
    assert torch.equal(learner.extended(again, more).members, learner.extended(learned, more).members)


def test_training_goes_on_from_the_present_parameters() -> None:
    """A round without effort changes nothing, and one with some lowers the loss that the new label has raised."""
    idle = dynamics(further=Further(evaluations=1, loss=1e9))
    data = data_of(idle)
    learner = learner_of(idle)
    before = known(learner, data.select(range(5)))
    after = learner.extended(before, data.select([5]))
    assert isinstance(after, TrainedLearned) and torch.equal(after.theta, before.theta)
    assert (after.evaluations, after.anew) == (1, False)
    working = learner_of(dynamics(further=Further(evaluations=20, loss=1e9)))
    better = working.extended(before, data.select([5]))
    assert isinstance(better, TrainedLearned) and better.loss < after.loss and better.evaluations == 20
    assert better.scratch == before.scratch


def test_from_scratch_after_so_many_labels() -> None:
    """Parameters and scales are then those of a run that begins with all labels."""
    experiment = dynamics(further=Further(growth=1.2))
    learner, data = learner_of(experiment), data_of(experiment)
    grown = learner.extended(learner.begun(data.select(range(5))), data.select([5]))
    once = known(learner, data)
    assert isinstance(grown, TrainedLearned) and grown.anew and grown.scratch == once.scratch
    assert torch.equal(grown.theta, once.theta) and grown.potential == once.potential


def test_from_scratch_where_the_loss_has_grown() -> None:
    experiment = dynamics(further=Further(evaluations=1, loss=1.01, growth=9.0))
    learner, data = learner_of(experiment), data_of(experiment)
    before = known(learner, data.select(range(3)))
    after = learner.extended(before, data.select([5]))
    whole = known(learner, data.select([0, 1, 2, 5]))
    assert isinstance(after, TrainedLearned) and after.anew and after.evaluations == 41
    assert torch.equal(after.theta, whole.theta)
    assert after.scratch.loss == after.loss > before.loss


def test_a_worse_start_from_scratch_is_left() -> None:
    """What there is stays, and its loss is the measure from then on."""
    data = data_of(dynamics())
    before = known(
        learner_of(dynamics(training=QUICK.replace(stages=[Stage(evaluations=200)]))), data.select(range(5))
    )
    poor = dynamics(
        training=QUICK.replace(stages=[Stage(evaluations=1)]),
        further=Further(evaluations=1, loss=1.0001, growth=9.0),
    )
    after = learner_of(poor).extended(before, data.select([5]))
    assert isinstance(after, TrainedLearned) and torch.equal(after.theta, before.theta) and not after.anew
    assert after.evaluations == 2 and after.scratch.loss == after.loss > before.loss
    assert after.scratch.prepared == before.scratch.prepared == 5 and after.scratch.labels == 6


def test_labelled_structures_have_grades_of_one_at_most() -> None:
    """So no walker asks twice at the same point; by an active set up to the tolerance of MaxVol."""
    for make, most in ((dynamics, 1.0), (by_active_set, 1.01)):
        experiment = make()
        learned = known(learner_of(experiment), data_of(experiment))
        assert isinstance(learned.grader, Disagreement if make is dynamics else Grader)
        assert float(learned.grader.grade(learned.data.systems).system.max()) <= most
        strange = bulk("Si", cubic=True)
        strange.rattle(0.5, seed=1)
        assert float(learned.grader.grade(Systems.from_atoms([strange])).system) > 2.0


def test_an_active_set_that_is_not_initialised() -> None:
    """With fewer atoms than parameters nothing but what is labelled has a grade, and walkers ask at once."""
    experiment = by_active_set(potential=BehlerParrinello(**(NETWORK | {"hidden": [8, 8]})), labels=7)
    found = experiment.run()
    assert isinstance(found.learned.grader, Grader)
    assert found.learned.told()["rank"] < found.learned.told()["parameters"]
    assert [one["grade"] for one in found.record.labels if one["trigger"] == "stopped"] == [None] * 3
    assert found.unanswered and found.reasons == [Reason.RUNNING] * 2


def test_wishes_of_a_committee_go_by_turns() -> None:
    experiment = dynamics()
    learned = known(learner_of(experiment), data_of(experiment))
    system = experiment.system.load()
    asked = [(0, 9.0), (0, 8.0), (1, 3.0), (0, 7.0), (2, 5.0), (1, 2.5)]
    wishes = [Wish(system, walker, 1, grade, "put aside") for walker, grade in asked]
    assert learned.teaching(wishes) == [0, 4, 2, 1, 5, 3]


def test_forces_where_walkers_end(tmp_path: Path) -> None:
    """They are right where labels could be had, and wrong where they could not."""
    off, larger = (
        [],
        NETWORK | {"angular": [[0.05, 1.0, -1.0], [0.05, 4.0, -1.0], [0.05, 1.0, 1.0]], "hidden": [6]},
    )
    for labels in (60, 5):
        found = dynamics(
            potential=BehlerParrinello(**larger),
            training=QUICK.replace(stages=[Stage(evaluations=200)], seeds=3),
            further=Further(evaluations=60),
            asking=Asking(labels=3),
            force_calls=150,
            labels=labels,
        ).run(FolderRecorder(tmp_path / str(labels)))
        if labels == 60:
            there = found.found
            assert not found.unanswered and set(found.reasons) == {Reason.BUDGET}
            page = found.summary().page()
            assert [one["title"] for one in page["tables"]] == ["Rounds", "Cost", "Walkers"]
        true = StillingerWeber().evaluate(there).force
        off.append(float((found.potential.evaluate(there).force - true).square().mean().sqrt()))
    assert off[0] < 0.3 and off[1] > 3.0 * off[0]


def test_a_network_that_runs_by_name(tmp_path: Path) -> None:
    found = dynamics(force_calls=5).run(FolderRecorder(tmp_path))
    there = found.learned.data.systems
    ours = torch.stack(
        [found.potential.with_theta(one).evaluate(there).energy for one in found.learned.members]
    )
    files = sorted((tmp_path / "results").glob("*.safetensors"))
    assert [file.name for file in files] == [
        "member-1.safetensors",
        "member-2.safetensors",
        "potential.safetensors",
    ]
    theirs = [BehlerParrinello(weights=str(file)).evaluate(there).energy for file in files]
    torch.testing.assert_close(torch.stack(theirs[:2]), ours)
    torch.testing.assert_close(theirs[2], found.potential.evaluate(there).energy)


def test_atoms_that_are_fixed_have_no_grade() -> None:
    """Their forces are not fitted, and members never agree about them."""
    experiment = dynamics()
    learned = known(learner_of(experiment), data_of(experiment))
    strange = data_of(experiment).systems
    fixed = torch.zeros_like(strange.fixed)
    fixed[::2] = True
    grades = learned.grader.grade(replace(strange, fixed=fixed)).row
    assert bool((grades[::2] == 0).all()) and bool((grades[1::2] > 0).all())


@pytest.mark.slow
def test_pieces(tmp_path: Path) -> None:
    """Of a cut-out the forces on the core count, and nothing else."""
    found = dynamics(
        system=SystemSpec(crystal={"element": "Si", "repeat": [2, 2, 2]}),
        walkers=1,
        asking=Asking(labels=2, cut=CutOut(radius=4.0, form="cluster"), save=1.05, stop=1.2),
        labels=8,
    ).run(FolderRecorder(tmp_path))
    assert not bool(found.learned.whole.all())
    assert all(torch.isfinite(torch.tensor(one["loss"])) for one in found.record.rounds)


@pytest.mark.slow
def test_a_search_with_a_network(tmp_path: Path) -> None:
    """The lowest minimum of six atoms of gold, an energy by label."""
    found = dynamics(
        system=SystemSpec(cluster="Au6"),
        potential=BehlerParrinello(cutoff=5.0, hidden=[6], functions="amp"),
        labeller=PotentialLabeller(potential=Gupta()),
        optimizer=BasinHopping(temperature=0.4),
        walkers=3,
        force_calls=200,
        begin=Beginning(structures=8),
        asking=Asking(labels=3, patience=2),
        soften=3.0,
        polish=1,
        labels=30,
    ).run(FolderRecorder(tmp_path))
    assert found.minima and bool(torch.isfinite(found.walk.points).all())
    assert found.summary()["lowest_energy"] == float(found.learned.data.energy[found.minima[0]])


@pytest.mark.slow
def test_message_passing() -> None:
    found = dynamics(
        potential=SchNet(cutoff=3.8, hidden=4, filters=4, gaussians=6, rounds=1), force_calls=10, labels=8
    ).run()
    assert found.learned.told()["members"] == 2 and len(found.record.labels) >= 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"prior": Prior(smooth=2.0)},
            "`prior` plays no part, for BehlerParrinello is trained: `training.loss.decay`",
        ),
        ({"memory": 2.0}, "`memory` plays no part, for BehlerParrinello is trained: `training.block`"),
        (
            {"training": QUICK.replace(seeds=1)},
            r"two members or more: give `training.seeds: 4`, or .*neighbourhoods",
        ),
        ({"training": QUICK.replace(validation=0.1)}, r"0.1 of 4 structures is 0 of them; give more"),
        ({"asking": Asking(by="configurations", agreement=0.1)}, "`asking.agreement` is of a committee"),
        (
            {"potential": Mtp(level=6)},
            r"`training` plays no part, for Mtp is linear .* leave it out; `weights` say",
        ),
        (
            {"potential": Mtp(level=6), "training": None, "further": None, "asking": Asking(by="committee")},
            "`asking.by: committee` is for potentials that are trained, and Mtp is linear",
        ),
        (
            {"potential": Mtp(level=6), "training": None},
            "`further` plays no part, for Mtp is linear in its parameters: leave it out; only with `radial`",
        ),
        (
            {"radial": Stage()},
            "`radial` plays no part, for BehlerParrinello is trained: `training` is of all",
        ),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    names = ("system", "potential", "labeller", "optimizer", "begin", "training", "further")
    config = {name: getattr(dynamics(), name) for name in names} | settings
    with pytest.raises(InputError, match=message):
        build(Active, {name: one for name, one in config.items() if one is not None}).check()


def test_an_active_set_of_too_many_parameters() -> None:
    experiment = by_active_set(potential=BehlerParrinello(**(NETWORK | {"hidden": [60, 60]})))
    message = r"needs a row for each of 4,021 parameters of .*, and can have 4,000; .*`asking.by: committee`"
    with pytest.raises(InputError, match=message):
        learner_of(experiment).begun(data_of(experiment))
