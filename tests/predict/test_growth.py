"""Costs at lengths that were not measured."""

from __future__ import annotations

import pytest

from pith.predict.growth import Growth


def test_what_was_measured_counts() -> None:
    assert Growth({10: 3.0, 20: 9.0, 40: 5.0}, (0, 1)).at(20) == 9.0


def test_a_line_and_a_parabola_are_found() -> None:
    line = Growth({n: 2 + 0.5 * n for n in (10, 20, 40)}, (0, 1))
    assert line.coefficients == pytest.approx([2, 0.5])
    assert line.at(1000) == pytest.approx(502)
    parabola = Growth({n: 1 + 3 * n + 0.01 * n * n for n in (100, 400, 900)}, (1, 2, 0))
    assert parabola.coefficients == pytest.approx([3, 0.01, 1])
    assert parabola.at(200) == pytest.approx(1 + 600 + 400)


def test_no_coefficient_is_negative() -> None:
    falling = Growth({100: 5.0, 200: 4.0}, (0, 1))
    # the constant c with the least (c/5 - 1)^2 + (c/4 - 1)^2
    assert falling.coefficients == pytest.approx([(1 / 5 + 1 / 4) / (1 / 25 + 1 / 16), 0])


def test_of_one_length_the_first_power_alone_is_taken() -> None:
    assert Growth({100: 5.0}, (1, 2, 0)).at(300) == pytest.approx(15)
    assert Growth({100: 5.0}, (0, 1)).at(300) == pytest.approx(5)


def test_one_disturbed_length_does_not_carry_far() -> None:
    quiet = {n: 2 + 0.5 * n for n in (128, 256, 512, 1024)}
    noisy = Growth({**quiet, 1024: quiet[1024] * 1.3}, (0, 1))
    assert noisy.at(8192) == pytest.approx(2 + 0.5 * 8192, rel=0.2)
