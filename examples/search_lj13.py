"""One search, in Python and from its configuration: the same classes, the same settings, the same bits.

python examples/search_lj13.py
mlopt run examples/search_lj13.yaml
"""

from pathlib import Path

from mlopt.core.runs.config import load_experiment, read_file
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers import BasinHopping, Budget, Search, Target
from mlopt.potentials import LennardJones

found = Search(
    system=SystemSpec(cluster="Ar13"),
    potential=LennardJones(),
    optimizer=BasinHopping(temperature=0.8),
    starts=8,
    budget=Budget(force_calls=2_000),
    target=Target(energy=-44.326801, stop="start"),
    seed=1,
).run()

for minimum in found.minima[:3]:
    print(f"{minimum.energy:.6f}  {minimum.point_group.symbol:4}  met {minimum.hits} times")
print({key: found.summary()[key] for key in ("hits", "mean_calls_to_hit", "force_calls")})

_, config = read_file(Path(__file__).with_name("search_lj13.yaml"))
again = load_experiment(config).run()
assert again.best.energy == found.best.energy
assert (again.best.pos == found.best.pos).all()
