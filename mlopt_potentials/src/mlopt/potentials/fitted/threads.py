"""Threads for compiled functions, which release Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlopt.core.lazy import torch


def in_threads(work: Callable[[int, int], Any], ranges: list[tuple[int, int]]) -> None:
    """Call ``work(first, last)`` on every range, in as many threads as torch uses."""
    threads = min(torch.get_num_threads(), len(ranges), os.cpu_count() or 1)
    if threads <= 1:
        for first, last in ranges:
            work(first, last)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda one: work(*one), ranges))


def chunks(n: int, size: int) -> list[tuple[int, int]]:
    """Return ranges of at most ``size`` that cover 0 to n."""
    return [(first, min(first + size, n)) for first in range(0, n, size)]
