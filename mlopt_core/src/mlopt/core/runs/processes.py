"""One training on several processes: each computes a share of the losses, and they exchange a small table.

``torchrun`` starts the processes (ranks) and gives each its number. Every rank runs the same program. It draws the same
perturbations from the same seed and computes its share in `share_out`. It then receives the shares of the others and
updates theta by itself.

Invariant: theta does not depend on the number of ranks, to the last bit, because a loss does not depend on its batch.

The exchange is `torch.distributed.all_gather` with gloo on the CPU, also for losses from GPUs. A table has a few
kilobytes, and copying bytes is exact.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mlopt.core.errors import InputError, MloptError
from mlopt.core.lazy import torch
from mlopt.core.runs.experiment import Context, Preempted

#: how the share of a rank went, if it is not there
_FAILED, _LEFT = 1.0, 2.0


@dataclass
class Ranks:
    """The processes of a training, and the number of this one.

    store: the store of torch.distributed for this training alone; None for one process.
    rounds: number of exchanges so far.
    busy: True while a share is computed.
    """

    rank: int = 0
    size: int = 1
    timeout_s: float = 1800.0
    store: Any = None
    rounds: int = 0
    busy: bool = False

    def gather(self, own: torch.Tensor) -> torch.Tensor:
        """Return ``own (...)`` float64 of every rank: (size, ...), the same on all.

        Raises:
            MloptError: a rank exceeded the timeout or has ended; says which.
        """
        own = own.detach().to("cpu", torch.float64).contiguous()
        if self.size == 1:
            return own[None]
        parts = [torch.empty_like(own) for _ in range(self.size)]
        self._meet(lambda: torch.distributed.all_gather(parts, own))
        return torch.stack(parts)

    def broadcast(self, data: bytes) -> bytes:
        """Return the ``data`` of rank 0 on all ranks; errors as in `gather`."""
        if self.size == 1:
            return data
        length = torch.tensor([len(data)])
        self._meet(lambda: torch.distributed.broadcast(length, 0))
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else content
        self._meet(lambda: torch.distributed.broadcast(content, 0))
        return bytes(content.tolist())

    def agree(self, flag: bool) -> bool:
        """Return whether ``flag`` is true on any rank, the same on all; errors as in `gather`."""
        return bool(self.gather(torch.tensor([float(flag)])).any())

    def _meet(self, exchange: Callable[[], object]) -> None:
        """Exchange data; if that fails, raise an error that names the missing ranks."""
        here = f"{self.rounds}/"
        self.rounds += 1
        try:
            self.store.set(f"{here}{self.rank}", "")
            exchange()
        except RuntimeError as error:
            raise MloptError(self._absent(here, str(error))) from error
        if self.rounds > 2:  # every rank here has finished the last round, so no rank needs the one before
            with suppress(RuntimeError):  # the store may be gone with the last round
                self.store.delete_key(f"{self.rounds - 3}/{self.rank}")

    def _absent(self, here: str, cause: str) -> str:
        again = "Its own messages say why; resume from the last checkpoint."
        try:
            absent = [rank for rank in range(self.size) if not self.store.check([f"{here}{rank}"])]
        except RuntimeError:
            return f"the exchange of losses failed, and the process that keeps the ranks together is gone. {again}"
        if not absent:
            return f"the exchange of losses between {self.size} ranks failed: {cause}"
        names = " and ".join(f"rank {rank}" for rank in absent)
        return (
            f"{names} of {self.size} did not come to the exchange of losses: ended, or hung for more than "
            f"{self.timeout_s:g} s (`rank_timeout`). {again}"
        )


class Worker(Context):
    """The context of a process that computes along and writes nothing, but can be told to stop."""

    def __init__(self, context: Context | None = None) -> None:
        super().__init__()
        self._context = context or Context()

    @property
    def stopping(self) -> bool:
        return self._context.stopping

    @property
    def interrupted(self) -> bool:
        return self._context.interrupted


_here = Ranks()
#: where the processes of `torchrun` meet, once they have, and how many trainings have used it
_store: Any = None
_joins = 0


def world_size() -> int:
    """Return the number of processes that ``torchrun`` put into the environment, or 1."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_worker() -> bool:
    """Return whether this process is one of several and not the first, which alone writes files."""
    return world_size() > 1 and os.environ.get("RANK", "0") != "0"


