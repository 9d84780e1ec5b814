"""Which of Transformers' causal models Pith serves: right logits, or one line that says why not.

Every class that Transformers has for causal language models is built with a tiny configuration and random weights.
Under the recipe `dense`, and under a method that keeps everything, the logits of a prompt, of a padded batch and of
decoded tokens must be those of plain Transformers; a method that places keys must run. Otherwise Pith has to refuse the
model in one line. The script ends with an error if a model gives other logits or another exception.

    python benchmarks/served_models.py --json benchmarks/results/served_models.json --page docs/served.md
    python benchmarks/served_models.py --types llama,diffllama
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import json
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

import pith
from pith.attention.support import plan_layers
from pith.core import PithError

SIZES: dict[str, Any] = json.loads(Path(__file__).with_name("served_models_sizes.json").read_text())
MOST_PARAMETERS = 12_000_000
SAME = 1e-3
"""The distance of logits, as a share of their norm, up to which they count as the same."""

COMMAND = "python benchmarks/served_models.py --json benchmarks/results/served_models.json --page docs/served.md"

PAGE = """# Served models

What became of each causal language model of Transformers {version} under Pith, built with a tiny configuration and
random weights. *Right* means that the logits of a prompt, of decoded tokens and of a padded batch equal plain
Transformers' to {same:g} of their norm, with nothing applied and under a method that keeps everything. *Places keys* is
what became of `streaming_llm`, which reads keys at other positions, as `token_select`, `inf_llm` and
`expected_attention` do. Everything else is refused in the line that is shown.

{right} are right, {refused} are refused, {unbuilt} could not be built or run at this size. Made by

    {command}

