"""Fixtures and settings that every test shares."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]

# Before anything imports torch, and inherited by the commands that tests start: workers share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Not the user's; kept from run to run, for compiling takes seconds, and removed by `make clean`.
os.environ.setdefault("MLOPT_CACHE", str(REPOSITORY / ".pytest_cache" / "mlopt"))

# The same examples every time; how long one takes depends on the machine, not on the code.
settings.register_profile("mlopt", derandomize=True, deadline=None)
settings.load_profile("mlopt")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` where there is no CUDA device; torch is imported only if there are any."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_configure() -> None:
    """Take Ctrl-C as a terminal gives it: a shell that starts the tests in the background has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Make a forgotten seed harmless: a test's draws do not depend on the tests before it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def random_cells() -> Callable[..., list[tuple[Any, Any]]]:
    """Cells (3, 3) with periodic directions (3,): turned, skewed down to 20 degrees, periodic along 0 to 3 vectors."""

    def make(
        number: int, seed: int = 0, shortest: float = 0.5, longest: float = 20.0
    ) -> list[tuple[Any, Any]]:
        import numpy as np

        generator, made = np.random.default_rng(seed), []
        while len(made) < number:
            a, b, c = np.cos(np.deg2rad(generator.uniform(20.0, 160.0, 3)))
            z = 1.0 - a * a - b * b - c * c + 2.0 * a * b * c  # the squared volume that unit vectors span
            if z < 1e-4:
                continue
            gram = np.array([[1.0, c, b], [c, 1.0, a], [b, a, 1.0]])
            lengths = np.exp(generator.uniform(np.log(shortest), np.log(longest), 3))
            turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
            made.append((lengths[:, None] * np.linalg.cholesky(gram) @ turn, generator.random(3) < 0.7))
        return made

    return make


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Reference data that is too large for the repository: ``$MLOPT_DATA``, else ``../shared/data``."""
    named = os.environ.get("MLOPT_DATA")
    if named:
        if not Path(named).is_dir():
            pytest.fail(f"MLOPT_DATA={named} is not a folder; correct it or unset it")
        return Path(named)
    beside = REPOSITORY.parent / "shared" / "data"
    if not beside.is_dir():
        pytest.skip(f"needs the reference data: set MLOPT_DATA to its folder, or put it at {beside}")
    return beside
