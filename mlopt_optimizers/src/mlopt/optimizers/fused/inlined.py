"""Functions that Numba compiles only to inline them into others.

Numba makes machine code, and a wrapper for Python, of every function that a compiled function calls. A kernel inlines
all of its functions, so that this code is never run. Leaving it out halves the time to compile a kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core import codegen, compiler

# Numba's classes have no types
_Compiler: Any = compiler.Compiler
_Library: Any = codegen.JITCodeLibrary


def inlined(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator for a function that compiled functions inline. Python itself cannot call the function.

    options: see `numba.njit`.
    """
    alone = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _InlinedCompiler}
    decorator: Callable[[Callable[..., Any]], Any] = njit(**{**options, **alone}, forceinline=True)
    return decorator


class _InlinedCompiler(_Compiler):  # type: ignore[misc]
    """Numba's compiler, with another end: what a function becomes is an `_InlinedLibrary`."""

    def __init__(self, typingctx: Any, targetctx: Any, *rest: Any) -> None:
        super().__init__(typingctx, targetctx, *rest)
        self.state.library = _InlinedLibrary(targetctx.codegen(), "inlined")


class _InlinedLibrary(_Library):  # type: ignore[misc]
    """The code of one function and of those that it inlines, as LLVM's language alone.

    The function that is called by Python is optimised, with all of these in it, and becomes machine code.
    """

    def finalize(self) -> None:
        """Link what the function calls."""
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Return zero: there is no machine code."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        """Return what is asked to give the function its globals, which have no address here."""
        return _NoAddresses()


class _NoAddresses:
    """A code generator that leaves globals where they are."""

    def set_env(self, name: str, environment: Any) -> None:
        """Do nothing."""
