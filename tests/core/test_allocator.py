"""The allocator's setting, in a process of its own, since it holds for the whole process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from pith.core import allocator

COUNT = """
import resource
from pith.core.allocator import keep_freed_memory
kept = {kept} and keep_freed_memory()
import torch
for _ in range(20):
    torch.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**23)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kept: bool) -> tuple[str, int]:
    done = subprocess.run([sys.executable, "-c", COUNT.format(kept=kept)], capture_output=True, text=True, check=True)
    word, count = done.stdout.split()
    return word, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc takes the setting")
def test_memory_that_was_freed_is_used_again() -> None:
    pages = 20 * 2**23 * 4 // 4096
    word, count = faults(kept=True)
    assert word == "True"
    assert count < pages / 20


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("the library was opened"))
    assert not allocator.keep_freed_memory()
