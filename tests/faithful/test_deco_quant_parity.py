"""DecoQuant against numbers that the authors' code gave: singular values, scales, and what is restored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange

from pith.attention.storage import Context
from pith.cache.deco_quant import DecoQuant

CASES = json.loads((Path(__file__).parent / "deco_quant.json").read_text())["cases"]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['heads']}-{c['tokens']}-{c['factors']}")


def block(case: dict[str, Any]) -> torch.Tensor:
    return rearrange(torch.tensor(case["matrix"]), "token (h d) -> 1 h token d", h=case["heads"])


@every_case
def test_the_factors_are_those_of_the_decomposition(case: dict[str, Any]) -> None:
    """The rows of T_S are as long as the roots of the singular values, and T_L T_S is what was given."""
    method, x = DecoQuant(inner=case["factors"][1]), block(case)
    small, inverse = method.factor(x)
    sizes = torch.tensor(case["singular_values"])
    torch.testing.assert_close(small[0].square().sum(dim=-1)[: len(sizes)], sizes, rtol=1e-4, atol=0)
    large = rearrange(x, "1 h t (j i) -> (t h j) i", i=method.inner) @ inverse[0]
    torch.testing.assert_close((large.T @ large).diagonal()[: len(sizes)], sizes, rtol=1e-4, atol=0)
    product = rearrange(large @ small[0], "(t h j) i -> t (h j i)", t=x.shape[2], h=x.shape[1])
    assert (product - torch.tensor(case["product"])).abs().max() < 1e-4
    assert (product - torch.tensor(case["matrix"])).abs().max() < 1e-4


@pytest.mark.parametrize("bits", [2, 4, 8])
@every_case
def test_scales_and_what_is_restored(case: dict[str, Any], bits: int) -> None:
    x = block(case)
    if x.shape[3] % (8 // bits):
        pytest.skip("codes of a token do not fill bytes")
    method = DecoQuant(bits=bits, inner=case["factors"][1])
    packed = method.encode(x, "keys", Context())
    theirs = next(q for q in case["quantised"] if q["bits"] == bits)
    torch.testing.assert_close(packed.tokens["scale"][0, 0, :, 0], torch.tensor(theirs["scale"]), rtol=1e-4, atol=0)
    restored = rearrange(method.decode(packed), "1 h token d -> token (h d)")
    assert (restored - torch.tensor(theirs["restored"])).abs().max() < 1e-4 * torch.tensor(case["matrix"]).abs().max()
