"""The environment of a result besides its configuration: versions, machine, threads, and the command line."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mlopt.core.files.atomic import JSON

_MLOPT = ("mlopt-core", "mlopt-potentials", "mlopt-optimizers", "mlopt-cli")
_DISTRIBUTIONS = (*_MLOPT, "torch", "numpy", "scipy", "ase", "vesin", "numba", "llvmlite", "safetensors")
_ENVIRONMENT_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
_MASK = "***"
_SECRET = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|api[-_]?key|private[-_]?key|access[-_]?key",
    re.IGNORECASE,
)


def environment() -> dict[str, JSON]:
    """Return a description of program and machine for env.json, without secrets.

    Of the environment variables only those that set threads and devices are read. Imports neither torch nor numpy.
    """
    versions: dict[str, str | None] = {}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    torch = sys.modules.get("torch")
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hostname": socket.gethostname(),
        "cpu_count": os.cpu_count(),
        "cpu": _cpu(),
        "torch_threads": None if torch is None else torch.get_num_threads(),
        "argv": without_secrets(sys.argv),
        "environment": {name: os.environ[name] for name in _ENVIRONMENT_VARIABLES if name in os.environ},
        "git_commit": _git_commit(),
    }


def _cpu() -> dict[str, JSON]:
    """Return the kind of processor and its features, as LLVM reports them; compiled kernels and torch use them."""
    try:
        binding = importlib.import_module("llvmlite.binding")
        features = sorted(name for name, there in binding.get_host_cpu_features().items() if there)
        return {"name": binding.get_host_cpu_name(), "features": features}
    except (ImportError, OSError, RuntimeError):  # RuntimeError: LLVM does not know the host
        return {"name": platform.processor() or platform.machine(), "features": []}


def _git_commit() -> str | None:
    """Return the commit of mlopt's own checkout; None for an installed mlopt."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        for command in (["ls-files", "--error-unmatch", here.name], ["rev-parse", "HEAD"]):
            done = subprocess.run([*git, *command], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which values of settings that are named like a secret are masked.

    >>> without_secrets(["mlopt", "run", "x.yaml", "-s", "model.api_key=abc", "--token", "abc"])
    ['mlopt', 'run', 'x.yaml', '-s', 'model.api_key=***', '--token', '***']
    """
    masked: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        before = masked[-1] if masked else ""
        if before.startswith("--") and "=" not in before and _SECRET.search(before):
            masked.append(_MASK)
        elif equals and (
            _SECRET.search(name) or _SECRET.search(value)
        ):  # also ``model={name: x, token: abc}``
            masked.append(f"{name}={_MASK}")
        else:
            masked.append(argument)
    return masked
