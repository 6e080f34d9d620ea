"""mlopt's core: the protocols of potentials, optimizers and experiments, and the driver that joins them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.atoms.dataset import Dataset
    from mlopt.core.atoms.systems import Systems
    from mlopt.core.batch.random import problem_keys
    from mlopt.core.batch.segments import Segments
    from mlopt.core.driver.driver import Driver, minimize, unroll
    from mlopt.core.driver.result import Result
    from mlopt.core.driver.stop import Reason, Stop
    from mlopt.core.errors import (
        CheckpointError,
        ConfigError,
        InputError,
        MloptError,
        PluginError,
        RunDirectoryError,
    )
    from mlopt.core.landscapes.evaluation import Evaluation
    from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape, Landscape
    from mlopt.core.landscapes.manifold import Flat, Manifold, UnitSphere
    from mlopt.core.landscapes.potential import Potential
    from mlopt.core.plugins.plugin import FromRegistry, Plugin, setting
    from mlopt.core.protocols.model import Model
    from mlopt.core.protocols.move import Move
    from mlopt.core.protocols.optimizer import Found, Optimizer, State, nested, per_problem, per_row
    from mlopt.core.protocols.start import StartSampler
    from mlopt.core.runs.experiment import Context, Experiment
    from mlopt.core.runs.session import Session
    from mlopt.core.structures.spec import SystemSpec

__all__ = [
    "AtomsLandscape",
    "CheckpointError",
    "ConfigError",
    "Context",
    "Dataset",
    "Driver",
    "Evaluation",
    "Experiment",
    "Flat",
    "Found",
    "FromRegistry",
    "FunctionLandscape",
    "InputError",
    "Landscape",
    "Manifold",
    "MloptError",
    "Model",
    "Move",
    "Optimizer",
    "Plugin",
    "PluginError",
    "Potential",
    "Reason",
    "Result",
    "RunDirectoryError",
    "Segments",
    "Session",
    "StartSampler",
    "State",
    "Stop",
    "SystemSpec",
    "Systems",
    "UnitSphere",
    "minimize",
    "nested",
    "per_problem",
    "per_row",
    "problem_keys",
    "setting",
    "unroll",
]

__getattr__ = names_of(
    __name__,
    {
        "atoms.dataset": ("Dataset",),
        "atoms.systems": ("Systems",),
        "batch.random": ("problem_keys",),
        "batch.segments": ("Segments",),
        "driver.driver": ("Driver", "minimize", "unroll"),
        "driver.result": ("Result",),
        "driver.stop": ("Reason", "Stop"),
        "errors": (
            "CheckpointError",
            "ConfigError",
            "InputError",
            "MloptError",
            "PluginError",
            "RunDirectoryError",
        ),
        "landscapes.evaluation": ("Evaluation",),
        "landscapes.landscape": ("AtomsLandscape", "FunctionLandscape", "Landscape"),
        "landscapes.manifold": ("Flat", "Manifold", "UnitSphere"),
        "landscapes.potential": ("Potential",),
        "plugins.plugin": ("FromRegistry", "Plugin", "setting"),
        "protocols.model": ("Model",),
        "protocols.move": ("Move",),
        "protocols.optimizer": ("Found", "Optimizer", "State", "nested", "per_problem", "per_row"),
        "protocols.start": ("StartSampler",),
        "runs.experiment": ("Context", "Experiment"),
        "runs.session": ("Session",),
        "structures.spec": ("SystemSpec",),
    },
)
