"""The programs that some calculators of ASE start."""

from __future__ import annotations

import shlex
import shutil
from typing import Any

from mlopt.core.errors import InputError
from mlopt.core.quoting import quoted
from mlopt.potentials.ase.failures import cause


def find_program(name: str, calculator: Any) -> None:
    """Check that the program of an ASE calculator is on this machine. It is not started.

    Raises:
        InputError: ASE's configuration names no program, or one that is not there.
    """
    where = f"ASE's configuration, `~/.config/ase/config.ini`, section [{name}]"
    try:
        profile = getattr(calculator, "profile", None)
        command = profile.command if profile is not None else calculator.make_command(calculator.command)
        program = shlex.split(str(command))[0]
    except Exception as error:  # ASE has no common way to tell it
        raise InputError(
            f"ase: no program is known for the calculator {quoted(name)}: {cause(error)}. Name it in {where}."
        ) from error
    if shutil.which(program) is None:
        raise InputError(
            f"ase: the program {quoted(program)} of the calculator {quoted(name)} is not on this machine. Install it, "
            f"load its module, or correct the command in {where}."
        )
