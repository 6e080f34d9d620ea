"""The process that computes labels for another one: ``python -m mlopt.optimizers.labelling.worker``.

A calculator may crash, hang, fill the memory, write files, or leave by ``os._exit``. Here it harms nothing else. The
worker and all programs that it starts are one process group, which ends with the parent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

    from mlopt.core.landscapes.potential import Potential

#: file in the scratch folder of a label with all that is printed
OUTPUT = "output.txt"


def main() -> None:
    """Compute labels until the parent closes the connection. This is the main function of the process.

    Arguments of the command line: descriptors of the connection, and of a pipe whose other end the parent holds open.
    """
    connection, life = (int(one) for one in sys.argv[1:3])
    _guard(connection, life)
    with contextlib.suppress(EOFError, OSError), Connection(connection) as parent:
        _serve(parent)


def _guard(connection: int, life: int) -> None:
    """Start a process that ends this process group with the parent, even while a calculator holds Python's lock."""
    if os.fork():
        os.close(life)
        return
    os.close(connection)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    os.read(life, 1)  # returns when the parent has ended, whichever way
    os.killpg(0, signal.SIGKILL)


def _serve(parent: Connection) -> None:
    import multiprocessing
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    multiprocessing.current_process().authkey = parent.recv_bytes()  # tensors travel by shared memory
    try:
        potential = parent.recv()
        _warm_up()
    except Exception as error:
        parent.send(f"{type(error).__name__}: {error}")
        return
    parent.send(None)
    while True:
        folder, atoms = parent.recv()
        _redirect(Path(folder, OUTPUT))
        os.chdir(folder)
        parent.send(_computed(potential, atoms))
        os.chdir("/")


def _warm_up() -> None:
    """Import what the first label would import, whose time is limited; and log nothing, for reasons travel apart."""
    import logging

    logging.getLogger("mlopt").addHandler(logging.NullHandler())
    from ase import Atoms

    from mlopt.core.atoms.systems import Systems

    Systems.from_atoms(Atoms("H"))


def _redirect(output: Path) -> None:
    """Write all that this process, or a program that it starts, prints into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _computed(potential: Potential, atoms: Atoms) -> dict[str, Any]:
    """Return energy, force (n, 3) and stress (3, 3) or None; or ``reason`` if that fails."""
    from mlopt.core.atoms.systems import Systems
    from mlopt.core.errors import InputError
    from mlopt.core.lazy import torch

    systems = Systems.from_atoms(atoms)
    try:
        with torch.no_grad():
            found = potential.evaluate(systems, stress=bool(systems.volume[0] > 0))
    except InputError as error:
        return {"refused": str(error)}
    except Exception as error:
        return {"reason": f"{type(error).__name__}: {error}"}
    finite = bool(torch.isfinite(found.energy).all() and torch.isfinite(found.force).all())
    if not finite:
        return {"reason": potential.failure() or f"{potential.giver} gives no finite energy and force"}
    stress = None if found.stress is None else found.stress[0].double().numpy()
    return {"energy": float(found.energy[0]), "force": found.force.double().numpy(), "stress": stress}


if __name__ == "__main__":
    main()
