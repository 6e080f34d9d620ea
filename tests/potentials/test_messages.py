"""What is said before any work starts, what fails alone, and what a configuration looks like."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes

from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.units import Units
from mlopt.core.errors import ConfigError, InputError
from mlopt.core.plugins import plugin, registry
from mlopt.potentials import (
    AsePotential,
    Gupta,
    LennardJones,
    Morse,
    PairPotential,
    SoftSphere,
    StillingerWeber,
    SumPotential,
)
from mlopt.potentials.sums import pair


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in potentials, whether or not their distribution is installed."""
    classes = {"lennard-jones": LennardJones, "morse": Morse, "sum": SumPotential, "ase": AsePotential}
    found = [
        registry.Entry("potential", name, f"{cls.__module__}:{cls.__qualname__}", "mlopt-potentials", "0")
        for name, cls in classes.items()
    ]
    monkeypatch.setattr(registry, "entries", lambda kind=None: found if kind in (None, "potential") else [])


def test_periodic_needs_a_cutoff() -> None:
    systems = Systems.from_atoms([Atoms("Ar"), bulk("Ar", a=1.5)])
    message = (
        r"LennardJones without a cutoff reaches for ever, but system 1 is periodic\. Give a cutoff, such as `"
    )
    for call in (LennardJones().check, LennardJones().evaluate):
        with pytest.raises(InputError, match=message):
            call(systems)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: LennardJones(r0=3.82, cutoff=2.5),
            r"cutoff: 2\.5 is not longer than r0 \(3\.82\).*unit of the positions .*not multiples of r0: take 11\.46",
        ),
        (lambda: LennardJones(sigma=3.4, cutoff=3.8), r"not longer than r0 \(3\.816\)"),
        (lambda: LennardJones(cutoff=1.0), r"cutoff: 1 is not longer than r0 \(1\)"),
        (lambda: Morse(r0=2.897, cutoff=2.5), r"not longer than r0 \(2\.897\).*take 8\.691"),
        (
            lambda: Gupta(preset="AgPt", cutoff=2.85),
            r"cutoff: 2\.85 is not longer than r0 of Ag-Ag \(2\.8\d+\)",
        ),
        (lambda: StillingerWeber(a=1.1), r"a: 1\.1 is not above 1\.122.*in units of sigma, not a length"),
    ],
)
def test_a_range_within_the_bond(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_range_just_beyond_the_bond_is_taken() -> None:
    dimer = Systems.from_atoms(Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 3.82]]))
    assert float(LennardJones(r0=3.82, cutoff=3.83, shift="none").evaluate(dimer).energy) == -1.0


def test_too_many_pairs() -> None:
    systems = Systems.from_atoms(bulk("Ar", a=1e-2))
    with pytest.raises(
        InputError, match=r"system 0 has 1 atoms in a cell of volume 2\.5e-07, about .*e\+08 pairs"
    ):
        LennardJones(cutoff=4.0).check(systems)


def test_broken_periodic_systems_fail_alone() -> None:
    good = bulk("Ar", a=1.5, cubic=True)
    flat, far, lost = good.copy(), good.copy(), good.copy()
    flat.cell[2] = flat.cell[1]
    far.positions[0, 0] = 1e12
    lost.positions[0, 0] = float("nan")
    potential = LennardJones(cutoff=2.5)
    found = potential.evaluate(Systems.from_atoms([flat, good, far, lost]), stress=True)
    assert found.energy.isfinite().tolist() == [False, True, False, False]
    assert torch.equal(found.energy[1:2], potential.evaluate(Systems.from_atoms(good)).energy)
    assert found.stress is not None
    assert found.stress.isfinite().all(-1).all(-1).tolist() == [False, True, False, False]


@pytest.mark.parametrize("potential", [LennardJones(), Morse(), SoftSphere(r0=1.5, alpha=2.5)])
@pytest.mark.parametrize("threads", [1, 2])
def test_bits_do_not_depend_on_the_batch(potential: PairPotential, threads: int) -> None:
    """Sizes on both sides of every chunk, and batches that take several."""
    sizes = [13, 38, 13, 75, 1, 222, 38, 250] + [38] * 60
    pos = torch.randn(sum(sizes), 3, dtype=torch.float64) * 2.0
    systems = Systems(pos, torch.full((len(pos),), 18), torch.tensor([0, *sizes]).cumsum(0))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        batch = potential.evaluate(systems)
        uniform = potential.evaluate(systems.select([i for i, n in enumerate(sizes) if n == 38]))
        alone = [potential.evaluate(systems[index]) for index in range(len(sizes))]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(batch.energy, torch.cat([one.energy for one in alone]))
    assert torch.equal(batch.force, torch.cat([one.force for one in alone]))
    assert torch.equal(
        uniform.energy, torch.cat([one.energy for one, n in zip(alone, sizes, strict=True) if n == 38])
    )
    gradients = systems.with_pos(pos.clone().requires_grad_(True))
    assert torch.equal(potential.evaluate(gradients).force.detach(), batch.force)


