"""Values of options that no tensor, file or terminal can hold are refused in one line."""

from __future__ import annotations

import pytest

from cli.commands import refused


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["generate", "builtin", "a \udcff b"], "--prompt 'a \\udcff b' holds bytes that are not UTF-8"),
        (["generate", "builtin", "a", "--seed", "9" * 400], "--seed 999"),
        (
            ["generate", "builtin", "a", "--seed", "9223372036854775808"],
            "is too large; allowed are integers below 2**63",
        ),
        (["generate", "builtin", "a", "--temperature", "inf"], "--temperature inf is not allowed; allowed are finite"),
        (["compare", "builtin", "--at-latency", "inf"], "--at-latency inf is not allowed; allowed are finite numbers"),
        (["compare", "builtin", "--recipe", "a\udcff.toml"], "holds bytes that are not UTF-8"),
    ],
    ids=["prompt", "digits", "seed", "temperature", "latency", "path"],
)
def test_values_that_nothing_holds_are_one_line(command: list[str], says: str) -> None:
    line = refused(*command)
    assert says in line
    assert len(line) < 310
