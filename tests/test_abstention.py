"""Holding back: confidence counted token by token by hand, curves and thresholds on small sets, and the promise tried by simulation."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from helpers import abstention
from helpers.abstention import (
    HELD_BACK,
    MEASURES,
    auroc,
    choose_threshold,
    hold_back,
    risk_coverage,
    tool_name,
    upper_bound,
    weakest_argument_token,
    whole_output,
)
from helpers.decoding import Completion
from helpers.evaluation import OUTCOMES, FourNumberReport, Rate, score
from helpers.examples import Example
from helpers.parsing import NoTool, ToolCall, parse_tool_call
from helpers.tools import support_desk

DESK = support_desk()
TRACK = '{"tool":"track_order","arguments":{"order_id":"A-1"}}'
OTHER = '{"tool":"track_order","arguments":{"order_id":"B-9"}}'
RUDE = '{"tool":"escalate","arguments":{"reason":"rude"}}'
REFUSAL = '{"tool":"no_tool","reason":"small talk"}'


def said(*tokens):
    """A completion from (piece, probability) pairs."""
    pieces, chances = zip(*tokens, strict=True)
    return Completion("".join(pieces), pieces, tuple(map(math.log, chances)), len(pieces))


def scored(gold, output):
    """One scored row whose gold answer and output are the JSON texts given."""
    example = Example.model_validate({"id": "1", "request": "?", "target": json.loads(gold), "kind": "direct"})
    return score([output], [example], DESK).rows[0]


ROWS = {  # one row for each way to end
    "right call": scored(TRACK, TRACK),
    "right no_tool": scored(REFUSAL, REFUSAL),
    "wrong arguments": scored(TRACK, OTHER),
    "wrong tool": scored(TRACK, RUDE),
    "false call": scored(REFUSAL, TRACK),
    "missed call": scored(TRACK, REFUSAL),
    "invalid": scored(TRACK, "a person, please"),
}
CALLS = {"right call", "wrong arguments", "wrong tool", "false call"}
WRONG_CALLS = CALLS - {"right call"}


def report_of(outcomes):
    return FourNumberReport(tuple(ROWS[outcome] for outcome in outcomes))


def test_the_rows_of_these_tests_end_as_they_are_called():
    assert list(ROWS) == list(OUTCOMES)
    assert all(row.outcome == name for name, row in ROWS.items())


# --- how sure a completion is -----------------------------------------------------------------------------------------

BY_HAND = {  # completion, whole output, tool name, weakest argument token
    "pieces that cut the name, the last with the key after it": (
        said(
            ('{"', 0.9), ('tool":"tra', 0.8), ("ck_", 0.5), ('order","arguments', 0.7), ('":{"order_id":"A-', 0.6), ('1"}}', 0.9), ("", 1)
        ),
        0.9 * 0.8 * 0.5 * 0.7 * 0.6 * 0.9,
        0.8 * 0.5 * 0.7,
        0.6,
    ),
    "the piece that ends the name is the weakest": (
        said(('{"tool":"', 0.1), ("track_", 0.2), ('order","arguments', 0.3), ('":{"order_id":"A-1"}}', 0.6), ("", 0.9)),
        0.1 * 0.2 * 0.3 * 0.6 * 0.9,
        0.2 * 0.3,
        0.3,
    ),
    "pieces that end where the name begins and begin where it ends": (
        said(('{"tool":"', 0.1), ("track_order", 0.4), ('"', 0.7), (',"arguments":{"order_id":"A-1"}}', 0.8), ("", 0.9)),
        0.1 * 0.4 * 0.7 * 0.8 * 0.9,
        0.4,
        0.7,
    ),
    "the end is the weakest": (
        said(('{"tool":"', 0.1), ("track_order", 0.2), ('","arguments":{"order_id":"A-1"}}', 0.6), ("", 0.5)),
        0.006,
        0.2,
        0.5,
    ),
    "all in one piece": (said((TRACK, 0.4), ("", 0.9)), 0.36, 0.4, 0.4),
    "cut off before its end": (said(('{"tool":"', 0.9), ("escalate", 0.8), ('","arguments":{"reason":"he', 0.5)), 0.36, 0.8, 0.5),
    "cut off within the name": (said(('{"tool":"', 0.9), ("track", 0.5)), 0.45, 0.45, 0.5),
    "escapes that look like another tool's name": (
        said(
            ('{"tool":"', 0.9),
            ("escalate", 0.8),
            ('","arguments":{"reason":"a \\"tool\\":\\"', 0.7),
            ("track", 0.5),
            ('\\""}}', 0.6),
            ("", 1),
        ),
        0.9 * 0.8 * 0.7 * 0.5 * 0.6,
        0.8,
        0.5,
    ),
    "a name spelled with escapes, its quote among them": (
        said(('{"tool":"', 0.9), ("a\\u0062", 0.8), ('c\\"', 0.7), ("d", 0.6), ('"', 0.5), ("}", 0.4), ("", 0.9)),
        0.9 * 0.8 * 0.7 * 0.6 * 0.5 * 0.4 * 0.9,
        0.8 * 0.7 * 0.6,
        0.4,
    ),
    "white space around the colon": (
        said(('{ "tool" : "', 0.9), ("escalate", 0.8), ('", "arguments": {"reason": "x"} }', 0.7), ("", 1)),
        0.504,
        0.8,
        0.7,
    ),
    "a character in four tokens, the second unlikely": (
        said(
            ('{"tool":"', 0.9),
            ("escalate", 0.8),
            ('","arguments":{"reason":"', 1),
            ("", 0.9),
            ("", 0.2),
            ("", 0.7),
            ("🙂", 1),
            ('"}}', 1),
            ("", 1),
        ),
        0.9 * 0.8 * 0.9 * 0.2 * 0.7,
        0.8,
        0.2,
    ),
    "a refusal": (
        said(('{"tool":"', 0.9), ("no_", 0.8), ("tool", 0.5), ('","reason":"', 0.9), ('small talk"}', 0.3), ("", 1)),
        0.0972,
        0.4,
        0.3,
    ),
    "not JSON": (said(("a person", 0.5), (", please", 0.8), ("", 0.6)), 0.24, 0.24, 0.5),
    "JSON that names no tool": (said(('{"tool":', 0.5), ("null}", 0.2), ("", 0.9)), 0.09, 0.09, 0.2),
    "the end alone": (said(("", 0.7)), 0.7, 0.7, 0.7),
    "nothing at all": (Completion("", (), (), 0), 1, 1, 1),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_three_measures_equal_the_count_by_hand(name):
    completion, *expected = BY_HAND[name]
    assert [measure(completion) for measure in (whole_output, tool_name, weakest_argument_token)] == pytest.approx(expected)


def test_the_measures_are_named_for_tables():
    assert {"whole output": whole_output, "tool name": tool_name, "weakest argument token": weakest_argument_token} == MEASURES


@given(st.sets(st.integers(1, len(TRACK) - 1)), st.data())
def test_every_cut_of_an_output_counts_the_pieces_that_hold_a_character_of_the_part(cuts, data):
    edges = [0, *sorted(cuts), len(TRACK)]
    pieces = [TRACK[a:b] for a, b in pairwise(edges)]
    chances = [data.draw(st.floats(0.01, 1)) for _ in [*pieces, "the end"]]
    completion = said(*zip([*pieces, ""], chances, strict=True))
    owner = [index for index, piece in enumerate(pieces) for _ in piece]  # of each character
    name, rest = set(owner[9:20]), {*owner[20:], len(pieces)}  # track_order stands at 9 to 20
    assert whole_output(completion) == pytest.approx(math.prod(chances))
    assert tool_name(completion) == pytest.approx(math.prod(chances[index] for index in name))
    assert weakest_argument_token(completion) == pytest.approx(min(chances[index] for index in rest))


# --- how well confidence tells right from wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("confidence", "right", "area"),
    [
        ([0.9, 0.8, 0.3, 0.6], [True, False, True, False], 2 / 4),  # 0.9 beats both, 0.3 neither
        ([0.9, 0.5, 0.5, 0.2], [True, True, False, False], 3.5 / 4),  # the tie at 0.5 counts half
        ([0.9, 0.7, 0.8], [True, False, True], 1.0),
        ([0.1, 0.7, 0.2], [True, False, True], 0.0),
        ([0.4] * 5, [True, False, True, True, False], 0.5),
        ([0.9, 0.7, 0.5, 0.8, 0.7, 0.1], [True, True, True, False, False, False], (3 + 1.5 + 1) / 9),
    ],
)
def test_auroc_counts_the_pairs(confidence, right, area):
    assert auroc(confidence, right) == pytest.approx(area)


@pytest.mark.parametrize("right", [[], [True], [False], [True] * 3, [False] * 3])
def test_auroc_of_one_sort_alone_is_nan(right):
    assert math.isnan(auroc([0.5] * len(right), right))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_auroc_is_the_share_of_pairs_and_turns_round_with_confidence(rows):
    confidence, right = zip(*rows, strict=True)
    pairs = [(a > b) + (a == b) / 2 for a, yes in rows if yes for b, also in rows if not also]
    if pairs:
        assert auroc(confidence, right) == pytest.approx(sum(pairs) / len(pairs))
        assert auroc([-sure for sure in confidence], right) == pytest.approx(1 - auroc(confidence, right))


# --- risk and coverage ------------------------------------------------------------------------------------------------

SMALL = [
    ("right call", 0.9),
    ("right no_tool", 0.85),
    ("false call", 0.8),
    ("right call", 0.8),
    ("invalid", 0.99),
    ("wrong tool", 0.3),
    ("right call", 0.6),
    ("missed call", 0.1),
]


def test_the_curve_equals_the_count_by_hand_and_leaves_out_what_is_no_call():
    curve = risk_coverage(report_of(outcome for outcome, _ in SMALL), [sure for _, sure in SMALL])
    assert curve.threshold == (0.9, 0.8, 0.6, 0.3)
    assert curve.made == (1, 3, 4, 5)
    assert curve.errors == (0, 1, 1, 2)
    assert curve.coverage == (0.2, 0.6, 0.8, 1.0)
    assert curve.risk == (Rate(0, 1), Rate(1, 3), Rate(1, 4), Rate(2, 5))
    assert curve.area == pytest.approx((0 + 1 / 3 + 1 / 3 + 1 / 4 + 2 / 5) / 5)  # two calls tie at 0.8


def test_the_area_without_any_order_is_the_risk_of_all_calls():
    assert risk_coverage(report_of(["right call"] * 3 + ["false call"]), [0.7] * 4).area == 0.25


def test_the_better_order_has_the_smaller_area():
    report = report_of(["right call"] * 3 + ["wrong arguments"])
    best, worst = (risk_coverage(report, confidence).area for confidence in ([0.9, 0.8, 0.7, 0.6], [0.6, 0.7, 0.8, 0.9]))
    assert (best, worst) == pytest.approx((0.25 / 4, (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4))


@given(st.lists(st.tuples(st.sampled_from(OUTCOMES), st.integers(0, 10)), min_size=1, max_size=30))
def test_coverage_rises_to_one_and_ends_with_the_reports_wrong_calls(rows):
    report = report_of(outcome for outcome, _ in rows)
    wrong = sum(report.outcomes[outcome] for outcome in WRONG_CALLS)
    calls = wrong + report.outcomes["right call"]
    if calls:
        curve = risk_coverage(report, [sure / 10 for _, sure in rows])
        assert (curve.coverage[-1], curve.made[-1], curve.errors[-1]) == (1.0, calls, wrong)
        assert list(curve.threshold) == sorted(set(curve.threshold), reverse=True)
        assert list(curve.coverage) == sorted(set(curve.coverage))
        assert list(curve.errors) == sorted(curve.errors)


def test_a_router_that_never_calls_has_no_curve():
    with pytest.raises(ValueError, match="router made no call, so there is nothing to hold back"):
        risk_coverage(report_of(["right no_tool", "invalid"]), [0.5, 0.5])


@pytest.mark.parametrize("use", [risk_coverage, lambda report, confidence: choose_threshold(report, confidence, 0.5)])
def test_a_confidence_for_each_row_is_asked_for(use):
    with pytest.raises(ValueError, match="one confidence is needed for each row; got 3 for 8 rows"):
        use(report_of(outcome for outcome, _ in SMALL), [0.5] * 3)


# --- the bound --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 500), st.data(), st.floats(0.001, 0.5))
def test_the_bound_is_clopper_and_pearsons(of, data, delta):
    hits = data.draw(st.integers(0, of))
    exact = binomtest(hits, of, alternative="less").proportion_ci(1 - delta, method="exact").high
    assert upper_bound(Rate(hits, of), delta) == pytest.approx(exact)


@pytest.mark.parametrize(("hits", "of", "delta"), [(0, 20, 0.05), (3, 50, 0.1), (49, 50, 0.01)])
def test_at_the_bound_so_few_hits_have_probability_delta(hits, of, delta):
    assert binom.cdf(hits, of, upper_bound(Rate(hits, of), delta)) == pytest.approx(delta)


@pytest.mark.parametrize("of", [50, 100, 1000, 100_000])
def test_no_hits_follow_the_rule_of_three(of):
    assert 0.96 * 3 / of < upper_bound(Rate(0, of), 0.05) < 3 / of


@pytest.mark.parametrize("rate", [Rate(7, 7), Rate(0, 0)])
def test_all_hits_and_no_rows_bound_nothing(rate):
    assert upper_bound(rate, 0.05) == 1.0


# --- the threshold, case by case --------------------------------------------------------------------------------------

HUNDREDTHS = [n / 100 for n in range(100)]


def test_a_perfect_router_keeps_every_call():
    found = choose_threshold(report_of(["right call"] * 100), HUNDREDTHS[::-1], alpha=0.05)
    assert (found.value, found.observed, found.kept) == (0.0, Rate(0, 100), Rate(100, 100))
    assert (found.risk, found.alpha, found.delta) == ("wrong calls", 0.05, 0.05)
    assert found.bound == pytest.approx(1 - 0.05 ** (1 / 100))


@pytest.mark.parametrize(
    ("alpha", "value", "errors"),
    [(0.03, 0.5, 0), (0.05, 0.49, 1), (0.3, 0.28, 22), (0.6, 0.0, 50)],  # binom.cdf(22, 100, 0.3) <= 0.05 < binom.cdf(23, 100, 0.3)
)
def test_a_router_wrong_below_a_half_is_trusted_from_there_and_as_far_below_as_alpha_lets(alpha, value, errors):
    report = report_of(["wrong arguments"] * 50 + ["right call"] * 50)
    found = choose_threshold(report, HUNDREDTHS, alpha)
    assert (found.value, found.observed, found.kept) == (value, Rate(errors, 100), Rate(50, 50))
    assert found.bound == upper_bound(Rate(errors, 100), 0.05) <= alpha


@pytest.mark.parametrize(("alpha", "value", "kept"), [(0.03, math.inf, 0), (0.05, 0.01, 99)])
def test_when_the_surest_call_is_wrong_a_tight_alpha_lets_none_through(alpha, value, kept):
    found = choose_threshold(report_of(["right call"] * 99 + ["wrong tool"]), [*HUNDREDTHS[1:], 1.0], alpha)
    assert (found.value, found.kept) == (value, Rate(kept, 99))
    assert found.observed == Rate(0 if math.isinf(value) else 1, 100)


def test_a_right_call_no_surer_than_a_wrong_one_falls_with_it():
    outcomes = ["right call", "right call", "false call", *["right no_tool"] * 97]
    found = choose_threshold(report_of(outcomes), [0.9, 0.8, 0.8, *[0.99] * 97], alpha=0.03)
    assert (found.value, found.kept) == (0.9, Rate(1, 2))


MIXED = ["right no_tool"] * 59 + ["false call"] + ["wrong arguments"] * 40 + ["right call"] * 20
MIXED_SURE = [1.0] * 59 + [0.7] + [0.9] * 40 + [0.5 + n / 50 for n in range(20)]  # right calls at 0.5, 0.52, ..., 0.88


def test_false_calls_are_a_share_of_the_no_tool_rows_alone():
    found = choose_threshold(report_of(MIXED), MIXED_SURE, alpha=0.05, risk="false calls")
    assert (found.value, found.observed, found.kept) == (0.5 + 11 / 50, Rate(0, 60), Rate(9, 20))
    assert choose_threshold(report_of(MIXED), MIXED_SURE, alpha=0.08, risk="false calls").observed == Rate(1, 60)


def test_wrong_calls_are_a_share_of_all_rows():
    found = choose_threshold(report_of(MIXED), MIXED_SURE, alpha=0.05)
    assert (found.value, found.observed, found.kept) == (math.inf, Rate(0, 120), Rate(0, 20))


def test_how_sure_a_refusal_or_an_invalid_output_is_does_not_matter():
    calls = [("right call", 0.4), ("wrong tool", 0.6), ("right call", 0.8)]
    found = []
    for sure in (0.0, 0.5, 1.0):
        rows = calls + [(outcome, sure) for outcome in ("right no_tool", "missed call", "invalid") for _ in range(20)]
        found.append(choose_threshold(report_of(outcome for outcome, _ in rows), [c for _, c in rows], alpha=0.05))
    assert found[0] == found[1] == found[2]
    assert (found[0].value, found[0].observed) == (0.8, Rate(0, 63))


@given(
    st.lists(st.tuples(st.sampled_from(OUTCOMES), st.integers(0, 10)), min_size=8, max_size=60), st.floats(0.25, 0.6), st.floats(0.2, 0.5)
)
def test_the_threshold_is_the_mildest_confidence_of_a_call_whose_bound_holds(rows, alpha, delta):
    report, confidence = report_of(outcome for outcome, _ in rows), [sure / 10 for _, sure in rows]
    holds = [
        level / 10
        for outcome, level in rows
        if outcome in CALLS and upper_bound(Rate(sum(o in WRONG_CALLS and s >= level for o, s in rows), len(rows)), delta) <= alpha
    ]
    assert choose_threshold(report, confidence, alpha, delta).value == min(holds, default=math.inf)


@pytest.mark.parametrize(
    ("alpha", "delta", "needed"), [(0.05, 0.05, 59), (0.1, 0.05, 29), (0.01, 0.05, 299), (0.2, 0.1, 11), (0.5, 0.25, 2)]
)
@pytest.mark.parametrize("risk", ["wrong calls", "false calls"])
def test_the_rows_needed_are_named_and_are_the_fewest_that_do(alpha, delta, needed, risk):
    others = ["right call"] * 400 if risk == "false calls" else []  # rows that cannot end in a false call are of no help
    enough, short = (report_of(["right no_tool"] * n + others) for n in (needed, needed - 1))
    assert choose_threshold(enough, [0.5] * len(enough.rows), alpha, delta, risk).bound <= alpha
    with pytest.raises(
        ValueError, match=f"^{needed - 1} rows that can end in {risk} are too few .* at least {needed} are needed; add rows"
    ):
        choose_threshold(short, [0.5] * len(short.rows), alpha, delta, risk)
    assert upper_bound(Rate(0, needed - 1), delta) > alpha


@pytest.mark.parametrize(("alpha", "delta"), [(0, 0.05), (1, 0.05), (5, 0.05), (math.nan, 0.05), (0.05, 0), (0.05, 1)])
def test_alpha_and_delta_are_shares(alpha, delta):
    with pytest.raises(ValueError, match=f"alpha and delta are shares between 0 and 1; got alpha={alpha}, delta={delta}"):
        choose_threshold(report_of(["right call"] * 100), HUNDREDTHS, alpha, delta)


def test_a_risk_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(ValueError, match="there is no risk 'cost'; the risks are wrong calls, false calls"):
        choose_threshold(report_of(["right call"] * 100), HUNDREDTHS, 0.05, risk="cost")


def test_a_threshold_says_what_it_promises():
    report = report_of(["wrong arguments"] * 50 + ["right call"] * 50)
    assert str(choose_threshold(report, HUNDREDTHS, alpha=0.05)) == (
        "call from confidence 0.490: wrong calls at most 5% with confidence 95% "
        "(observed 0.010 [0.00, 0.05] 1/100, bound 0.047); right calls kept: 1.000 [0.93, 1.00] 50/50"
    )
    never = choose_threshold(report_of(["wrong tool"] * 800), [0.5] * 800, alpha=0.0075, delta=0.005)
    assert str(never).startswith("never call: wrong calls at most 0.75% with confidence 99.5% (observed 0.000")
    assert str(never).endswith("right calls kept: – (none)")


# --- the promise ------------------------------------------------------------------------------------------------------

ALPHA, DELTA, SETS, SIZE = 0.1, 0.1, 400, 300
ENDS = [ROWS[name] for name in ("right call", "wrong arguments", "right no_tool", "false call")]
# The law: two rows in five are no_tool rows. With confidence c even on [0, 1], a no_tool row becomes a (false) call with probability
# 1 - c, and a row of a call becomes a wrong one with probability (1 - c) / 2. From threshold t up, with q = (1 - t)^2 / 2 the integral
# of 1 - c, false calls are q of the no_tool rows, and wrong calls 0.4 q + 0.6 q / 2 = 0.7 q of all rows.
TRUE_RISK = {"wrong calls": lambda t: 0.7 * max(1 - t, 0) ** 2 / 2, "false calls": lambda t: max(1 - t, 0) ** 2 / 2}


def true_risks(risk):
    """The true risk of the threshold chosen on each of SETS data sets that were drawn from the law."""
    rng = np.random.default_rng(20)
    found = []
    for _ in range(SETS):
        no_tool, sure, luck = rng.random(SIZE) < 0.4, rng.random(SIZE), rng.random(SIZE)
        ends = np.where(no_tool, 2 + (luck < 1 - sure), luck < (1 - sure) / 2)
        report = FourNumberReport(tuple(ENDS[end] for end in ends.tolist()))
        found.append(TRUE_RISK[risk](choose_threshold(report, sure.tolist(), ALPHA, DELTA, risk).value))
    return found


def is_kept(risks):
    """Whether the true risks exceed ALPHA no more often than DELTA allows, but for the luck of SETS draws."""
    return binomtest(sum(risk > ALPHA for risk in risks), SETS, DELTA, alternative="greater").pvalue > 0.001


@pytest.mark.parametrize("risk", TRUE_RISK)
def test_the_promise_is_kept_and_says_something(risk):
    risks = true_risks(risk)
    assert is_kept(risks)
    assert sum(value > 0 for value in risks) > 0.9 * SETS  # some calls are made
    assert ALPHA / 2 < np.mean(risks) < ALPHA


@pytest.mark.parametrize("risk", TRUE_RISK)
def test_the_simulation_would_notice_the_observed_rate_in_place_of_the_bound(risk, monkeypatch):
    monkeypatch.setattr(abstention, "upper_bound", lambda rate, delta: rate.value)
    assert not is_kept(true_risks(risk))


# --- holding back -----------------------------------------------------------------------------------------------------

TEXTS = [TRACK, RUDE, REFUSAL, "a person, please", "", '{"tool":"track_order"}', ' { "tool": "no_tool", "reason": "x" } ']
COMPLETIONS = st.lists(st.builds(lambda text, chance: said((text, chance), ("", 1)), st.sampled_from(TEXTS), st.floats(0.01, 1)))
HELD = NoTool(HELD_BACK).to_json()


def test_only_calls_below_the_threshold_become_refusals():
    completions = [said((text, chance), ("", 1)) for chance in (0.49, 0.5) for text in TEXTS]
    assert hold_back(completions, DESK, whole_output, whole_output(completions[-1])) == [HELD, HELD, *TEXTS[2:], *TEXTS]
    assert parse_tool_call(HELD, DESK) == NoTool("not sure enough to act")


def test_the_measure_given_is_the_one_that_counts():
    completion = said(('{"tool":"', 0.1), ("track_order", 0.9), ('","arguments":{"order_id":"A-1"}}', 0.5), ("", 1))
    held = [hold_back([completion], DESK, measure, 0.7) == [HELD] for measure in (whole_output, tool_name, weakest_argument_token)]
    assert held == [True, False, True]


@given(COMPLETIONS, st.floats(0, 1))
def test_no_output_but_a_call_that_is_less_sure_ever_changes(completions, threshold):
    for completion, output in zip(completions, hold_back(completions, DESK, whole_output, threshold), strict=True):
        below = completion.text in (TRACK, RUDE) and whole_output(completion) < threshold
        assert output == (HELD if below else completion.text)


@given(COMPLETIONS)
def test_infinity_holds_back_every_call_and_zero_none(completions):
    texts = [completion.text for completion in completions]
    assert hold_back(completions, DESK, whole_output, 0.0) == texts
    never = hold_back(completions, DESK, whole_output, math.inf)
    assert not any(isinstance(parse_tool_call(output, DESK), ToolCall) for output in never)
    assert [output for output in never if output != HELD] == [text for text in texts if text not in (TRACK, RUDE)]


def test_outputs_held_back_at_the_chosen_threshold_score_as_it_says():
    outcomes = [name for name in OUTCOMES for _ in range(12)]
    report = report_of(outcomes)
    completions = [said((row.output, 0.3 + 0.6 * n / len(outcomes)), ("", 1)) for n, row in enumerate(report.rows)]
    threshold = choose_threshold(report, [tool_name(c) for c in completions], alpha=0.2)
    assert 0 < threshold.observed.hits < 36 and 0 < threshold.value < 1
    after = score(hold_back(completions, DESK, tool_name, threshold.value), [row.example for row in report.rows], DESK)
    assert sum(after.outcomes[outcome] for outcome in WRONG_CALLS) == threshold.observed.hits
    assert after.outcomes["right call"] == threshold.kept.hits
    assert after.outcomes["invalid"] == 12
