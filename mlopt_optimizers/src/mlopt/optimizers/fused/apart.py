"""Compilation in a process of its own, which can be ended at any moment. LLVM itself cannot be interrupted."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from mlopt.optimizers.fused.imported import compiled

#: seconds between two looks at whether to leave
_LOOK = 0.05


def compile_module(module: Path, arrays: Sequence[tuple[str, int]], leave: Callable[[], bool]) -> bool:
    """Compile ``chunk`` of a module, store it beside the module, and return whether that was done.

    arrays: dtype and number of dimensions of each array that ``chunk`` takes.
    leave: called again and again meanwhile; true ends the process.
    """
    paths = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-P", "-m", __name__, str(module), json.dumps(list(arrays))]
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": paths},
            start_new_session=True,  # Ctrl-C is for this process, which then leaves
        )
    except OSError:
        return False
    with child:
        while True:
            try:
                return child.wait(_LOOK) == 0
            except subprocess.TimeoutExpired:
                if leave():
                    child.kill()
            except BaseException:  # a second Ctrl-C
                child.kill()
                raise


def main() -> None:
    """Call ``chunk`` for no system, so that it is compiled. This is the main function of the process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.disable()  # Numba makes many small objects, and this process soon ends
    import numpy as np

    module, arrays = Path(sys.argv[1]), json.loads(sys.argv[2])
    given = [np.zeros((0,) * dimensions, dtype) for dtype, dimensions in arrays]
    compiled(module, lambda function: function(0, 0, 1, 0, 0, *given))


def _end_with_parent() -> None:
    """End with the parent: its end, whichever way it comes, closes the other end of the pipe."""
    os.read(0, 1)  # not by sys.stdin, whose lock would be in the way of an end
    os._exit(1)


if __name__ == "__main__":
    main()
