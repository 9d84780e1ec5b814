"""What the machine reaches, and how it is counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pith.measure import machine
from pith.measure.machine import copy_bandwidth, matrix_throughput


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    caches = (machine._copy_bandwidth, machine._matrix_throughput)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def test_a_copy_counts_bytes_read_and_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "COPIED", 1 << 12)
    ticks = iter(range(10**6))
    monkeypatch.setattr(machine, "now", lambda device: next(ticks) * 0.5)
    assert copy_bandwidth("cpu") == 2 * (1 << 12) / 0.5
    monkeypatch.setattr(machine, "now", lambda device: pytest.fail("it is known already"))
    assert copy_bandwidth(torch.device("cpu")) == 2 * (1 << 12) / 0.5


def test_matrices_grow_until_they_take_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []
    clock = [0.0]
    matmul = torch.Tensor.__matmul__

    def multiply(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        sides.append(left.shape[0])
        clock[0] += 1e-9 * left.shape[0] ** 3
        return matmul(left, right)

    monkeypatch.setattr(torch.Tensor, "__matmul__", multiply)
    monkeypatch.setattr(machine, "now", lambda device: clock[0])
    assert matrix_throughput(torch.float32, "cpu") == pytest.approx(2e9)
    assert sides == [256] * 9, "16.8 ms are enough"


def test_it_is_really_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "COPIED", 1 << 22)
    assert 1e7 < copy_bandwidth("cpu") < 1e13
    assert 1e7 < matrix_throughput(torch.bfloat16, "cpu") < 1e15
