"""The device of a run, by its name in a configuration."""

from __future__ import annotations

from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.quoting import quoted


def device_of(name: str) -> torch.device:
    """Return the device of that name.

    Raises:
        InputError: torch does not know the device, or does not see it.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(
            f"device {quoted(name)} is not one that torch knows; use cpu, cuda or cuda:0"
        ) from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {quoted(name)} is not supported; use cpu, cuda or cuda:0")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"device {quoted(name)}: torch sees no CUDA device. Run with `--device cpu`, or install a CUDA build "
            f"of torch; `mlopt doctor` shows what is there."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {quoted(name)}: there are only {torch.cuda.device_count()} CUDA devices")
    return device
