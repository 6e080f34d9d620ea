"""Files of results that grow during a run, such as trajectories, with the same bytes after a kill and a resume."""

from __future__ import annotations

from pathlib import Path

from mlopt.core.errors import CheckpointError
from mlopt.core.files import atomic


class GrowingFile:
    """A text file that is appended to, and cut back to the length that a checkpoint remembers.

    Call `sync` before a checkpoint, and store `length` in it. Give that length when the run resumes: what was written
    after the checkpoint is dropped, and written again.

    path: the file. length: bytes to keep of it; 0 begins it anew.

    Raises:
        CheckpointError: the file is shorter than that, so a part of it is lost.
        MloptError: the file cannot be written.
    """

    def __init__(self, path: Path, length: int = 0) -> None:
        self.path, self.length = path, length
        if length == 0:
            atomic.write_bytes(path, b"")
            return
        try:
            size = path.stat().st_size
        except OSError:
            size = -1
        if size < length:
            found = "is missing" if size < 0 else f"has {size:,} bytes"
            raise CheckpointError(
                f"{path}: this file {found}, and had {length:,} when the checkpoint was written. Put it back, or start "
                f"the run anew"
            )
        if size > length:
            atomic.truncate(path, length)

    def append(self, text: str) -> None:
        """Append ``text``; after a failure (``MloptError``) the file is as before."""
        atomic.append_text(self.path, text)
        self.length += len(text.encode("utf-8", errors="backslashreplace"))

    def sync(self) -> None:
        """Force the file to the disk."""
        atomic.sync(self.path)
