"""TokenSelect reads the tokens that the authors' own code reads, chunk by chunk and token by token."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from jaxtyping import Float

from contracts.layers import OneLayer
from pith.attention import Part, Step
from pith.cache.token_select import TokenSelect

FIXTURE = json.loads((Path(__file__).parent / "token_select.json").read_text())
RUNS = [(case, mapping) for case in FIXTURE["cases"] for mapping in case["mappings"]]
every = pytest.mark.parametrize(("case", "mapping"), RUNS, ids=lambda x: x if isinstance(x, str) else str(x["sinks"]))


@dataclass(frozen=True, kw_only=True)
class Watched(TokenSelect):
    """The method, which writes down what it reads and what the votes were."""

    seen: list[tuple[list[int] | None, torch.Tensor]] = field(default_factory=list, compare=False)

    def __post_init__(self) -> None:
        """The list is no parameter."""

    def select(self, step: Step) -> list[Part] | None:
        parts = super().select(step)
        votes = self.votes(step, self.mean_query(step))[0, 0]
        between = votes[self.n_init : max(step.stored - self.n_local, self.n_init)]
        self.seen.append((None if parts is None else parts[0].index[0, 0].tolist(), between.exp()))
        return parts


def run(
    case: dict[str, Any], heads: Literal["group", "modulo"]
) -> tuple[Watched, Float[torch.Tensor, "head token dim"]]:
    """What was read part by part, the parts being the authors' chunks, and the outputs."""
    method = Watched(
        n_init=case["sinks"],
        n_local=case["local"],
        k=case["k"],
        chunk=case["chunk"],
        theta=0.0,
        kernel_size=case["pool"] or 1,
        heads=heads,
    )
    query, keys, values = (torch.tensor(case[name])[None] for name in ("query", "keys", "values"))
    lengths = [end - start for start, end in (part["tokens"] for part in case["mappings"][heads]["parts"])]
    out = OneLayer(method, query.shape[1], keys.shape[1], base=case["rope_base"]).read(query, keys, values, lengths)
    return method, out[0]


@every
def test_what_is_read_part_by_part(case: dict[str, Any], mapping: Literal["group", "modulo"]) -> None:
    method, _ = run(case, mapping)
    for (read, votes), part in zip(method.seen, case["mappings"][mapping]["parts"], strict=True):
        assert read == part["read"]
        if read is not None:
            assert torch.allclose(votes, torch.tensor(part["votes"]), atol=1e-5)


@every
def test_outputs(case: dict[str, Any], mapping: Literal["group", "modulo"]) -> None:
    _, out = run(case, mapping)
    assert torch.allclose(out, torch.tensor(case["mappings"][mapping]["output"]), atol=1e-5)
