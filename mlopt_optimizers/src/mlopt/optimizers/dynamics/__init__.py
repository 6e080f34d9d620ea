"""Molecular dynamics: integrators at constant energy or temperature, and what their velocities mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.optimizers.dynamics.bussi import Bussi
    from mlopt.optimizers.dynamics.integrator import DynamicsState, Integrator
    from mlopt.optimizers.dynamics.langevin import Langevin
    from mlopt.optimizers.dynamics.mechanics import (
        degrees_of_freedom,
        kinetic_energy,
        temperature,
        thermal_velocities,
    )
    from mlopt.optimizers.dynamics.nose_hoover import NoseHoover
    from mlopt.optimizers.dynamics.velocity_verlet import VelocityVerlet

__all__ = [
    "Bussi",
    "DynamicsState",
    "Integrator",
    "Langevin",
    "NoseHoover",
    "VelocityVerlet",
    "degrees_of_freedom",
    "kinetic_energy",
    "temperature",
    "thermal_velocities",
]

__getattr__ = names_of(
    __name__,
    {
        "bussi": ("Bussi",),
        "integrator": ("DynamicsState", "Integrator"),
        "langevin": ("Langevin",),
        "mechanics": ("degrees_of_freedom", "kinetic_energy", "temperature", "thermal_velocities"),
        "nose_hoover": ("NoseHoover",),
        "velocity_verlet": ("VelocityVerlet",),
    },
)
