"""Compiled kernels, kept between runs.

The module that `Writer` writes goes into a folder named after a digest of its text and of what it stands on; Numba puts
the machine code beside it, for this kind of processor, and later runs load it.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib.util
import inspect
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlopt.core.atomic import write_text
from mlopt.optimizers.fused.rollout import rollout as loop

_LOADED: dict[str, Any] = {}
_TEMPORARY = "mlopt-kernels-"

#: arrays with one block for each system, by the names of `rollout`
_BLOCKS = (
    *("x", "rows", "numbers", "counts", "best", "tally_numbers", "tally_counts"),
    *("atoms", "kinds", "runs", "cell", "trace", "ended", "settings"),
)
#: arrays that all systems share, and those that each thread of the CPU, or each system on CUDA, has for itself
_SHARED = ("table", "conditions", "limits", "trace_calls", "weights")
_OWN = ("scratch", "reals", "integers")
#: the order of the arguments of ``chunk`` behind ``first, last, n, calls, steps``
ARRAYS = (*_BLOCKS, *_SHARED, *_OWN)


def cache_folder() -> Path:
    """``$MLOPT_CACHE``, else the user's cache folder; a folder of this process where neither can be written."""
    named = os.environ.get("MLOPT_CACHE")
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: there is no home
        if named:
            folder = Path(named).expanduser()
        elif sys.platform == "darwin":
            folder = Path.home() / "Library" / "Caches" / "mlopt"
        else:
            folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlopt"
        (folder / "kernels").mkdir(parents=True, exist_ok=True)
        if os.access(folder / "kernels", os.W_OK | os.X_OK):
            return folder / "kernels"
    return _own_folder()


def is_kept(folder: Path) -> bool:
    """Whether what is in ``folder`` outlasts this process."""
    return not folder.name.startswith(_TEMPORARY)


@lru_cache(maxsize=1)
def _own_folder() -> Path:
    folder = tempfile.mkdtemp(prefix=_TEMPORARY)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def module_text(functions: str, rollout: str, columns: int, dtype: str, target: str) -> str:
    """The whole module for one combination; ``columns`` of the potential's table."""
    numbers = "".join(f"table[pair, {column}], " for column in range(columns))
    given = {name: f"{name}[s]" for name in _BLOCKS} | {name: f"own({name}, s)" for name in _OWN}
    # one row of weights for each system, or one for all
    given["settings"] = "(settings[s], weights[s if len(weights) > 1 else 0])"
    arguments = [given.get(name, name) for name in inspect.signature(loop).parameters]
    bits = dtype.removeprefix("float")
    return f'''"""Written by mlopt for one combination of potential and optimizer; may be deleted."""
import math
import numpy as np
from mlopt.optimizers.fused.{target} import *

real = np.{dtype}
inf = np.inf
unsigned = np.uintp
exp = exp{bits}
log = log{bits}
total = total{bits}
highest = highest{bits}


@jit
def numbers_of(table, pair):
    return ({numbers})


{functions}

@entry
def chunk(first, last, n, calls, steps, {", ".join(ARRAYS)}):
    for s in range(first + team(), last, teams()):
        {rollout}({", ".join(arguments)})
'''


def load(text: str, target: str, announce: Callable[[str], None]) -> Any:
    """The function ``chunk`` of a module text, from memory, from the cache or compiled now on its first call."""
    import numba

    stands_on = [Path(__file__).with_name(name) for name in ("plain.py", f"{target}.py")]
    parts = [text, numba.__version__, sys.version, *(path.read_text() for path in stands_on)]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    if digest not in _LOADED:
        path = cache_folder() / f"rollout_{digest}.py"
        if not path.exists() or path.read_bytes() != text.encode():
            write_text(path, text)
            path.with_suffix(".compiled").unlink(missing_ok=True)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        _LOADED[digest] = _Announced(module.chunk, path, announce)
    return _LOADED[digest]


class _Announced:
    """Says so when the first call has to compile."""

    def __init__(self, function: Any, path: Path, announce: Callable[[str], None]) -> None:
        self.function, self.path, self.announce = function, path, announce
        self.marker = path.with_suffix(".compiled")
        self.ready = False

    def warm(self, call: Callable[[], None]) -> None:
        """Compile, or load, by calling the function for no system."""
        if self.ready:
            return
        fresh = not self.marker.exists()
        if fresh:
            self.announce("compiling the fused kernel for this potential and optimizer (once; it is kept)")
        began = time.monotonic()
        try:
            call()
        except Exception:  # machine code that is kept may be cut off, by a full disk: Numba reads it as it is
            kept = list(self.path.with_name("__pycache__").glob(f"{self.path.stem}.*.nb[ci]"))
            if not kept:
                raise
            for one in kept:
                one.unlink(missing_ok=True)
            call()
        self.ready = True
        if fresh:
            self.announce(f"compiled in {time.monotonic() - began:.0f} s")
            with contextlib.suppress(OSError):
                self.marker.touch()
