"""The Gupta potential: published and independently computed numbers, and what is said about bad parameters."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.cluster import Icosahedron, Octahedron
from ase.io import read
from scipy.optimize import minimize, minimize_scalar

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import ConfigError, InputError
from mlopt.core.plugins import plugin
from mlopt.potentials import Gupta, GuptaPair
from mlopt.potentials.classical import gupta
from mlopt.potentials.classical.gupta_presets import PRESETS


def plain(potential: Gupta, atoms: Atoms) -> float:
    """The formula, pair by pair, without a cutoff."""
    known, total = potential.parameters(), 0.0
    for i, (zi, xi) in enumerate(zip(atoms.numbers, atoms.positions, strict=True)):
        density = 0.0
        for j, (zj, xj) in enumerate(zip(atoms.numbers, atoms.positions, strict=True)):
            if i == j:
                continue
            one = known[int(zi), int(zj)]
            beyond = float(np.linalg.norm(xi - xj)) / one.r0 - 1.0
            total += one.a * math.exp(-one.p * beyond)
            density += one.xi**2 * math.exp(-2.0 * one.q * beyond)
        total -= math.sqrt(density)
    return total


def relaxed(potential: Gupta, start: Atoms) -> float:
    """Energy of the minimum below a free cluster, by scipy."""
    systems = Systems.from_atoms(start)

    def energy_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        found = potential.evaluate(systems.with_pos(torch.from_numpy(x.reshape(-1, 3))))
        return float(found.energy[0]), -found.force.numpy().ravel()

    found = minimize(energy_and_gradient, start.positions.ravel(), jac=True, method="L-BFGS-B", tol=1e-14)
    return float(found.fun)


def octahedron(shell: str, core: str) -> Atoms:
    """Truncated octahedron of 38 atoms, 6 of them inside."""
    atoms = Octahedron("Au", 4, 1, latticeconstant=4.0)
    inner = np.argsort(np.linalg.norm(atoms.positions - atoms.positions.mean(0), axis=1))[:6]
    symbols = np.full(38, shell)
    symbols[inner] = core
    return Atoms(list(symbols), atoms.positions)


def trimer() -> Systems:
    return Systems.from_atoms(Atoms("Au3", [[0, 0, 0], [0, 0, 2.9], [0, 2.9, 2.9]]))


def energy_of_crystal(potential: Gupta, symbol: str, a: float) -> float:
    return float(potential.energy(Systems.from_atoms(bulk(symbol, "fcc", a=a))))


# No cutoff: what lies beyond 15 angstrom is less than 1e-7 eV.
@pytest.mark.parametrize(
    "preset, symbol, energy, a",
    [
        ("cleri-rosato", "Au", -3.7792, 4.0786),
        ("cleri-rosato", "Pd", -3.9365, 3.8869),
        ("cleri-rosato", "Pt", -5.8532, 3.9239),
        ("AgAu", "Au", -3.8249, 4.0767),
        ("AgAu", "Ag", -2.9931, 4.0768),
        ("AgPt", "Ag", -2.9931, 4.0773),
        ("AgPt", "Pt", -5.8532, 3.9239),
        ("PdAu", "Pd", -3.9365, 3.8869),
        ("PdAu", "Au", -3.7792, 4.0786),
        ("PdPt", "Pt", -5.8532, 3.9239),
        ("au55-paper", "Au", -3.5706, 4.1860),
    ],
)
def test_crystals(preset: Any, symbol: str, energy: float, a: float) -> None:
    potential = Gupta(preset=preset, cutoff=15.0)
    found = minimize_scalar(
        lambda x: energy_of_crystal(potential, symbol, x), bracket=(a - 0.05, a + 0.05), tol=1e-6
    )
    assert found.fun == pytest.approx(energy, abs=6e-5)
    assert found.x == pytest.approx(a, abs=6e-5)


def test_the_suggested_cutoff_is_enough() -> None:
    for symbol, a in (("Ag", 4.085), ("Au", 4.078), ("Pt", 3.924)):
        suggested = energy_of_crystal(Gupta(cutoff=Gupta().usual_cutoff()), symbol, a)
        assert suggested == pytest.approx(energy_of_crystal(Gupta(cutoff=20.0), symbol, a), abs=1e-4)


def test_crystals_of_every_preset_bind_as_measured() -> None:
    """Within 3 % of the cohesive energies and lattice constants of Kittel, which the fits aimed at."""
    measured = {"Ag": (2.95, 4.085), "Au": (3.81, 4.078), "Pd": (3.89, 3.891), "Pt": (5.84, 3.924)}
    for preset, rows in PRESETS.items():
        if preset == "au55-paper":
            continue  # fitted to clusters
        for symbol in {name.split("-")[0] for name in rows}:
            energy, a = measured[symbol]
            found = energy_of_crystal(Gupta(preset=preset, cutoff=12.0), symbol, a)
            assert found == pytest.approx(-energy, rel=0.03), (preset, symbol)


@pytest.mark.parametrize(
    "preset, shell, core, energy",
    [
        ("AgAu", "Ag", "Ag", -97.136951),
        ("AgAu", "Au", "Au", -132.396905),
        ("AgAu", "Ag", "Au", -104.513910),
        ("AgAu", "Au", "Ag", -127.055827),
        ("PdPt", "Pd", "Pd", -131.748941),
        ("PdPt", "Pt", "Pt", -199.941854),
        ("PdPt", "Pd", "Pt", -146.936078),
        ("PdPt", "Pt", "Pd", -188.509801),
        ("PdAu", "Au", "Au", -130.540017),
        ("cleri-rosato", "Au", "Au", -130.540017),
        ("au55-paper", "Au", "Au", -124.403356),
    ],
)
def test_truncated_octahedra(preset: Any, shell: str, core: str, energy: float) -> None:
    assert relaxed(Gupta(preset=preset), octahedron(shell, core)) == pytest.approx(energy, abs=1e-6)


def test_the_misprint_matters() -> None:
    """Gold with p = 10.299, as printed in the set PdAu, is another metal."""
    a, xi, _, q, r0 = PRESETS["PdAu"]["Au-Au"]
    printed = Gupta(pairs={"Au-Au": GuptaPair(a=a, xi=xi, p=10.299, q=q, r0=r0)})
    assert relaxed(printed, octahedron("Au", "Au")) == pytest.approx(-130.3381, abs=1e-4)


def test_gold_dimer_and_icosahedron() -> None:
    dimer = Systems.from_atoms(Atoms("Au2", [[0, 0, 0], [2.31044, 0, 0]]))
    assert float(Gupta().energy(dimer)) == pytest.approx(-4.836627, abs=1e-6)
    assert float(Gupta().evaluate(dimer).force.abs().max()) < 1e-3
    mackay = Icosahedron("Au", 3, latticeconstant=4.0)
    assert relaxed(Gupta(), Atoms(mackay.numbers, mackay.positions)) == pytest.approx(-190.727416, abs=1e-6)


def test_trimer_of_jax_md() -> None:
    # jax-md, tests/energy_test.py::test_gupta
    for cut in ({}, {"cutoff": 8.0, "taper": 0.0}, {"cutoff": 8.0}):
        found = float(Gupta(preset="au55-paper", **cut).energy(trimer()))  # type: ignore[arg-type]
        assert found == pytest.approx(-5.4632421255957135, abs=1e-14)


def test_gold_55_of_the_paper(data_dir: Path) -> None:
    atoms = read(data_dir / "clusters" / "au55_gupta_jaxmd_best.extxyz")
    found = Gupta(preset="au55-paper").evaluate(Systems.from_atoms(atoms))
    assert float(found.energy) == pytest.approx(-181.889486, abs=1e-6)
    assert float(found.force.abs().max()) < 1e-5  # the file has eight decimals


@pytest.mark.parametrize("preset", PRESETS)
def test_against_plain_loops(preset: Any) -> None:
    potential = Gupta(preset=preset)
    kinds = sorted(potential.species())[:2] if preset != "cleri-rosato" else [78]
    generator = np.random.default_rng(3)
    base = octahedron("Au", "Au")
    atoms = Atoms(generator.choice(kinds, 38), base.positions + generator.normal(0, 0.2, (38, 3)))
    assert float(potential.energy(Systems.from_atoms(atoms))) == pytest.approx(
        plain(potential, atoms), rel=1e-13
    )


def test_pure_and_mixed_systems_in_one_batch() -> None:
    """Coefficients are numbers for one element and tables for several; the bits are the same."""
    both = [octahedron("Ag", "Ag"), octahedron("Ag", "Au"), octahedron("Au", "Au")]
    potential = Gupta(preset="AgAu")
    together = potential.evaluate(Systems.from_atoms(both))
    alone = [potential.evaluate(Systems.from_atoms(atoms)) for atoms in both]
    assert torch.equal(together.energy, torch.cat([one.energy for one in alone]))
    assert torch.equal(together.force, torch.cat([one.force for one in alone]))
    # metals without parameters for their alloy may share a batch as long as they do not share a system
    pure = Systems.from_atoms([octahedron("Ag", "Ag"), octahedron("Pt", "Pt")])
    Gupta().check(pure)
    assert Gupta().energy(pure).isfinite().all()


def test_a_large_cluster_by_rows_and_by_list(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = bulk("Au", cubic=True) * (5, 4, 4)
    atoms.pbc = False
    atoms.rattle(0.1, seed=1)
    atoms.numbers[::3] = 47
    systems = Systems.from_atoms(atoms)  # 320 atoms: listed where there is a cutoff
    potential = Gupta(preset="AgAu")
    whole = potential.evaluate(systems)
    far = Gupta(preset="AgAu", cutoff=40.0).evaluate(systems)  # wider than the cluster
    torch.testing.assert_close(far.energy, whole.energy, rtol=1e-13, atol=0)
    torch.testing.assert_close(far.force, whole.force, rtol=0, atol=1e-11)
    small = systems.select([0, 0])
    monkeypatch.setattr(gupta, "CHUNK", 1000)
    rows = potential.evaluate(small)
    assert torch.equal(rows.energy, whole.energy.repeat(2))
    assert torch.equal(rows.force, whole.force.repeat(2, 1))


def test_the_end_of_the_range_is_smooth() -> None:
    """At both ends of the taper the energy, the force and its slope are continuous."""
    potential = Gupta(cutoff=5.0, taper=1.5)

    def along(r: float) -> tuple[float, float]:
        # each end has a neighbour of its own, so that no density vanishes
        atoms = Atoms("Au4", [[0, 0, 0], [r, 0, 0], [0, 2.6, 0], [r, 2.6, 0]])
        found = potential.evaluate(Systems.from_atoms(atoms))
        return float(found.energy), float(found.force[1, 0])

    h = 1e-5
    for edge in (3.5, 5.0):
        (e0, f0), (e1, f1), (e2, f2) = along(edge - h), along(edge), along(edge + h)
        assert e1 - e0 == pytest.approx(e2 - e1, abs=1e-8)
        assert f1 - f0 == pytest.approx(f2 - f1, abs=1e-8)
    assert along(4.5)[1] < -1e-3  # there is something that has to end
    # nearer pairs are as without a cutoff; the longest of the trimer is 4.1
    assert float(Gupta(cutoff=5.2).energy(trimer())) == float(Gupta().energy(trimer()))
    assert float(Gupta(cutoff=5.0).energy(trimer())) > float(Gupta().energy(trimer()))
    jump = Gupta(cutoff=5.0, taper=0.0)
    near, beyond = (
        float(jump.energy(Systems.from_atoms(Atoms("Au2", [[0, 0, 0], [5.0 + d, 0, 0]])))) for d in (-1e-9, 0)
    )
    assert near < -1e-3 and beyond == 0.0


def test_atoms_without_neighbours_have_no_energy_and_no_force() -> None:
    apart = Atoms("Au3", [[0, 0, 0], [2.6, 0, 0], [1e4, 0, 0]])
    systems = Systems.from_atoms(apart)
    pos = systems.pos.clone().requires_grad_(True)
    found = Gupta().evaluate(systems.with_pos(pos))
    assert found.row_energy is not None and float(found.row_energy[2].detach()) == 0.0
    assert not bool(found.force[2].any())
    (second,) = torch.autograd.grad(found.force.square().sum(), pos)
    assert second.isfinite().all()


def test_numbers_for_a_kernel() -> None:
    table = Gupta(preset="AgPt").table([78, 47])
    a, xi, p, q, r0 = PRESETS["AgPt"]["Ag-Pt"]
    assert table.shape == (2, 2, 5) and table.dtype == torch.float64
    assert table[0, 1].tolist() == table[1, 0].tolist() == [a, xi**2, p, q, r0]
    assert table[1, 1, 0] == 0.1031 and table[0, 0, 0] == 0.2975
    assert Gupta().table([47, 78])[0, 1].isnan().all()


def test_own_parameters() -> None:
    a, xi, p, q, r0 = PRESETS["AgPt"]["Ag-Pt"]
    mixed = {"a": a, "xi": xi, "p": p, "q": q, "r0": r0}
    made = plugin.build(Gupta, {"pairs": {"Pt-Ag": mixed}})
    made.check(Systems.from_atoms(octahedron("Ag", "Pt")))
    assert made.table([47, 78])[0, 1].tolist() == [a, xi**2, p, q, r0]
    assert made.table([47])[0, 0].tolist() == Gupta().table([47])[0, 0].tolist()
    assert plugin.build(Gupta, made.config()) == made
    copper = plugin.build(
        Gupta,
        {"preset": None, "pairs": {"Cu-Cu": {"a": 0.0855, "xi": 1.224, "p": 10.96, "q": 2.278, "r0": 2.556}}},
    )
    assert copper.species() == {29}
    assert copper.diameter(torch.tensor([29, 29])).tolist() == [2.556, 2.556]
    assert Gupta(preset="AgAu").diameter(torch.tensor([79, 47])).tolist() == [2.885, 2.8921]


AU = {"a": 0.2, "xi": 1.8, "p": 10.0, "q": 4.0, "r0": 2.9}


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"preset": "AuAg"}, r"preset: input should be 'cleri-rosato', 'AgAu'"),
        ({"preset": None}, r"give a preset, or the parameters of at least one pair such as Au-Au"),
        ({"pairs": {"Au": AU}}, r"pairs: 'Au' is not a pair of elements; write two symbols, like Ag-Au"),
        ({"pairs": {"Au-Xy": AU}}, r"pairs: 'Au-Xy' is not a pair of elements"),
        ({"pairs": {"Ag-Au": AU, "Au-Ag": AU}}, r"pairs: Ag-Au and Au-Ag are the same pair; give it once"),
        ({"preset": None, "pairs": {"Au-Cu": AU}}, r"pairs: Au-Cu is of no use without Au-Au"),
        ({"pairs": {"Au-Au": AU | {"r0": -1.0}}}, r"pairs\.Au-Au\.r0: input should be greater than 0"),
        (
            {"pairs": {"Au-Au": AU | {"x": 1.0}}},
            r"pairs\.Au-Au: unknown key 'x' in a pair\. Did you mean 'xi'\?",
        ),
        ({"pairs": {"Au-Au": {"a": 0.2}}}, r"pairs\.Au-Au\.xi: this setting is required"),
        ({"cutoff": 0.5}, r"taper: 1\.0 is wider than the cutoff of 0\.5"),
        ({"cutoff": 0.0}, r"cutoff: input should be greater than 0"),
    ],
)
def test_bad_parameters(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plugin.build(Gupta, settings)


@pytest.mark.parametrize(
    "preset, symbols, message",
    [
        ("AgAu", "Au2Pt", r"preset 'AgAu' has no parameters for Pt-Pt, Pt-Au of system 1; it knows Ag-Ag"),
        (
            "cleri-rosato",
            "AgPt",
            r"preset 'cleri-rosato' has no parameters for Ag-Pt of system 1; it knows Ag",
        ),
        (
            "au55-paper",
            "Cu2",
            r"preset 'au55-paper' has no parameters for Cu-Cu of system 1; it knows Au-Au\.",
        ),
    ],
)
def test_pairs_that_a_preset_does_not_know(preset: Any, symbols: str, message: str) -> None:
    strange = Atoms(symbols, np.eye(3)[: len(Atoms(symbols))] * 2.7)
    with pytest.raises(InputError, match=message):
        Gupta(preset=preset).check(Systems.from_atoms([Atoms("Au"), strange]))


def test_periodic_needs_a_cutoff() -> None:
    systems = Systems.from_atoms([Atoms("Au"), bulk("Au")])
    message = r"Gupta without a cutoff reaches for ever, but system 1 is periodic\. Give .* `cutoff: 8\.67`"
    for call in (Gupta().check, Gupta().evaluate):
        with pytest.raises(InputError, match=message):
            call(systems)
    flat = bulk("Au")
    flat.cell[2] = flat.cell[1]
    found = Gupta(cutoff=6.0).evaluate(Systems.from_atoms([flat, bulk("Au")]), stress=True)
    assert found.energy.isfinite().tolist() == [False, True]
    assert found.stress is not None and found.stress.isfinite().all(-1).all(-1).tolist() == [False, True]


@pytest.mark.gpu
def test_gold_on_a_gpu() -> None:
    systems = Systems.from_atoms([octahedron("Ag", "Au"), octahedron("Au", "Au"), Atoms("Ag")])
    periodic = Systems.from_atoms([bulk("Au", cubic=True), bulk("Ag")])
    for potential, some in ((Gupta(preset="AgAu"), systems), (Gupta(preset="AgAu", cutoff=6.0), periodic)):
        here, there = potential.evaluate(some), potential.evaluate(some.to("cuda"))
        torch.testing.assert_close(there.energy.cpu(), here.energy, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(there.force.cpu(), here.force, rtol=0, atol=1e-10)
