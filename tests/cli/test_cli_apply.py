from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import pith
from cli.commands import pith_, refused
from pith.models import compressed_tensors, load
from pith.weights.folder import is_pith

QUICK = ["--calibration-sequences", "6", "--calibration-length", "32"]


def logits(model: object) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(3, 60)[None]).logits  # type: ignore[operator]
    return found


@pytest.mark.skipif(compressed_tensors.missing() is not None, reason="compressed-tensors is not installed")
def test_plain_transformers_loads_what_it_writes(model: str, tmp_path: Path) -> None:
    out = tmp_path / "smaller"
    found = pith_("apply", "rtn(bits=4, group_size=32)", model, str(out))
    assert found.exit_code == 0, found.output
    assert "as compressed-tensors; read back: the same logits" in found.stdout
    assert "linear layers left as they are: lm_head" in found.stdout
    assert f'transformers.AutoModelForCausalLM.from_pretrained("{out}")' in found.stdout
    wanted = pith.compress(load(model).model, "rtn(bits=4, group_size=32)")
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(out)), logits(wanted), rtol=1e-4, atol=1e-4)
    assert len(AutoTokenizer.from_pretrained(out)) == 4096
    assert [one.name for one in tmp_path.iterdir()] == ["smaller"]


def test_pith_loads_what_it_writes_bit_for_bit(model: str, tmp_path: Path) -> None:
    found = pith_("apply", "rtn(bits=3, group_size=32)", model, str(tmp_path / "out"), "--format", "pith", "--json")
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    assert is_pith(tmp_path / "out")
    wanted = pith.compress(load(model).model, "rtn(bits=3, group_size=32)")
    assert torch.equal(logits(load(str(tmp_path / "out")).model), logits(wanted))
    assert said["format"] == "pith"
    assert said["bytes"] < said["dense_bytes"]
    assert abs(said["disk_bytes"] / said["bytes"] - 1) < 0.05
    assert said["peak_bytes"] > said["dense_bytes"]
    assert said["left"] == ["lm_head"]
    assert said["rest"] is None
    assert "rtn: 7/7" in found.stderr


def test_what_acts_later_stands_beside_the_model(model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = pith_("apply", "snapkv(budget=0.25) + rtn(bits=8)", model, str(out), "--format", "pith")
    assert f"snapkv(budget=0.25) acts later: pith generate {out} --recipe {out}/recipe.toml" in found.stdout
    assert str(pith.Recipe.load(out / "recipe.toml")) == "snapkv(budget=0.25)"
    assert "with rtn(bits=8), as pith" in found.stdout
    again = pith_("generate", str(out), "import os", "--recipe", str(out / "recipe.toml"), "--max-new-tokens", "2")
    assert again.exit_code == 0, again.output


def test_a_work_that_was_stopped_goes_on(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pith.cli.making import Watch

    told: list[tuple[str, int, int]] = []
    progress: Callable[..., None] = Watch.progress

    def stop(self: Watch, what: str, done: int, total: int) -> None:
        told.append((what, done, total))
        progress(self, what, done, total)
        if done == total:
            raise KeyboardInterrupt

    words = ["apply", "gptq(bits=4, group_size=32)", model, str(tmp_path / "out"), "--format", "pith", *QUICK]
    with monkeypatch.context() as patched:
        patched.setattr(Watch, "progress", stop)
        found = pith_(*words)
    assert found.exit_code == 130
    assert "the same command goes on from there" in found.stderr
    assert not (tmp_path / "out").exists()
    kept = list((tmp_path / "out.unfinished").rglob("*.safetensors"))
    assert kept
    times = {file: file.stat().st_mtime_ns for file in kept}
    with monkeypatch.context() as patched:  # it is stopped once more: what was kept is not made anew
        patched.setattr(Watch, "progress", stop)
        pith_(*words)
    assert {file: file.stat().st_mtime_ns for file in kept} == times
    assert pith_(*words).exit_code == 0
    assert (
        pith_(*(word if word != str(tmp_path / "out") else str(tmp_path / "straight") for word in words)).exit_code == 0
    )
    assert not (tmp_path / "out.unfinished").exists()
    one, other = (load(str(tmp_path / name)).model for name in ("out", "straight"))
    assert torch.equal(logits(one), logits(other))


def test_mistakes_are_one_line(model: str, tmp_path: Path) -> None:
    full, out = tmp_path / "full", str(tmp_path / "out")
    full.mkdir()
    (full / "mine").write_text("mine")
    assert "is not empty; allowed is a new or an empty one" in refused("apply", "rtn()", model, str(full))
    assert "is a file" in refused("apply", "rtn()", model, str(full / "mine"))
    assert "changes no weights" in refused("apply", "snapkv(budget=0.5)", model, out)
    assert "no method is called" in refused("apply", "nothing_like_it", model, out)
    assert "there is no folder" in refused("apply", "rtn()", "./none", out)
    assert "allowed is one of auto, plain" in refused("apply", "rtn()", model, out, "--format", "onnx")
    assert "cannot hold what rtn packs" in refused("apply", "rtn(group_size=32)", model, out, "--format", "plain")
    assert (full / "mine").read_text() == "mine"
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_its_own_is_left_alone(model: str, tmp_path: Path) -> None:
    other = tmp_path / "out.unfinished"
    other.mkdir()
    (other / "mine").write_text("mine")
    assert "is not Pith's own" in refused("apply", "rtn()", model, str(tmp_path / "out"))
    assert (other / "mine").read_text() == "mine"


def test_a_calibration_that_cannot_be_is_one_line(model: str, tmp_path: Path) -> None:
    words = ["apply", "gptq(bits=4)", model, str(tmp_path / "out")]
    assert "cannot be read" in refused(*words, *QUICK, "--calibration", str(tmp_path / "none.txt"))
    assert "allowed are at most 256" in refused(*words, "--calibration-length", "512")


def test_a_gguf_file_is_a_model_for_every_command(model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = pith_("apply", "rtn(bits=8)", model, str(out), "--format", "gguf", "--json")
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    assert said["format"] == "gguf"
    assert said["read_with"].endswith(f'from_pretrained("{out}", gguf_file="model.gguf")')
    assert said["disk_bytes"] == (out / "model.gguf").stat().st_size
    wanted, read = (logits(one) for one in (pith.compress(load(model).model, "rtn(bits=8)"), load(str(out)).model))
    assert (read - wanted).norm() <= 0.01 * wanted.norm()
    assert pith_("generate", str(out), "def", "--max-new-tokens", "2").exit_code == 0
    assert "have 3; allowed is the format pith" in refused(
        "apply", "rtn(bits=3)", model, str(tmp_path / "no"), "--format", "gguf"
    )
