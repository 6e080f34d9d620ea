"""The sitting of a run: identity, time over several sittings, what a checkpoint keeps, and leaving."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mlopt.core.errors import CheckpointError, PluginError
from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.runs.experiment import Context, Preempted
from mlopt.core.runs.session import KEPT, Session
from mlopt.core.testing.recorder import Recorder, Resumed

ONE = torch.arange(3.0)


class Going(Context):
    """Goes on from a checkpoint that is given."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.checkpoint = checkpoint

    def restored(self) -> Checkpoint:
        return self.checkpoint


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still unless a test moves it."""
    now = [100.0]
    monkeypatch.setattr("mlopt.core.runs.session.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_run_begins_with_nothing() -> None:
    session = Session()
    assert session.restored is None and session.compile_seconds == 0.0
    session.save(1, {"x": ONE})  # nobody keeps it
    session.leave_if_asked()
    assert not session.asked_to_leave()


def test_what_was_saved_comes_back_as_it_was_saved() -> None:
    before = Recorder()
    Session(before, "Ar7").save(5, {"x": ONE}, {"step": 5, "told": ["a", None]})
    restored = Session(Resumed(before), "Ar7").restored
    assert restored is not None and restored.meta == {"step": 5, "told": ["a", None]}
    assert list(restored.tensors) == ["x"] and torch.equal(restored.tensors["x"], ONE)


def test_seconds_of_all_sittings_add_up(now: list[float]) -> None:
    context = Recorder()
    for sitting in range(3):
        session = Session(context)
        now[0] += 1000.0
        session.compiled(998.0)
        now[0] += 7.0
        assert session.seconds == 7.0 * (sitting + 1)
        assert session.compile_seconds == 998.0 * (sitting + 1)
        session.save(sitting, {})
        now[0] += 50.0  # nobody runs it
        context = Resumed(context)


def test_a_checkpoint_of_another_structure_is_refused() -> None:
    before = Recorder()
    Session(before, "Ar7").save(0, {})
    for identity in ("Ar8", None):
        with pytest.raises(
            CheckpointError, match=r"is of another structure: has the structure file changed\?"
        ):
            Session(Resumed(before), identity)
    unnamed = Recorder()
    Session(unnamed).save(0, {})
    with pytest.raises(CheckpointError, match="is of another structure"):
        Session(Resumed(unnamed), "Ar7")


def test_checkpoints_of_versions_that_kept_no_time() -> None:
    session = Session(Going(Checkpoint({}, {"rows": []})))
    assert session.restored is not None and session.restored.meta == {"rows": []}
    assert 0.0 <= session.seconds < 60.0 and session.compile_seconds == 0.0


@pytest.mark.parametrize("name", KEPT)
def test_names_that_the_session_keeps_are_refused(name: str) -> None:
    with pytest.raises(
        PluginError, match=f"'{name}' is kept by the session itself; name that entry otherwise"
    ):
        Session().save(0, {}, {name: 1})


def test_a_run_leaves_where_it_is_asked_to() -> None:
    session = Session(Recorder(pauses=-1))
    assert session.asked_to_leave()
    with pytest.raises(Preempted):
        session.leave_if_asked()
