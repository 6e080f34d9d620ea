"""Potentials that can be fitted: theta as a setting."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from mlopt.core.plugins import build
from mlopt.potentials import BehlerParrinello


def test_a_configuration_with_theta_gives_the_potential_back() -> None:
    potential = BehlerParrinello(elements=["Si"], hidden=[2])
    theta = potential.start(3)
    again = build(BehlerParrinello, potential.with_theta(theta).config())
    assert torch.equal(again.parameters, theta)
    two = build(BehlerParrinello, potential.with_theta(torch.stack([theta, theta])).config())
    assert two.parameters.shape == (2, len(theta))


def test_a_theta_that_is_no_table_is_refused() -> None:
    with pytest.raises(ValidationError, match="theta is a list of numbers, or a list of such lists"):
        BehlerParrinello(theta=[[1.0], [1.0, 2.0]])
