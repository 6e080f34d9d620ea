"""Stop a search after some steps, keep it in a file, and go on in another process: the same bits as in one go.

python examples/resume_driver.py
"""

from pathlib import Path

import torch

from mlopt.core import AtomsLandscape, Driver, Stop, Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.runs.checkpoint import Checkpoint, newest_sound, save
from mlopt.optimizers import BasinHopping, SphereStart
from mlopt.potentials import LennardJones


def begin():
    """The driver and a fresh progress: what both sittings have in common."""
    systems = Systems.cluster([18] * 13, n_systems=4)
    landscape = AtomsLandscape(systems, LennardJones())
    key = problem_keys(0, torch.arange(4))
    driver = Driver(landscape, BasinHopping(), Stop(force_calls=600))
    return driver, driver.begin(SphereStart().sample(systems, landscape.diameter, key), key)


folder = Path("checkpoints")
folder.mkdir(exist_ok=True)

driver, progress = begin()
driver.advance(progress, until=250)
save(folder, progress.calls, Checkpoint(*progress.to_checkpoint()))
print(f"stopped after {progress.calls} of 600 force calls each")

driver, progress = begin()  # as another process would
path, checkpoint, _ = newest_sound(folder)
progress.load_checkpoint(checkpoint.tensors, checkpoint.meta)
resumed = driver.result(driver.advance(progress))
print(f"resumed from {path.name}: lowest {float(resumed.energy.min()):.6f}")

driver, progress = begin()
whole = driver.result(driver.advance(progress))
assert torch.equal(resumed.x, whole.x)
