"""Relax 100 random clusters in one batch with FIRE, and look at them as a table.

python examples/relax_many.py          needs pandas
"""

import pandas
import torch

from mlopt.core import AtomsLandscape, Systems, minimize
from mlopt.core.batch.random import problem_keys
from mlopt.optimizers import Fire, SphereStart
from mlopt.potentials import LennardJones

n = 100
systems = Systems.cluster([18] * 13, n_systems=n)
landscape = AtomsLandscape(systems, LennardJones())
x = SphereStart().sample(systems, landscape.diameter, problem_keys(0, torch.arange(n)))
result = minimize(landscape, Fire(), x, force_calls=3_000, fmax=1e-4)

table = pandas.DataFrame(result.table())
print(table[["energy", "fmax", "calls"]].describe().loc[["min", "50%", "max"]])
print(table.reason.value_counts().to_dict())
print(f"{table.energy.round(4).nunique()} different energies; lowest in row {result.best}")
