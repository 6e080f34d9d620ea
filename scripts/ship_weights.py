"""Put the weights of a finished training into the package, with the command that trains them again and what they reach.

    python scripts/ship_weights.py RUN NAME --command "mlopt run learn2hop-lj13-small" [--result "text" ...]

RUN is a run directory of `meta-train`. The card keeps what the training knows; results that were measured later are
added as lines of text, each with the command that printed it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mlopt.optimizers.learned.weights import FOLDER, load_theta, read_card, save_weights


def main() -> None:
    """Write NAME.safetensors and NAME.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--optimizer", default="learned", help="learned or learned-hopping")
    parser.add_argument("--command", required=True, help="what trains them again")
    parser.add_argument("--result", action="append", default=[], help="a line about what was measured")
    arguments = parser.parse_args()
    source = str(arguments.run / "results" / "weights.safetensors")
    card, theta = read_card(source, arguments.optimizer), load_theta(source, arguments.optimizer)
    training: dict[str, Any] = card.training | {"command": arguments.command}
    if arguments.result:
        training["results"] = dict(training["results"]) | {"measured": arguments.result}
    save_weights(
        FOLDER / f"{arguments.name}.safetensors", theta, arguments.optimizer, card.settings, training
    )
    print(f"{FOLDER / arguments.name}.safetensors: {len(theta)} numbers")


if __name__ == "__main__":
    main()
