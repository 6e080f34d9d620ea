"""The import of a kernel's module, which Numba compiles, or whose code it loads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any


def compiled(module: Path, call: Callable[[Any], None]) -> Any:
    """Import a module, and return its ``chunk``, which Numba loads, or compiles and stores, because of ``call``."""
    from numba.core import config
    from numba.core.caching import NullCache

    settings: Any = config
    elsewhere, settings.CACHE_DIR = settings.CACHE_DIR, ""  # kept beside the module, where it is looked after
    try:
        function = imported(module).chunk
    finally:
        settings.CACHE_DIR = elsewhere
    try:
        call(function)
    except OSError:  # compiled, but the disk is full; what is there by now is not compiled again
        call(function)
    # a folder holds what its digests were taken of, and nothing that comes later
    function._cache = NullCache()
    return function


def imported(path: Path) -> Any:
    """Return the module in a file, run from its text."""
    spec = spec_from_file_location(path.stem, path, loader=_FromText(path.stem, str(path)))
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = module_from_spec(spec)
    sys.modules[path.stem] = module  # Numba looks for it there
    spec.loader.exec_module(module)
    return module


class _FromText(SourceFileLoader):
    """A loader that neither reads nor writes bytecode, which would be one more file to look after."""

    def get_code(self, fullname: str) -> CodeType:
        """See `importlib.abc.InspectLoader.get_code`."""
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code
