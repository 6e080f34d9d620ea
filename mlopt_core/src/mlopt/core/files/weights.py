"""Files of weights: a safetensors file, and a JSON card with the training and its results.

``name.safetensors`` holds one tensor, ``theta``. ``name.json`` is the card. It contains the SHA-256 of the weights,
because safetensors does not notice a changed bit. Both are data: nothing in them is executed.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from mlopt.core.errors import InputError
from mlopt.core.files.atomic import write_bytes, write_text
from mlopt.core.lazy import torch
from mlopt.core.plugins.input_file import Reads
from mlopt.core.quoting import one_line, quoted

#: the entry-point group for packages with weights: ``"mlopt.weights": any-name = "package.of.weights"``
GROUP = "mlopt.weights"
FORMAT = "mlopt weights 1"
#: entries of a card about the training
TRAINING = ("task_family", "horizon", "estimator", "seeds", "cost", "results", "command")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_LARGEST = 256 * 1024 * 1024


@dataclass(frozen=True)
class Card:
    """The description of a file of weights.

    optimizer: registered name of the optimizer that uses them.
    settings: the optimizer's settings during training.
    parameters: length of theta.
    training: the entries of `TRAINING`: task family, horizon, estimator, seeds, cost, measured results, and the command
        that repeats it.
    sha256: of the file of weights.
    """

    optimizer: str
    settings: dict[str, Any]
    parameters: int
    training: dict[str, Any]
    sha256: str
    format: str = field(default=FORMAT)


def shipped(optimizer: str | None = None) -> list[str]:
    """Return the names of the weights that ship with mlopt, or only those for one optimizer."""
    cards = {
        path.stem: path.with_suffix(".json") for folder in folders() for path in folder.glob("*.safetensors")
    }
    return sorted(
        name
        for name, card in cards.items()
        if optimizer is None or json.loads(card.read_text())["optimizer"] == optimizer
    )


@functools.cache
def folders() -> tuple[Path, ...]:
    """Return the folders of weights in the installed distributions, without importing them."""
    found = []
    for one in importlib.metadata.entry_points(group=GROUP):
        top, _, rest = one.value.partition(".")
        spec = importlib.util.find_spec(top)
        roots = [] if spec is None else spec.submodule_search_locations or []
        found += [path for root in roots if (path := Path(root, *rest.split("."))).is_dir()]
    return tuple(found)


def save_weights(
    path: str | Path,
    theta: torch.Tensor,
    optimizer: str,
    settings: Mapping[str, Any],
    training: Mapping[str, Any],
) -> Card:
    """Write ``theta (p,)`` to ``path`` (``.safetensors``) in float64, with its card beside it; return the card.

    Raises:
        InputError: the path has another suffix, or theta is no vector of finite numbers. An entry of `TRAINING` is
            missing, or is no plain data.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: weights are kept in a file that ends in .safetensors")
    if theta.ndim != 1 or not bool(torch.isfinite(theta).all()):
        raise InputError(f"{path}: theta must be a vector of finite numbers to be kept")
    missing = [name for name in TRAINING if name not in training]
    if missing:
        raise InputError(f"{path}: the card must say of the training: {', '.join(missing)}")
    data = save({"theta": theta.detach().to("cpu", torch.float64).contiguous()})
    card = Card(optimizer, dict(settings), theta.numel(), dict(training), hashlib.sha256(data).hexdigest())
    try:
        text = json.dumps(asdict(card), indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: the card must be plain data of finite numbers ({error})") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
    write_text(path.with_suffix(".json"), text + "\n")
    return card


def path_of(weights: str) -> Path:
    """Return the file of shipped weights, by name, or of a path.

    Raises:
        InputError: there is no such file.
    """
    if _NAME.fullmatch(weights):
        for folder in folders():
            if (path := folder / f"{weights}.safetensors").is_file():
                return path
        if not Path(weights).exists():
            raise InputError(
                f"no weights are called {quoted(weights)}; these ship: {', '.join(shipped()) or 'none yet'}. A file of "
                f"yours is named with its ending, such as ./{one_line(weights, 60)}.safetensors"
            )
    path = Path(weights).expanduser()
    if not path.is_file():
        raise InputError(f"weights: there is no file {weights}")
    return path


#: a setting that is the name of weights that ship, or a file with weights
Weights: TypeAlias = Annotated[str, Reads(beside=".json", find=path_of)]


def settled(weights: str) -> str:
    """Return a name as it is and a path as an absolute one, because a run may be resumed from another folder."""
    path = path_of(weights)
    return weights if path.parent in folders() else str(path.absolute())


def read_card(weights: str, optimizer: str) -> Card:
    """Return the card of a name or a path, checked against its file of weights; needs no torch.

    Raises:
        InputError: a file is missing, foreign or damaged, or belongs to another optimizer.
    """
    return _read(weights, optimizer)[0]


def with_card(values: Any, optimizer: str) -> Any:
    """Return the settings ``values`` of a plugin together with those on the card of its `weights`.

    Values that are no mapping, or that have no `weights`, are returned unchanged. Call it before validation; see
    `check_trained`.

    Raises:
        ValueError: as in `read_card`.
    """
    if not isinstance(values, Mapping) or not isinstance(values.get("weights"), str):
        return values
    try:
        card = read_card(values["weights"], optimizer)
        return card.settings | dict(values) | {"weights": settled(values["weights"])}
    except InputError as error:
        raise ValueError(str(error)) from None


def check_trained(card: Card, weights: str, settings: Mapping[str, Any], free: Collection[str] = ()) -> None:
    """Refuse ``settings`` (plain data) that differ from those of the training, except those named in ``free``.

    Raises:
        ValueError: names the first difference.
    """
    for name, trained in card.settings.items():
        given = settings.get(name, trained)
        if given != trained and name not in free:
            raise ValueError(
                f"weights {quoted(weights)} were trained with {name}: {_shown(trained)}, not {_shown(given)}; "
                f"leave it out"
            )


def _shown(value: Any) -> str:
    """Return a setting as messages show it: plugins by their names."""
    if isinstance(value, Mapping) and "name" in value:
        return one_line(value["name"], 80)
    if isinstance(value, list):
        return one_line(f"[{', '.join(_shown(one) for one in value)}]", 200)
    return one_line(value, 80)


def load_weights(weights: str, optimizer: str) -> torch.Tensor:
    """Return the weights, theta (p,) float64.

    Raises:
        InputError: as in `read_card`; or theta is not finite, or does not fit the card.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    card, data = _read(weights, optimizer)
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise InputError(f"weights {weights}: not a safetensors file ({error})") from None
    theta = tensors.get("theta")
    if theta is None or list(tensors) != ["theta"] or theta.shape != (card.parameters,):
        shapes = {name: tuple(one.shape) for name, one in tensors.items()}
        raise InputError(
            f"weights {weights}: holds {shapes}, where its card promises theta ({card.parameters},)"
        )
    if theta.dtype != torch.float64 or not bool(torch.isfinite(theta).all()):
        raise InputError(f"weights {weights}: theta must be finite numbers in float64")
    return theta


def _read(weights: str, optimizer: str) -> tuple[Card, bytes]:
    path = path_of(weights)
    beside = path.with_suffix(".json")
    if path.suffix != ".safetensors":
        raise InputError(
            f"weights {weights}: a file of weights ends in .safetensors; its card, in .json, is beside it"
        )
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"weights {weights}: larger than any weights of mlopt; not read")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"weights {weights}: cannot be read ({error.strerror})") from None
    try:
        told = json.loads(beside.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise InputError(
            f"weights {weights}: there is no card {beside.name} beside it, so nothing says what it is; foreign weights "
            f"are not read"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"weights {weights}: its card {beside.name} cannot be read ({error})") from None
    card = _card(told, f"weights {weights}: its card {beside.name}")
    if card.optimizer != optimizer:
        raise InputError(
            f"weights {weights} are for the optimizer {quoted(card.optimizer)}, not for {quoted(optimizer)}"
        )
    if hashlib.sha256(data).hexdigest() != card.sha256:
        raise InputError(
            f"weights {weights}: the file is not the one that its card was written for (SHA-256 differs); it is "
            f"damaged, or was put together from two"
        )
    return card, data


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _card(told: Any, where: str) -> Card:
    """Return the card of a JSON text, checked field by field, because its author is unknown."""
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        found = told.get("format") if isinstance(told, dict) else None
        raise InputError(
            f"{where} is not of the format {FORMAT!r} but {found!r:.60}; update mlopt, or train anew"
        )
    kinds: dict[str, type] = {
        "optimizer": str,
        "settings": dict,
        "parameters": int,
        "training": dict,
        "sha256": str,
    }
    for name, kind in kinds.items():
        if not isinstance(told.get(name), kind):
            raise InputError(f"{where} says nothing sound about {quoted(name)}")
    numbers = [one for one in told["settings"].values() if isinstance(one, float)]
    if not all(math.isfinite(one) for one in numbers):
        raise InputError(f"{where} has settings that are not finite")
    return Card(**{name: told[name] for name in kinds})
