"""The kinds of negative, and training sets with a stated share of them."""

import random
import warnings
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from helpers.examples import Example
from helpers.negatives import KINDS, mix, no_tool_share, reason_for, share_table

KIND_NAMES = ["chitchat", "information_request", "underspecified", "out_of_scope", "ambiguous", "negated", "steering"]


def call(number, kind="direct"):
    target = {"tool": "track_order", "arguments": {"order_id": f"A-{number}"}}
    return Example.model_validate({"id": f"c-{number}", "request": f"where is A-{number}", "target": target, "kind": kind})


def negative(number, kind="chitchat"):
    target = {"tool": "no_tool", "reason": "small talk"}
    return Example.model_validate({"id": f"n-{kind}-{number}", "request": f"hello {number}", "target": target, "kind": kind})


CALLS = [call(number) for number in range(60)]
NEGATIVES = [negative(number, kind) for kind in KIND_NAMES for number in range(10)]


def quiet_mix(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mix(*arguments, **options)


def ids(rows):
    return [row.id for row in rows]


# --- kinds and their reasons ------------------------------------------------------------------------------------------


def test_the_kinds_are_the_seven_of_the_data_set_in_order():
    assert list(KINDS) == KIND_NAMES


@pytest.mark.parametrize("name", KIND_NAMES)
def test_every_kind_says_what_it_is_why_it_is_hard_and_what_to_answer(name):
    kind = KINDS[name]
    assert kind.name == name
    texts = [kind.definition, kind.why_hard, kind.reason]
    assert all(text == text.strip() and len(text) >= 8 for text in texts)
    assert len(set(texts)) == 3


def test_no_two_kinds_share_a_text():
    for field in ("definition", "why_hard", "reason"):
        assert len({getattr(kind, field) for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("chitchat", "small talk"),
        ("information_request", "a question, not a request to act"),
        ("out_of_scope", "no tool does this"),
        ("ambiguous", "more than one request"),
        ("negated", "not asked for now"),
        ("steering", "instructions to the router are not requests"),
    ],
)
def test_reasons_of_most_kinds_are_fixed(kind, reason):
    assert reason_for(kind) == reason


@pytest.mark.parametrize(
    ("tool", "missing", "reason"),
    [
        ("track_order", ["order_id"], "need order_id before track_order"),
        ("request_refund", ("order_id", "reason"), "need order_id and reason before request_refund"),
    ],
)
def test_the_reason_of_an_underspecified_request_names_what_is_missing(tool, missing, reason):
    assert reason_for("underspecified", tool, missing) == reason


def test_a_kind_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(ValueError, match=r"'smalltalk' is no kind of negative; the kinds are chitchat, information_request, .*steering"):
        reason_for("smalltalk")


@pytest.mark.parametrize(
    "arguments",
    [
        ("underspecified",),
        ("underspecified", "track_order"),
        ("underspecified", "track_order", []),
        ("underspecified", "", ["order_id"]),
        ("chitchat", "track_order", ["order_id"]),
    ],
)
def test_tool_and_missing_arguments_belong_to_underspecified_requests_alone(arguments):
    with pytest.raises(ValueError, match="an underspecified negative names its tool and the missing arguments"):
        reason_for(*arguments)


# --- the share of a set -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("calls", "negatives", "share"), [(3, 1, 0.25), (4, 0, 0.0), (0, 2, 1.0), (17, 3, 0.15)])
def test_the_share_is_refusals_among_all_rows(calls, negatives, share):
    assert no_tool_share(CALLS[:calls] + NEGATIVES[:negatives]) == share


def test_no_rows_have_no_share():
    with pytest.raises(ValueError, match="at least one row"):
        no_tool_share([])


def test_the_table_counts_calls_first_then_every_kind_in_order():
    rows = [negative(1, "steering"), call(1), negative(2, "chitchat"), call(2, "messy"), negative(3, "steering")]
    table = share_table(rows)
    assert list(table.items()) == [
        ("call", 2),
        ("chitchat", 1),
        ("information_request", 0),
        ("underspecified", 0),
        ("out_of_scope", 0),
        ("ambiguous", 0),
        ("negated", 0),
        ("steering", 2),
    ]


def test_kinds_of_the_readers_own_come_last_and_no_row_is_lost():
    table = share_table([negative(1, "zeal"), negative(2, "abuse"), negative(3, "zeal"), negative(4)])
    assert list(table) == ["call", *KIND_NAMES, "abuse", "zeal"]
    assert (table["abuse"], table["zeal"], table["chitchat"]) == (1, 2, 1)
    assert sum(table.values()) == 4


# --- mixing -----------------------------------------------------------------------------------------------------------

POOLS = st.integers(0, 30), st.lists(st.sampled_from(KIND_NAMES), max_size=30), st.floats(0, 1), st.integers(1, 40), st.integers(0, 2**32)


@given(*POOLS)
def test_a_mix_has_its_size_and_share_and_only_rows_that_were_given_each_once(n_calls, kinds, share, size, seed):
    calls, negatives = CALLS[:n_calls], [negative(number, kind) for number, kind in enumerate(kinds)]
    try:
        rows = quiet_mix(calls, negatives, share, seed, size)
    except ValueError:  # refused: then, to within rounding, there really were too few
        assert size * share > len(negatives) - 1 or size * (1 - share) > len(calls) - 1
        assume(False)
    assert len(rows) == size
    assert abs(sum(not row.is_call for row in rows) - size * share) <= 0.5
    assert len(set(ids(rows))) == size
    assert all(any(row is given for given in calls + negatives) for row in rows)


@given(st.floats(0, 1), st.integers(1, 60), st.integers(0, 2**32))
def test_a_mix_is_decided_by_its_seed(share, size, seed):
    assert quiet_mix(CALLS, NEGATIVES, share, seed, size) == quiet_mix(list(CALLS), tuple(NEGATIVES), share, seed, size)


def test_another_seed_gives_other_rows_in_another_order():
    one, two = mix(CALLS, NEGATIVES, 0.15, seed=1, size=40), mix(CALLS, NEGATIVES, 0.15, seed=2, size=40)
    assert set(ids(one)) != set(ids(two))
    assert mix(CALLS, NEGATIVES, 0.15) == mix(CALLS, NEGATIVES, 0.15, seed=0)


def test_a_mix_leaves_the_global_random_numbers_and_the_given_lists_alone():
    calls, negatives, state = list(CALLS), list(NEGATIVES), random.getstate()
    mix(calls, negatives, 0.15)
    assert random.getstate() == state
    assert calls == CALLS and negatives == NEGATIVES


def test_calls_and_negatives_are_shuffled_together():
    signs = [row.is_call for row in quiet_mix(CALLS, NEGATIVES, 0.5)]
    changes = sum(left != right for left, right in pairwise(signs))
    assert changes > 10  # 30 are expected of 60 rows in random order, 1 of two blocks


@given(st.lists(st.sampled_from(KIND_NAMES), min_size=1, max_size=40), st.data(), st.integers(0, 2**32))
def test_kinds_are_spread_as_evenly_as_the_rows_given_allow(kinds, data, seed):
    negatives = [negative(number, kind) for number, kind in enumerate(kinds)]
    wanted = data.draw(st.integers(1, len(negatives)))
    taken = Counter(row.kind for row in quiet_mix([], negatives, 1.0, seed, wanted))
    given_of = Counter(kinds)
    most = max(taken.values())
    for kind, there in given_of.items():  # a kind is short by more than one only when all its rows are in
        assert taken[kind] >= most - 1 or taken[kind] == there


def test_seven_kinds_of_ten_rows_give_three_each_to_a_set_that_needs_twenty_one():
    rows = quiet_mix(CALLS, NEGATIVES, 0.35, size=60)
    assert Counter(row.kind for row in rows if not row.is_call) == dict.fromkeys(KIND_NAMES, 3)


def test_the_odd_rows_over_go_to_kinds_drawn_by_the_seed():
    favoured = {row.kind for seed in range(50) for row in quiet_mix([], NEGATIVES, 1.0, seed, size=1)}
    assert len(favoured) > 3


def test_the_size_is_the_number_of_calls_unless_stated_so_that_shares_compare():
    for share in (0.0, 0.1, 0.2, 0.5, 1.0):
        assert len(quiet_mix(CALLS, NEGATIVES, share)) == 60
    assert no_tool_share(mix(CALLS, NEGATIVES, 0.15)) == 0.15


@pytest.mark.parametrize("share", [-0.01, 1.01, 15, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="a share between 0 and 1, got"):
        mix(CALLS, NEGATIVES, share)


@pytest.mark.parametrize("size", [0, -5])
def test_a_set_without_rows_is_refused(size):
    with pytest.raises(ValueError, match=f"needs at least one row, got size={size}"):
        mix(CALLS, NEGATIVES, 0.15, size=size)
    with pytest.raises(ValueError, match="without calls, say how many rows with size="):
        mix([], NEGATIVES, 1.0)


def test_too_few_negatives_are_counted_in_the_refusal():
    with pytest.raises(
        ValueError, match=r"a share of 20% in 60 rows needs 12 negatives and there are 11; add negatives, or ask for fewer rows"
    ):
        mix(CALLS, NEGATIVES[:11], 0.2)
    assert len(mix(CALLS, NEGATIVES[:12], 0.2)) == 60


def test_too_few_calls_are_counted_in_the_refusal():
    with pytest.raises(ValueError, match=r"a share of 20% in 100 rows needs 80 calls and there are 60; add calls, or ask for fewer rows"):
        mix(CALLS, NEGATIVES, 0.2, size=100)
    assert len(mix(CALLS, NEGATIVES, 0.2, size=75)) == 75


def test_calls_and_negatives_given_the_wrong_way_round_are_refused():
    for calls, negatives in ((NEGATIVES, CALLS), ([*CALLS, NEGATIVES[0]], NEGATIVES), (CALLS, [*NEGATIVES, CALLS[0]])):
        with pytest.raises(ValueError, match="whose target is a call"):
            mix(calls, negatives, 0.15)


@pytest.mark.parametrize("share", [0.10, 0.15, 0.20])
def test_shares_of_the_lessons_band_pass_without_warning(share):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mix(CALLS, NEGATIVES, share)


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.0, "0% negatives is under 10%: the router may learn to call a tool every time"),
        (0.096, "9.6% negatives is under 10%: the router may learn to call a tool every time"),
        (0.05, "5% negatives is under 10%: the router may learn to call a tool every time"),
        (0.3, "30% negatives is over 20%: the router may learn to hold back on real requests"),
        (1.0, "100% negatives is over 20%: the router may learn to hold back on real requests"),
    ],
)
def test_shares_outside_the_band_are_warned_of_with_the_reason_at_the_callers_line(share, said):
    with pytest.warns(UserWarning) as caught:
        mix(CALLS, NEGATIVES, share)
    assert [str(warning.message) for warning in caught] == [said]
    assert caught[0].filename == __file__
