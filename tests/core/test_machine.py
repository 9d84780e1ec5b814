"""The machine's name and free memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from pith.core import machine


def test_the_processor_has_a_name() -> None:
    assert machine.processor() == machine.processor().strip() != ""


@pytest.mark.parametrize(("limit", "free"), [("max", 3072), ("2000", 1500), (None, 3072)])
def test_free_memory_is_the_systems_or_what_a_container_leaves(
    limit: str | None, free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"_MEMORY": "MemTotal: 9 kB\nMemAvailable: 3 kB\n", "_LIMIT": limit, "_HELD": "500"}.items():
        if text is not None:
            (tmp_path / name).write_text(text)
        monkeypatch.setattr(machine, name, tmp_path / name)
    assert machine.free_memory() == free


def test_free_memory_is_not_known_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_MEMORY", tmp_path / "none")
    assert machine.free_memory() is None
