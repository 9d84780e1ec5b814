from __future__ import annotations

import re
from pathlib import Path

import torch

from cli.commands import pith_, refused
from pith.models import load


def test_it_streams_what_the_model_itself_would_write(model: str) -> None:
    loaded = load(model)
    inputs = loaded.tokenizer("The import statement", return_tensors="pt")
    out = loaded.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    wanted = loaded.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    found = pith_("generate", model, "The import statement", "--max-new-tokens", "8")
    assert found.exit_code == 0, found.output
    assert found.stdout.strip("\n") == wanted.strip("\n")
    assert re.fullmatch(r"dense: read \d+ tokens in .*, wrote 8 at .* tokens/s; the cache holds .* KiB\n", found.stderr)


def test_a_recipe_holds_fewer_bytes(model: str) -> None:
    prompt = "def find(self): return self " * 30
    held = []
    for recipe in ("dense", "streaming_llm(budget=16)"):
        found = pith_("generate", model, prompt, "--recipe", recipe, "--max-new-tokens", "2")
        assert found.exit_code == 0, found.output
        held.append(float(found.stderr.split()[-2]))
    assert held[1] < held[0] / 2


def test_sampling_repeats_with_its_seed(model: str) -> None:
    words = ["generate", model, "import", "--temperature", "1.5", "--max-new-tokens", "16", "--seed"]
    one, same, other = (pith_(*words, seed).stdout for seed in ("1", "1", "2"))
    assert one == same
    assert one != other


def test_a_recipe_may_be_a_file(model: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[[method]]\nname = "snapkv"\nbudget = 0.25\n')
    found = pith_("generate", model, "import os", "--recipe", str(path), "--max-new-tokens", "1")
    assert found.stderr.startswith("snapkv(budget=0.25): read")


def test_a_prompt_that_is_too_long_is_one_line(model: str) -> None:
    assert "the prompt takes" in refused("generate", model, "word " * 400)
    assert "allowed are at most 256" in refused("generate", model, "word " * 200, "--max-new-tokens", "200")


def test_a_method_that_places_keys_in_the_cache_writes_past_the_positions(model: str) -> None:
    recipe = ["--recipe", "streaming_llm(budget=16)"]
    found = pith_("generate", model, "import os", *recipe, "--max-new-tokens", "300")
    assert found.exit_code == 0, found.output
    assert "wrote 300" in found.stderr


def test_mistakes_are_one_line(model: str) -> None:
    assert "no method is called" in refused("generate", model, "import", "--recipe", "nothing_like_it")
    assert "there is no folder" in refused("generate", "./none", "import")


def test_the_random_state_is_not_read_by_greedy_decoding(model: str) -> None:
    torch.manual_seed(3)
    one = pith_("generate", model, "import", "--max-new-tokens", "4").stdout
    torch.manual_seed(4)
    assert pith_("generate", model, "import", "--max-new-tokens", "4").stdout == one


def test_a_recipe_that_changes_weights_says_what_they_take(model: str) -> None:
    found = pith_("generate", model, "import os", "--recipe", "rtn(bits=8) + snapkv", "--max-new-tokens", "2")
    assert found.exit_code == 0, found.output
    assert re.search(r"the cache holds \S+ KiB, the weights \S+ MiB \(\S+ MiB dense\)\n$", found.stderr)
    why = refused(
        "generate",
        model,
        "import os",
        "--recipe",
        "gptq",
        "--calibration",
        "/no/such/file",
        "--calibration-length",
        "64",
    )
    assert "calibration text '/no/such/file' cannot be read" in why
