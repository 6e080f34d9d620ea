"""mlopt's core: what potentials, optimizers and experiments have in common, and how they meet."""

from mlopt.core.driver import Driver, minimize, unroll
from mlopt.core.errors import (
    CheckpointError,
    ConfigError,
    InputError,
    MloptError,
    PluginError,
    RunDirectoryError,
)
from mlopt.core.evaluation import Evaluation
from mlopt.core.landscape import AtomsLandscape, FunctionLandscape, Landscape
from mlopt.core.manifold import Flat, Manifold, UnitSphere
from mlopt.core.optimizer import Found, Optimizer, State, nested, per_problem, per_row
from mlopt.core.plugin import FromRegistry, Plugin, setting
from mlopt.core.potential import Potential
from mlopt.core.result import Result
from mlopt.core.segments import Segments
from mlopt.core.stop import Reason, Stop
from mlopt.core.systems import Systems

__all__ = [
    "AtomsLandscape",
    "CheckpointError",
    "ConfigError",
    "Driver",
    "Evaluation",
    "Flat",
    "Found",
    "FromRegistry",
    "FunctionLandscape",
    "InputError",
    "Landscape",
    "Manifold",
    "MloptError",
    "Optimizer",
    "Plugin",
    "PluginError",
    "Potential",
    "Reason",
    "Result",
    "RunDirectoryError",
    "Segments",
    "State",
    "Stop",
    "Systems",
    "UnitSphere",
    "minimize",
    "nested",
    "per_problem",
    "per_row",
    "setting",
    "unroll",
]
