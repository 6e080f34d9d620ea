"""Structures with labels: what is missing is NaN, parts and joins keep everything together."""

from __future__ import annotations

import pytest
import torch

from mlopt.core import Dataset, InputError, Systems


def three() -> Dataset:
    """Structures of two, three and one atoms: all labels, no force, no energy."""
    z = torch.full((6,), 3)
    pos = torch.arange(18, dtype=torch.float64).reshape(6, 3)
    systems = Systems(pos, z, torch.tensor([0, 2, 5, 6]), cell=9.0 * torch.eye(3).double().repeat(3, 1, 1))
    force = pos.clone()
    force[2:5] = torch.nan
    stress = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)
    stress[1] = torch.nan
    energy = torch.tensor([-1.0, -2.0, torch.nan], dtype=torch.float64)
    weight = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    return Dataset(systems, energy, force, stress, weight, ("bulk", "surface", "bulk"), ("a", "b", "c"))


def test_what_is_known() -> None:
    data = three()
    assert data.with_energy.tolist() == [True, True, False]
    assert data.with_force.tolist() == [True, False, True]
    assert data.with_stress.tolist() == [True, False, True]


def test_select_and_concatenate_are_inverse() -> None:
    data = three()
    parts = [data.select([index]) for index in range(3)]
    assert [one.group for one in parts] == [("bulk",), ("surface",), ("bulk",)]
    joined = Dataset.concatenate(parts)
    assert joined.digest() == data.digest()
    assert joined.source == data.source
    turned = data.select([2, 0])
    assert turned.digest() != data.select([0, 2]).digest()
    torch.testing.assert_close(turned.force[0], data.force[5])


def test_a_digest_sees_every_label() -> None:
    data, seen = three(), {three().digest()}
    for name in ("energy", "force", "stress", "weight"):
        changed = three()
        getattr(changed, name).flatten()[0] += 1e-12
        seen.add(changed.digest())
    assert len(seen) == 5
    assert len(set(data.keys())) == 3


def test_atoms_carry_known_labels_alone() -> None:
    first, second, third = three().to_atoms()
    assert first.get_potential_energy() == -1.0
    assert first.get_stress().tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert set(second.calc.results) == {"energy"} and second.info["weight"] == 2.0
    assert set(third.calc.results) == {"forces", "stress"} and third.info["config_type"] == "bulk"


def test_refusals() -> None:
    data = three()
    with pytest.raises(
        InputError, match=r"`force` must have shape \(6, 3\) to fit its 3 structures, got \(2, 3\)"
    ):
        Dataset(data.systems, force=torch.zeros(2, 3))
    with pytest.raises(InputError, match="`group` must have one word for each of 3 structures, got 1"):
        Dataset(data.systems, group=("bulk",))
    with pytest.raises(InputError, match="weights must be finite and not negative"):
        Dataset(data.systems, weight=torch.tensor([1.0, -1.0, 1.0]).double())
    with pytest.raises(InputError, match="at least one dataset"):
        Dataset.concatenate([])