class ByKind(PairPotential):
    """A pair potential that looks at its species: as short as a stranger's."""

    def pair(
        self, r2: torch.Tensor, first: torch.Tensor, second: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        energy = torch.where(first == second, 1.0, 2.0) * r2**-3
        return energy, 6.0 * energy / r2


def test_species_reach_the_formula() -> None:
    systems = Systems.from_atoms(
        [Atoms("ArKr", [[0, 0, 0], [1, 0, 0]]), Atoms("Kr2", [[0, 0, 0], [1, 0, 0]])]
    )
    assert ByKind().evaluate(systems).energy.tolist() == [2.0, 1.0]


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    systems = Systems.cluster([18] * 20, 3).with_pos(torch.rand(60, 3, dtype=torch.float64) * 3)
    whole = LennardJones().evaluate(systems)
    monkeypatch.setattr(pair, "CHUNK", 70)
    parts = LennardJones().evaluate(systems)
    assert torch.equal(parts.energy, whole.energy) and torch.equal(parts.force, whole.force)


@pytest.mark.usefixtures("registered")
def test_configuration_of_a_sum() -> None:
    plain = {"terms": [{"name": "lennard-jones", "epsilon": 2.0}, {"name": "sum", "terms": ["morse"]}]}
    made = plugin.build(SumPotential, plain)
    shown = made.config()
    assert [term["name"] for term in shown["terms"]] == ["lennard-jones", "sum"]
    assert shown["terms"][1]["terms"][0]["name"] == "morse" and shown["terms"][0]["epsilon"] == 2.0
    assert plugin.build(SumPotential, shown) == made
    with pytest.raises(
        ConfigError, match=r"terms\.0\.epsilonn: unknown key 'epsilonn'.* Did you mean 'epsilon'\?"
    ):
        plugin.build(SumPotential, {"terms": [{"name": "lennard-jones", "epsilonn": 2.0}]})
    with pytest.raises(ConfigError, match="terms: list should have at least 1 item"):
        plugin.build(SumPotential, {"terms": []})


def test_a_sum_adds_up() -> None:
    a, b = LennardJones(cutoff=2.0), SoftSphere(r0=1.2)
    systems = Systems.from_atoms(bulk("Ar", a=1.4, cubic=True))
    total = SumPotential(terms=[a, b])
    found, parts = (
        total.evaluate(systems, stress=True),
        [one.evaluate(systems, stress=True) for one in (a, b)],
    )
    for name in ("energy", "force", "row_energy", "stress"):
        assert torch.equal(getattr(found, name), getattr(parts[0], name) + getattr(parts[1], name))
    assert total.units.reduced and total.differentiable and total.species() is None
    with_emt = SumPotential(terms=[AsePotential(calculator="emt"), b])
    assert with_emt.units == Units() and not with_emt.differentiable
    assert with_emt.evaluate(systems.with_pos(systems.pos)).row_energy is None


@pytest.mark.parametrize("name", ["lammpsrun", "mace_mp", "os.system", "EMT"])
def test_calculators_that_a_configuration_may_not_name(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"no calculator '{name}' for use in a configuration\..* There are eam, emt, lj"
    ):
        plugin.build(AsePotential, {"calculator": name})


@pytest.mark.parametrize("name", ["command", "profile", "directory"])
def test_a_configuration_chooses_no_program(name: str) -> None:
    settings = {"calculator": "espresso", "parameters": {name: "rm"}}
    with pytest.raises(ConfigError, match=rf"`{name}` of the calculator 'espresso' .*config\.ini"):
        plugin.build(AsePotential, settings)


def test_calculator_and_elements() -> None:
    with pytest.raises(
        InputError,
        match=r"calculator 'emt' cannot treat a system of H and Fe: NotImplementedError: No EMT-potential",
    ):
        AsePotential(calculator="emt").check(Systems.cluster([26, 1]))
    AsePotential(calculator="emt").check(Systems.cluster([79] * 3, 2))
    with pytest.raises(
        InputError, match=r"ase: calculator 'eam' with parameters \{'potential': '.*none'\} cannot be made"
    ):
        AsePotential(calculator="eam", parameters={"potential": "none"}).check(Systems.cluster([79]))


class Moody(Calculator):
    """Raises where the first atom lies beyond x = 10."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  (ASE's protocol)

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        if atoms.positions[0, 0] > 10:
            raise RuntimeError("too far\nout")
        self.results = {"energy": 1.0, "forces": 0.0 * atoms.positions}


def test_a_calculator_that_raises_fails_one_system(caplog: pytest.LogCaptureFixture) -> None:
    potential = AsePotential.wrap(Moody())  # type: ignore[no-untyped-call]
    systems = Systems.from_atoms([Atoms("Ar", [[x, 0, 0]]) for x in (0, 20, 1)])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            found = potential.evaluate(systems)
    assert found.energy.isfinite().tolist() == [True, False, True]
    assert not found.force[1].isfinite().any()
    assert [record.getMessage() for record in caplog.records] == [
        "ASE calculator 'Moody' failed for system 1, which gets NaN: RuntimeError: too far out"
    ]
