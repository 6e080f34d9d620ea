"""Put the weights of a training into the package, with the command that trains them again and what they reach.

    python scripts/ship_weights.py RECIPE RUN NAME [--epoch N] [--result "text" ...]

RUN is a run directory of the recipe. The held-out numbers of the card are computed anew, by the code as it is now. With
an epoch the weights are those that the training had then: what a recipe with fewer epochs ends with. Results that were
measured elsewhere are added as lines of text, each with the command that printed it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mlopt.cli.configs.sources import find
from mlopt.core.protocols.learning import Learnable
from mlopt.optimizers.experiments.meta_train.experiment import MetaTrain
from mlopt.optimizers.experiments.meta_train.theta import load_theta

#: where the package keeps weights
FOLDER = Path(__file__).resolve().parents[1] / "mlopt_optimizers/src/mlopt/optimizers/learned/weights"


def main() -> None:
    """Write NAME.safetensors and NAME.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--epoch", type=int, help="instead of the last")
    parser.add_argument("--minutes", type=float, help="what the training took, if the run does not say")
    parser.add_argument("--result", action="append", default=[], help="a line about what was measured")
    arguments = parser.parse_args()
    experiment = find(arguments.recipe, []).experiment()
    assert isinstance(experiment, MetaTrain)
    learnable = getattr(experiment.task, "learnable", None)
    assert isinstance(learnable, Learnable)
    results = arguments.run / "results"
    file = f"theta/epoch-{arguments.epoch:06d}.safetensors" if arguments.epoch else "theta.safetensors"
    theta = load_theta(results / file, len(experiment.first_theta()))
    # a run that was stopped early has no summary: what it does not tell is given
    summary = results / "summary.json"
    told = json.loads(summary.read_text()) if summary.exists() else {}
    seconds = told["wall_s"] if arguments.minutes is None else 60.0 * arguments.minutes
    epoch = arguments.epoch or told["epoch_kept"]
    # those that were chosen for what they reached are judged on other starts
    found = experiment.task.evaluate(theta, experiment.seed + (experiment.keep == "best"))
    card = experiment.training(found, epoch=epoch, wall_s=seconds)
    card["command"] = f"mlopt run {arguments.recipe}"
    if arguments.result:
        card["results"] = card["results"] | {"measured": arguments.result}
    learnable.write_weights(theta, FOLDER / f"{arguments.name}.safetensors", card)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
