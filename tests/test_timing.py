"""Measurements: what is timed in which order, and what becomes of the seconds."""

import statistics
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.lab import timing
from helpers.lab.timing import OURS, Ratio, Result, Timing, evenly, measure, ratio


def test_paths_take_turns_and_the_warm_up_does_not_count(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def path(name, seconds):
        def call():
            calls.append(name)
            now[0] += seconds * (10 if len(calls) <= 4 else 1)  # the two calls of each that warm up are slow

        return call

    found = measure({"stock": path("stock", 3.0), OURS: path(OURS, 1.0)}, repeats=3, warm_up=2)
    assert calls == ["stock", OURS] * 5
    assert found == {"stock": Timing((3.0, 3.0, 3.0)), OURS: Timing((1.0, 1.0, 1.0))}


def test_nothing_to_repeat_is_an_error():
    with pytest.raises(ValueError, match="at least one repeat, got 0"):
        measure({OURS: lambda: None}, repeats=0, warm_up=1)


def test_a_timing_has_median_quartiles_and_one_figure_for_so_many_runs():
    six = Timing((5.0, 1.0, 4.0, 2.0, 3.0, 9.0))
    assert six.median == 3.5
    assert Timing((1.0, 2.0, 3.0, 4.0, 5.0)).spread == (2.0, 4.0)
    assert six.per(3, sum) == Timing((10.0, 14.0))
    assert six.per(3, statistics.median) == Timing((4.0, 3.0))
    assert str(Timing((1.0, 2.0, 3.0, 4.0, 5.0))) == "3 (2 to 4)"


def test_a_ratio_is_stock_over_ours_repeat_by_repeat():
    found = ratio(Timing((6.0, 10.0, 3.0)), Timing((2.0, 2.0, 3.0)))
    assert found == Ratio((3.0, 5.0, 1.0))
    assert found.median == 3.0
    assert str(found) == "3.00 (1.00 to 5.00)"


@pytest.mark.parametrize(("stock", "ours"), [((1.0, 2.0), (1.0,)), ((), ())])
def test_times_that_do_not_pair_have_no_ratio(stock, ours):
    with pytest.raises(ValueError, match=f"at least one; got {len(stock)} and {len(ours)}"):
        ratio(Timing(stock), Timing(ours))


def test_ours_is_held_against_the_fastest_of_the_stock_paths():
    result = Result("x", {OURS: Timing((1.0, 1.0)), "slow": Timing((8.0, 8.0)), "fast": Timing((2.0, 4.0))}, {"rows": 3})
    assert result.stock == "fast"
    assert result.ratio == Ratio((2.0, 4.0))
    assert result.to_dict()["paths"]["slow"] == {"seconds": (8.0, 8.0), "median": 8.0, "quartiles": (8.0, 8.0)}
    assert (result.to_dict()["stock"], result.to_dict()["ratios"], result.to_dict()["rows"]) == ("fast", (2.0, 4.0), 3)


@pytest.mark.parametrize(("n", "expected"), [(1, [0]), (2, [0, 3]), (3, [0, 2, 4]), (6, [0, 1, 2, 3, 4, 5]), (9, [0, 1, 2, 3, 4, 5])])
def test_rows_are_taken_at_even_distances(n, expected):
    assert evenly(range(6), n) == expected


@given(st.integers(1, 60), st.integers(1, 60))
def test_rows_at_even_distances_keep_their_order_and_none_comes_twice(size, n):
    rows = evenly(range(size), n)
    assert len(rows) == min(size, n)
    assert all(a < b for a, b in pairwise(rows))