def check(wanted: int | None) -> None:
    """Refuse to run with fewer processes than ``wanted``.

    Raises:
        InputError: says how to start them.
    """
    size = world_size()
    if wanted is not None and size < wanted:
        raise InputError(
            f"`ranks: {wanted}` asks for {wanted} processes and there {'is' if size == 1 else 'are'} {size}. Start "
            f"them with `torchrun --nproc-per-node {wanted} -m mlopt.cli run ...`, or leave `ranks` out: the result is "
            f"the same"
        )


@contextmanager
def joined(wanted: int | None = None, timeout_s: float = 1800.0) -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` has started; inside the ``with``, `share_out` distributes work.

    timeout_s: time to wait for the slowest rank in an exchange, seconds.

    Raises:
        InputError: there are fewer than ``wanted``.
        MloptError: the others cannot be reached.
    """
    global _here, _store, _joins
    check(wanted)
    if world_size() == 1:
        yield Ranks()
        return
    timeout = timedelta(seconds=timeout_s)
    rank, size = int(os.environ.get("RANK", "0")), world_size()
    from torch.distributed.rendezvous import rendezvous

    try:
        if _store is None:  # a second training of this process meets at the same place
            _store, rank, size = next(rendezvous("env://", timeout=timeout))
        _joins += 1
        store = torch.distributed.PrefixStore(f"mlopt/{_joins}", _store)  # type: ignore[attr-defined]
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise MloptError(
            f"this process could not meet the other {world_size() - 1} ranks: {error}. Start all with `torchrun`, and "
            f"see that `--rdzv-endpoint` (or MASTER_ADDR and MASTER_PORT) can be reached from every node"
        ) from error
    _here = Ranks(rank, size, timeout_s, store)
    try:
        yield _here
    finally:
        _here = Ranks()
        torch.distributed.destroy_process_group()


def share_out(
    count: int,
    function: Callable[[torch.Tensor], torch.Tensor],
    *,
    batch: int | None = None,
    columns: int = 1,
) -> torch.Tensor:
    """Return ``function`` of 0 .. count - 1, computed by all ranks together: (count, columns) float64 on the CPU.

    function: ``function(index (m,) int64)`` returns (m,) or (m, columns). The value of an index must not depend on the
        other indices.
    batch: number of indices in one call; None for all of this rank's. With a number, the calls do not depend on the
        number of ranks. Functions whose values depend on the batch by rounding, as on GPUs, need this.

    A `share_out` inside ``function`` is not distributed.

    Raises:
        Exception: any that ``function`` raises.
        MloptError: ``function`` failed on another rank.
        Preempted: on all ranks, if one was told to stop.
    """
    here = _here
    everything = torch.arange(count)
    if here.size == 1 or here.busy:
        return _computed(everything, function, batch, columns)
    owner = everything // (batch or 1) % here.size
    share = int(torch.bincount(owner, minlength=here.size).max()) if count else 0
    # one row more than the share, for how it went
    sent = torch.zeros(1 + share, columns, dtype=torch.float64)
    failure: Exception | None = None
    here.busy = True
    try:
        own = _computed(everything[owner == here.rank], function, batch, columns)
        sent[1 : 1 + len(own)] = own
    except Exception as error:  # the others wait: they have to be told before this one ends
        failure = error
        sent[0] = _LEFT if isinstance(error, Preempted) else _FAILED
    finally:
        here.busy = False
    table = here.gather(sent)
    if failure is not None:
        raise failure
    went = table[:, 0, 0]
    failed = torch.nonzero(went == _FAILED).flatten().tolist()
    if failed:
        names = " and ".join(f"rank {rank}" for rank in failed)
        raise MloptError(f"{names} of {here.size} failed while computing losses; its own message says why")
    if bool((went == _LEFT).any()):
        raise Preempted
    found = torch.empty(count, columns, dtype=torch.float64)
    for rank in range(here.size):
        theirs = owner == rank
        found[theirs] = table[rank, 1 : 1 + int(theirs.sum())]
    return found


def _computed(
    index: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor], batch: int | None, columns: int
) -> torch.Tensor:
    """Return (len(index), columns), block by block; an empty share calls nothing."""
    blocks = torch.split(index, batch or max(1, len(index))) if len(index) else ()
    parts = [
        function(block).detach().to("cpu", torch.float64).reshape(len(block), columns) for block in blocks
    ]
    return torch.cat(parts) if parts else torch.zeros(0, columns, dtype=torch.float64)
