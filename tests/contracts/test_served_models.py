"""The law of served models: every causal class of Transformers gives its own logits under Pith, or is refused."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

ROOT = Path(__file__).parent.parent.parent
FOUND = json.loads((ROOT / "benchmarks" / "results" / "served_models.json").read_text())


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("served_models", ROOT / "benchmarks" / "served_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SERVED = script()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(level)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", CLASSES)
def test_a_model_is_right_or_refused(kind: str) -> None:
    found = SERVED.outcome(kind)
    assert not SERVED.is_wrong(found), found
    for what in found.values():
        assert "\n" not in what
        assert len(what) < 300
    if FOUND["transformers"] == transformers.__version__ and kind in FOUND["types"]:
        words = [of["outcome"].split(":")[0] for of in (found, FOUND["types"][kind])]
        assert words[0] == words[1], "run benchmarks/served_models.py again"


def test_the_page_is_what_was_found() -> None:
    page = (ROOT / "docs" / "served.md").read_text()
    assert page == SERVED.page(FOUND["types"], FOUND["transformers"])
    served = [of for of in FOUND["types"].values() if of["outcome"] == "right"]
    assert len(served) > 120
    assert not any(SERVED.is_wrong(of) for of in FOUND["types"].values())


def test_what_differs_is_seen() -> None:
    import torch

    x = torch.randn(2, 3, 5)
    assert SERVED.apart([x], [x], None) == 0
    assert SERVED.apart([x * 1.01], [x], None) == pytest.approx(0.01, rel=1e-3)
    assert SERVED.apart([x * float("nan")], [x], None) == float("inf")
    assert SERVED.is_wrong({"outcome": "right", "places": "wrong: not finite"})