| model type | outcome | layers served | places keys |
| --- | --- | --- | --- |
{rows}
"""


def built(kind: str) -> Any:
    """A tiny model of a type, always the same."""
    cls = CONFIG_MAPPING[kind]
    own = SIZES["of_a_type"].get(kind, {})
    known = {field.name for field in dataclasses.fields(cls)} | set(cls.attribute_map)
    gone = SIZES["left_out"].get(kind, ())
    settings = {k: v for k, v in {**SIZES["sizes"], **own}.items() if (k in known or k in own) and k not in gone}
    if "layer_types" not in known and "sliding_window" in known and "sliding_window" not in own:
        settings["sliding_window"] = None  # else every layer has a window, and Pith serves none
    config = cls(**settings)
    types = set(getattr(config, "layer_types", None) or ())
    if "sliding_window" in known and types and types <= {"full_attention", "sliding_attention"}:
        settings.setdefault("layer_types", ["sliding_attention", "full_attention"] * 2)
        if "use_sliding_window" in known:
            settings.setdefault("use_sliding_window", True)
        with contextlib.suppress(Exception):  # some types set their layers' kinds by themselves
            config = cls(**settings)
    with torch.device("meta"):
        size = AutoModelForCausalLM.from_config(config).num_parameters()
    if size > MOST_PARAMETERS:
        raise ValueError(f"{size / 1e6:.0f} million parameters")
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval().float()


@torch.no_grad()
def read(model: Any, recipe: str | None, prompt: Tensor, mask: Tensor | None, following: Tensor) -> list[Tensor]:
    """The logits of a prompt and of each decoded token."""
    takes = "position_ids" in inspect.signature(model.forward).parameters

    def forward(tokens: Tensor, mask: Tensor | None, **kwargs: Any) -> Any:
        if mask is not None:
            kwargs["attention_mask"] = mask
            if takes:
                kwargs["position_ids"] = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        return model(tokens, use_cache=True, **kwargs)

    with contextlib.nullcontext() if recipe is None else pith.applied(model, recipe):
        out = forward(prompt, mask)
        logits = [out.logits]
        for token in following.split(1, dim=1):
            mask = None if mask is None else torch.cat([mask, torch.ones_like(token)], dim=1)
            out = forward(token, mask, past_key_values=out.past_key_values)
            logits.append(out.logits)
    return logits


def apart(got: list[Tensor], want: list[Tensor], mask: Tensor | None) -> float:
    """The largest distance of logits as a share of their norm; NaN is the largest."""
    if mask is not None:
        got, want = ([x[0][mask.bool()], *x[1:]] for x in (got, want))
    shares = [float((x - y).norm() / y.norm()) for x, y in zip(got, want, strict=True)]
    return max((share if share == share else float("inf") for share in shares), default=0.0)


def tried(model: Any) -> dict[str, str]:
    """What became of each recipe: "right", "runs", "refused: ...", or what is wrong."""
    torch.manual_seed(1)
    prompt, following = torch.randint(3, 97, (2, 21)), torch.randint(3, 97, (2, 3))
    mask = torch.ones_like(prompt)
    mask[1, :6] = 0
    alone, batch = (prompt[:1], None, following[:1]), (prompt, mask, following)
    found, plain = {}, {}
    for name, recipe, rows in (
        ("dense", "dense", alone),
        ("padded", "dense", batch),
        ("everything", "snapkv(budget=1.0)", alone),
        ("places", "streaming_llm(budget=12)", alone),
    ):
        if id(rows) not in plain:
            try:
                plain[id(rows)] = read(model, None, *rows)
            except Exception as error:
                plain[id(rows)] = f"fails by itself: {one_line(error)}"
        want = plain[id(rows)]
        try:
            got = read(model, recipe, *rows)
        except PithError as error:
            found[name] = f"refused: {error}"
            continue
        except Exception as error:
            found[name] = want if isinstance(want, str) else f"wrong: {one_line(error)}"
            continue
        if isinstance(want, str):
            found[name] = want
        elif name == "places":
            found[name] = "runs" if all(bool(x.isfinite().all()) for x in got) else "wrong: not finite"
        else:
            share = apart(got, want, rows[1])
            found[name] = "right" if share < SAME else f"wrong: {share:.2g} of the norm apart"
    return found


def outcome(kind: str) -> dict[str, str]:
    """All that is found of one type."""
    try:
        model = built(kind)
    except Exception as error:
        return {"outcome": f"not built: {one_line(error)}"}
    found = tried(model)
    wrong = [f"{name} {what}" for name, what in found.items() if what.startswith("wrong")]
    refused = [what for name, what in found.items() if what.startswith("refused") and name != "places"]
    alone = [what for what in found.values() if what.startswith("fails by itself")]
    first = wrong or refused or (alone if found["dense"] != "right" else ["right"])
    try:
        plain, left_alone = plan_layers(model)
        layers = f"{len(plain.layers) - len(left_alone)} of {len(plain.layers)}"
    except PithError:
        layers = ""
    return {"class": type(model).__name__, "outcome": first[0], "layers": layers, **found}


def is_wrong(of: dict[str, str]) -> bool:
    """Whether a model gave other logits or another exception than Pith's."""
    return any(what.startswith("wrong") for what in of.values())


def one_line(error: Exception) -> str:
    """An exception in one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:100]}"


def page(found: dict[str, dict[str, str]], version: str) -> str:
    """The table as a page of the documentation."""
    rows, outcomes = [], [of["outcome"] for of in found.values()]
    for kind, of in found.items():
        served = of["outcome"] == "right"
        cells = [f"`{kind}`", of["outcome"], of.get("layers", "") if served else "", of["places"] if served else ""]
        rows.append("| " + " | ".join(cell.replace("|", "/").replace("<", "&lt;") for cell in cells) + " |")
    right, refused = (sum(x.startswith(word) for x in outcomes) for word in ("right", "refused"))
    return PAGE.format(
        version=version,
        command=COMMAND,
        same=SAME,
        right=right,
        refused=refused,
        unbuilt=len(outcomes) - right - refused,
        rows="\n".join(rows),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default="", help="model types, separated by commas; all if not given")
    parser.add_argument("--json", type=Path, help="where the outcomes are written")
    parser.add_argument("--page", type=Path, help="where the table is written")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    found = {}
    for kind in filter(None, options.types.split(",")) if options.types else CLASSES:
        found[kind] = outcome(kind)
        print(kind, "|", found[kind]["outcome"], flush=True)
    if options.json:
        data = {
            "command": COMMAND,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "types": found,
        }
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    if options.page:
        options.page.write_text(page(found, transformers.__version__))
    wrong = [kind for kind, of in found.items() if is_wrong(of)]
    if wrong:
        raise SystemExit(f"wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
