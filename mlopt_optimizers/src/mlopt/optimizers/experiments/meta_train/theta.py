"""Files of parameters alone, which a training writes at each evaluation, and from which another may start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlopt.core.errors import InputError
from mlopt.core.files import atomic
from mlopt.core.lazy import torch


def save_theta(path: Path, theta: torch.Tensor, made_by: Mapping[str, Any]) -> None:
    """Write the tensor ``theta (p,)`` with its task, trainer, seed and epoch.

    made_by: JSON data, written as one entry of the file, because safetensors writes several in no fixed order.
    """
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"theta": theta.detach().cpu().contiguous()}
    atomic.write_bytes(path, save(tensors, {"made_by": json.dumps(dict(made_by))}))


def load_theta(path: Path, size: int) -> torch.Tensor:
    """Return the parameters, (size,) float64, in a file that `save_theta` wrote.

    Raises:
        InputError: no such file, no such tensor, another number of parameters, or one that is not finite.
    """
    from safetensors.torch import load

    try:
        theta = load(path.read_bytes())["theta"].to(torch.float64)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # whatever safetensors finds wrong: nothing of the file is executed
        raise InputError(f"{path}: no file of parameters ({type(error).__name__}: {error})") from error
    if theta.shape != (size,):
        raise InputError(
            f"{path}: {theta.numel()} parameters, and this task has {size}: it was trained with other features, "
            f"another network or other species"
        )
    if not bool(torch.isfinite(theta).all()):
        raise InputError(f"{path}: holds NaN or infinity; take an older file")
    return theta
