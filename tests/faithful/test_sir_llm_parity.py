"""SirLLM keeps what the authors' own code keeps, turn by turn."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from contracts.tiny import tiny, tokens
from pith.cache.sir_llm import SirLLM, Surprisals, surprisals
from pith.core import Recipe

FIXTURE = json.loads((Path(__file__).parent / "sir_llm.json").read_text())


class Told(Surprisals):
    """The surprisals are those of the fixture; what is held before each turn is noted."""

    def __init__(self, method: SirLLM, turns: list[dict[str, Any]]) -> None:
        super().__init__(method)
        self.turns, self.held, self.carried = iter(turns), [], []

    def before(self, cache: Any, tokens: torch.Tensor) -> None:
        super().before(cache, tokens)
        store = cache.layers[1].store
        self.held.append(store.positions[0, 0].tolist() if store.length else [])
        first = cache.layers[0].store
        self.carried.append(first.carried[0, 0].tolist() if store.length else [])

    def _surprisal(self, *_: torch.Tensor) -> torch.Tensor:
        return torch.tensor([next(self.turns)["entropy"]])


@torch.no_grad()
@pytest.mark.parametrize(
    "case",
    FIXTURE["cases"],
    ids=lambda c: f"{c['start_size']}+{c['recent_size']}+{c['token_entropy_size']}-{c['decay']}",
)
def test_kept_positions_and_decayed_surprisals(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Told] = []

    def companion(self: SirLLM) -> Told:
        made.append(Told(self, case["turns"]))
        return made[-1]

    monkeypatch.setattr(SirLLM, "companion", companion)
    start, recent, size = (case[key] for key in ("start_size", "recent_size", "token_entropy_size"))
    method = SirLLM(
        budget=start + recent + size, start_size=start, recent_size=recent, decay_ratio=float(case["decay"])
    )
    model, counts = tiny("llama_gqa"), [turn["coming"] for turn in case["turns"]]
    cache = Recipe([method]).cache(model)
    for turn in tokens(1, sum(counts)).split(counts, dim=1):
        model(turn, past_key_values=cache)
        assert cache.layers[0].store.length <= start + recent + size
    model.set_attn_implementation("sdpa")
    assert made[0].held == [turn["kept"] for turn in case["turns"]]
    for mine, turn in zip(made[0].carried, case["turns"], strict=True):
        assert mine == pytest.approx(turn["carried"], abs=1e-5)


@pytest.mark.parametrize("case", FIXTURE["selfinfo"], ids=lambda c: str(len(c["ids"])))
def test_surprisal_is_the_papers_and_the_authors_is_of_the_token_before(case: dict[str, Any]) -> None:
    logits, ids = torch.tensor(case["logits"])[None], torch.tensor(case["ids"])[None]
    config = SimpleNamespace(vocab_size=logits.shape[-1], model_type="llama")
    config.get_text_config = lambda decoder: config
    model = SimpleNamespace(get_output_embeddings=lambda: torch.nn.Identity(), config=config)
    mine = surprisals(model, logits[:, :-1], ids[:, 1:])[0].tolist()
    assert mine == pytest.approx(case["next_token"], abs=1e-6)
    # the deviation that is stated: they look up the token that stands there already
    same = surprisals(model, logits, ids)[0].tolist()
    assert [max(same), *same[:-1]] == pytest.approx(case["authors"], abs=1e-6)
