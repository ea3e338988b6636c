"""The four numbers and their companions, counted by hand on small sets; intervals, outcomes and comparisons against outside oracles."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from helpers.evaluation import (
    COMPANIONS,
    FOUR,
    OUTCOMES,
    Difference,
    FourNumberReport,
    Rate,
    breakdown,
    compare,
    read_report,
    score,
    table,
    write_json,
)
from helpers.examples import Example
from helpers.tools import Toolset, support_desk

DESK = support_desk()
ANY_VALUE = {"name": "set_value", "inputSchema": {"type": "object", "properties": {"value": {}}, "required": ["value"]}}
SETTER = Toolset.from_mcp([ANY_VALUE])


def call(tool, **arguments):
    return {"tool": tool, "arguments": arguments}


def row(id, target, kind="direct"):
    return Example.model_validate({"id": id, "request": f"request {id}", "target": target, "kind": kind})


def track(order_id):
    return call("track_order", order_id=order_id)


REFUSAL = {"tool": "no_tool", "reason": "small talk"}
REFUND_3, REFUND_4 = (call("request_refund", order_id=id, reason="broken") for id in ("A-3", "A-4"))
RUDE = call("escalate", reason="rude clerk")

# (example, output, outcome): seven rows whose gold is a call, three whose gold is no_tool
SET = [
    (row("1", track("A-1")), track("A-1"), "right call"),
    (row("2", track("A-2")), track("A-9"), "wrong arguments"),
    (row("3", REFUND_3, "messy"), track("A-3"), "wrong tool"),
    (row("4", REFUND_4, "messy"), REFUSAL, "missed call"),
    (row("5", RUDE, "buried"), "a person, please", "invalid"),
    (row("6", REFUSAL, "chitchat"), {"tool": "no_tool", "reason": "other words"}, "right no_tool"),
    (row("7", REFUSAL, "chitchat"), track("A-7"), "false call"),
    (row("8", REFUSAL, "steering"), call("track_order"), "invalid"),  # names a real tool, but is not a call
    (row("9", track("A-9") | {"accept": [call("escalate", reason="lost")]}), call("escalate", reason="lost"), "right call"),
    (row("10", RUDE, "buried"), RUDE, "right call"),
]
EXAMPLES = [example for example, _, _ in SET]
OUTPUTS = [output if isinstance(output, str) else json.dumps(output) for _, output, _ in SET]
GOLD = [example.answers[0].to_json() for example in EXAMPLES]

BY_HAND = {
    "valid_tool_call_rate": Rate(8, 10),  # all but 5 and 8
    "tool_name_accuracy": Rate(5, 10),  # 1, 2, 6, 9, 10
    "argument_match_accuracy": Rate(3, 6),  # 1, 9, 10 of 1, 2, 3, 7, 9, 10
    "false_tool_call_rate": Rate(1, 10),  # 7
    "false_calls_on_no_tool": Rate(1, 3),  # 7 of 6, 7, 8
    "missed_calls": Rate(1, 7),  # 4
    "exact_accuracy": Rate(4, 10),  # 1, 6, 9, 10
    "silent_error_rate": Rate(4, 10),  # 2, 3, 4, 7
    "detectable_error_rate": Rate(2, 10),  # 5, 8
}


@pytest.fixture
def report():
    return score(OUTPUTS, EXAMPLES, DESK, "trial")


# --- rates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_HAND)
def test_every_rate_equals_the_count_by_hand(report, name):
    assert getattr(report, name) == BY_HAND[name]


def test_rates_are_the_four_and_their_companions_in_order(report):
    assert report.rates == BY_HAND
    assert list(report.rates) == [*FOUR, *COMPANIONS]


def test_every_row_ends_in_the_outcome_given_by_hand(report):
    assert [row.outcome for row in report.rows] == [outcome for _, _, outcome in SET]


def test_outcomes_count_the_rows(report):
    assert list(report.outcomes.items()) == list(zip(OUTCOMES, (3, 1, 1, 1, 1, 1, 2), strict=True))


@pytest.mark.parametrize("negatives", [0, 1, 2, 9])
def test_a_perfect_router_matches_every_argument_whatever_the_share_of_negatives(negatives):
    examples = [row(f"c{i}", track(f"A-{i}")) for i in range(4)] + [row(f"n{i}", REFUSAL, "chitchat") for i in range(negatives)]
    perfect = score([example.answers[0].to_json() for example in examples], examples, DESK)
    assert perfect.argument_match_accuracy == Rate(4, 4)
    assert perfect.exact_accuracy == perfect.tool_name_accuracy == perfect.valid_tool_call_rate == Rate(4 + negatives, 4 + negatives)
    assert perfect.silent_error_rate.hits == perfect.missed_calls.hits == perfect.false_calls_on_no_tool.hits == 0


def test_a_router_that_never_calls_has_no_argument_match_to_speak_of():
    found = score([json.dumps(REFUSAL)] * 10, EXAMPLES, DESK)
    assert found.argument_match_accuracy == Rate(0, 0)
    assert math.isnan(found.argument_match_accuracy.value)
    assert found.missed_calls == Rate(7, 7)


@pytest.mark.parametrize(
    ("gold", "said", "right"),
    [
        ("5", "5.0", True),
        ("1", "true", False),
        ("false", "0", False),
        ('"5"', "5", False),
        ('{"a": 1, "b": [2]}', '{"b": [2.0], "a": 1}', True),
        ("[1, 2]", "[2, 1]", False),
        ("[1]", "[1, 1]", False),
        ("[true]", "[1]", False),
        ('{"a": null}', "{}", False),
        ('"Late"', '"late"', False),
        ('"late"', '"late "', False),
    ],
)
def test_arguments_are_compared_as_json(gold, said, right):
    example = row("1", call("set_value", value=json.loads(gold)))
    found = score([f'{{"tool": "set_value", "arguments": {{"value": {said}}}}}'], [example], SETTER)
    assert found.argument_match_accuracy == Rate(int(right), 1)
    assert found.tool_name_accuracy == Rate(1, 1)


def test_the_order_of_keys_is_free_at_every_level():
    said = '{"arguments": {"reason": "broken", "order_id": "A-3"}, "tool": "request_refund"}'
    assert score([said], [row("3", REFUND_3)], DESK).exact_accuracy == Rate(1, 1)


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (track("A-1"), "right call"),
        (track("B-1"), "right call"),
        (REFUSAL, "right no_tool"),
        (track("C-1"), "wrong arguments"),
        (RUDE, "wrong tool"),
    ],
)
def test_any_accepted_answer_is_right_and_nothing_else(said, outcome):
    example = row("1", track("A-1") | {"accept": [track("B-1"), REFUSAL]})
    found = score([json.dumps(said)], [example], DESK)
    assert found.rows[0].outcome == outcome
    assert found.exact_accuracy.hits == outcome.startswith("right")


def test_arguments_of_one_accepted_answer_do_not_mix_with_those_of_another():
    other = call("request_refund", order_id="B-1", reason="late")
    example = row("1", call("request_refund", order_id="A-1", reason="broken") | {"accept": [other]})
    mixed = json.dumps(call("request_refund", order_id="A-1", reason="late"))
    assert score([mixed], [example], DESK).rows[0].outcome == "wrong arguments"


# --- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Stat. Med. 17 (1998), table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_equal_the_published_ones(hits, of, low, high):
    assert Rate(hits, of).interval() == pytest.approx((low, high), abs=5e-5)


def test_intervals_at_the_edges_stay_within_0_and_1():
    assert Rate(0, 20).interval()[0] == 0.0
    assert Rate(20, 20).interval()[1] == 1.0
    assert Rate(20, 20).interval()[0] == pytest.approx(1 - 0.1611, abs=5e-5)
    assert Rate(0, 0).interval() == (0.0, 1.0)


def test_a_rate_of_nothing_has_no_value():
    assert math.isnan(Rate(0, 0).value)
    assert str(Rate(0, 0)) == "– (none)"


def test_a_rate_reads_as_value_interval_and_counts():
    assert str(Rate(0, 20)) == "0.000 [0.00, 0.16] 0/20"


def test_more_confidence_is_a_wider_interval():
    assert Rate(5, 10).interval(0.99)[0] < Rate(5, 10).interval(0.95)[0] < 0.5


# --- properties -------------------------------------------------------------------------------------------------------

LEGAL = [json.dumps(answer) for answer in (track("A-1"), track("A-2"), REFUND_3, RUDE, REFUSAL)]
outputs = st.lists(st.sampled_from([*LEGAL, *GOLD, "", "[]", "{}", '{"tool": "fly"}']) | st.text(max_size=20), min_size=10, max_size=10)


@given(outputs)
def test_every_row_ends_once_and_right_silent_and_detectable_make_the_whole(texts):
    found = score(texts, EXAMPLES, DESK)
    assert sum(found.outcomes.values()) == 10
    assert found.exact_accuracy.hits == found.outcomes["right call"] + found.outcomes["right no_tool"]
    assert found.exact_accuracy.hits + found.silent_error_rate.hits + found.detectable_error_rate.hits == 10
    assert found.valid_tool_call_rate.hits + found.detectable_error_rate.hits == 10
    assert sum(found.confusion().values()) == 10
    assert all(0 <= rate.hits <= rate.of <= 10 for rate in found.rates.values())


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_outputs", "n_examples"), [(0, 0), (9, 10), (10, 9), (0, 1), (1, 0)])
def test_score_refuses_lists_that_are_empty_or_differ_in_length(n_outputs, n_examples):
    with pytest.raises(ValueError, match=f"got {n_outputs} and {n_examples}"):
        score(OUTPUTS[:n_outputs], EXAMPLES[:n_examples], DESK)


# --- parts and tables -------------------------------------------------------------------------------------------------


def test_per_tool_splits_by_gold_tool(report):
    parts = report.per_tool()
    assert {name: part.exact_accuracy for name, part in parts.items()} == {
        "escalate": Rate(1, 2),
        "no_tool": Rate(1, 3),
        "request_refund": Rate(0, 2),
        "track_order": Rate(2, 3),
    }


def test_per_kind_splits_by_kind(report):
    parts = report.per_kind()
    assert {name: part.exact_accuracy for name, part in parts.items()} == {
        "buried": Rate(1, 2),
        "chitchat": Rate(1, 2),
        "direct": Rate(2, 3),
        "messy": Rate(0, 2),
        "steering": Rate(0, 1),
    }
    assert [part.name for part in parts.values()] == list(parts)


def test_confusion_counts_gold_by_decided_tool(report):
    assert report.confusion() == {
        ("track_order", "track_order"): 2,
        ("track_order", "escalate"): 1,  # row 9, which accepts it
        ("request_refund", "track_order"): 1,
        ("request_refund", "no_tool"): 1,
        ("escalate", "invalid"): 1,
        ("escalate", "escalate"): 1,
        ("no_tool", "no_tool"): 1,
        ("no_tool", "track_order"): 1,
        ("no_tool", "invalid"): 1,
    }


def test_breakdown_has_a_line_per_part_with_dots_for_zero(report):
    lines = breakdown(report.per_tool()).splitlines()
    assert lines[0].split() == ["rows", "exact", "accuracy", *" ".join(OUTCOMES).split()]
    assert lines[1].split() == ["escalate", "2", "0.500", "[0.09,", "0.91]", "1/2", "1", "·", "·", "·", "·", "·", "1"]
    assert len(lines) == 5


def test_table_in_text_lines_up_and_marks_lower_is_better(report):
    lines = table([report, score(GOLD, EXAMPLES, DESK, "perfect")]).splitlines()
    assert lines[0].split() == ["rate", "trial", "perfect"]
    assert len(lines) == 1 + len(BY_HAND)
    assert lines[3] == "argument match accuracy   0.500 [0.19, 0.81] 3/6   1.000 [0.65, 1.00] 7/7"
    assert [line.split("  ")[0] for line in lines if "↓" in line] == [
        "false tool call rate ↓",
        "false calls on no tool ↓",
        "missed calls ↓",
        "silent error rate ↓",
        "detectable error rate ↓",
    ]
    assert str(report) == table([report])


def test_table_in_markdown_is_a_table(report):
    lines = report._repr_markdown_().splitlines()
    assert lines[:3] == ["| rate | trial |", "| --- | --- |", "| valid tool call rate | 0.800 [0.49, 0.94] 8/10 |"]
    assert all(line.count("|") == 3 for line in lines)


def test_table_shows_the_rates_asked_for(report):
    assert [line.split()[0] for line in table([report], rates=["missed_calls"]).splitlines()] == ["rate", "missed"]


# --- regression bounds ------------------------------------------------------------------------------------------------


def test_check_passes_at_the_very_bound(report):
    report.check(valid_tool_call_rate=0.8, false_tool_call_rate=0.1, missed_calls=0.2)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"valid_tool_call_rate": 0.81}, r"trial: valid_tool_call_rate is 0\.800 .* 8/10, and should be at least 0\.81"),
        (
            {"valid_tool_call_rate": 0.5, "silent_error_rate": 0.3},
            r"trial: silent_error_rate is 0\.400 .* 4/10, and should be at most 0\.3",
        ),
    ],
)
def test_check_names_the_figure_that_breaks_its_bound(report, bounds, message):
    with pytest.raises(AssertionError, match=message):
        report.check(**bounds)


def test_check_fails_a_rate_that_counts_nothing():
    with pytest.raises(AssertionError, match="argument_match_accuracy"):
        score([json.dumps(REFUSAL)], EXAMPLES[:1], DESK).check(argument_match_accuracy=0.0)


def test_check_refuses_a_rate_that_does_not_exist(report):
    with pytest.raises(ValueError, match=r"'accuracy'.*valid_tool_call_rate"):
        report.check(accuracy=0.5)


# --- out --------------------------------------------------------------------------------------------------------------


def test_to_dict_is_strict_json_with_null_for_a_rate_of_nothing(tmp_path):
    report = score([json.dumps(REFUSAL)] * 10, EXAMPLES, DESK, "never")
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False)) == report.to_dict()
    write_json(report, tmp_path / "report.json")
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (data["name"], data["n"]) == ("never", 10)
    assert data["rates"]["argument_match_accuracy"] == {"hits": 0, "of": 0, "value": None, "interval": [0.0, 1.0]}
    assert data["rates"]["missed_calls"]["value"] == 1.0
    assert data["outcomes"] == dict(zip(OUTCOMES, (0, 3, 0, 0, 0, 7, 0), strict=True))


def test_rows_come_back_as_they_were(tmp_path):
    report = score(OUTPUTS, EXAMPLES, DESK, "trial")
    for name in ("rows.csv", "rows.jsonl"):
        report.write_rows(tmp_path / name)
        assert read_report(tmp_path / name, DESK, "trial") == report


def test_a_file_without_rows_is_no_report(tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(ValueError, match="holds no rows"):
        read_report(tmp_path / "rows.jsonl", DESK)


# --- views ------------------------------------------------------------------------------------------------------------


def test_details_say_what_exactly_was_wrong_and_add_up():
    report = score(OUTPUTS, EXAMPLES, DESK)
    assert report.details == {
        "right call": {"": 3},
        "right no_tool": {"": 1},
        "wrong arguments": {"order_id wrong": 1},
        "wrong tool": {"track_order for request_refund": 1},
        "false call": {"track_order": 1},
        "missed call": {"request_refund": 1},
        "invalid": {"not_json": 1, "bad_arguments": 1},
    }
    assert {outcome: sum(counts.values()) for outcome, counts in report.details.items()} == report.outcomes


def test_wrong_calls_are_the_silent_errors_that_act(report):
    assert report.wrong_calls == Rate(3, 10)
    assert report.wrong_calls.hits == report.silent_error_rate.hits - report.missed_calls.hits


def test_difficulty_is_the_length_of_the_request():
    rows = [
        Example.model_validate({"id": str(n), "request": "word " * n, "target": REFUSAL, "kind": "chitchat"}) for n in (1, 12, 13, 30, 31)
    ]
    found = score([json.dumps(REFUSAL)] * 5, rows, DESK).per_difficulty()
    assert {name: [row.example.id for row in part.rows] for name, part in found.items()} == {
        "up to 12 words": ["1", "12"],
        "13 to 30 words": ["13", "30"],
        "over 30 words": ["31"],
    }


# --- comparison -------------------------------------------------------------------------------------------------------

MANY = [row(str(i), track(f"A-{i}")) for i in range(40)]


def right_on(places):
    """A report on MANY that is right exactly on `places`, and a silent error of the right tool elsewhere."""
    return score([json.dumps(track(f"A-{i}" if i in places else "B-0")) for i in range(40)], MANY, DESK)


def test_identical_reports_are_noise():
    for found in compare(right_on(range(20)), right_on(range(20))).values():
        assert (found.change, found.interval, found.gained, found.lost, found.p) == (0.0, (0.0, 0.0), 0, 0, 1.0)
        assert found.is_noise
        assert str(found).endswith("p = 1: noise")


def test_a_large_improvement_is_real_and_its_direction_is_from_a_to_b():
    found = compare(right_on(range(5)), right_on(range(30)))
    exact = found["exact_accuracy"]
    assert (exact.change, exact.gained, exact.lost) == (0.625, 25, 0)
    assert exact.p == pytest.approx(2 * 0.5**25)
    assert 0 < exact.interval[0] < 0.625 < exact.interval[1] < 1
    assert not exact.is_noise
    assert str(exact).endswith("a real change")
    assert found["valid_tool_call_rate"].is_noise
    assert found["tool_name_accuracy"].change == 0
    back = compare(right_on(range(30)), right_on(range(5)))["exact_accuracy"]
    assert (back.change, back.gained, back.lost) == (-0.625, 0, 25)


def test_each_question_is_asked_of_its_own():
    broken = score(["oops"] * 10 + [json.dumps(RUDE)] * 10 + [example.answers[0].to_json() for example in MANY[20:]], MANY, DESK)
    found = compare(broken, right_on(range(10, 40)))
    assert {name: (d.gained, d.lost) for name, d in found.items()} == {
        "valid_tool_call_rate": (10, 0),
        "tool_name_accuracy": (20, 0),
        "exact_accuracy": (10, 0),
        "silent_error_rate": (10, 10),
        "false_tool_call_rate": (0, 0),
    }


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(7, 1, 2 * (1 + 8) / 2**8), (6, 0, 2 / 2**6), (5, 0, 2 / 2**5), (3, 3, 1.0), (9, 2, 2 * (1 + 11 + 55) / 2**11)],
)
def test_p_is_mcnemars_exact_one(gained, lost, p):
    before, after = set(range(lost)), set(range(lost, lost + gained))
    found = compare(right_on(before), right_on(after))["exact_accuracy"]
    assert (found.gained, found.lost) == (gained, lost)
    assert found.p == pytest.approx(p)
    assert found.p == pytest.approx(binomtest(lost, gained + lost, 0.5).pvalue)
    assert found.is_noise == (p >= 0.05)


def test_the_bootstrap_interval_is_the_same_at_every_run_and_near_the_normal_one():
    a, b = right_on(range(10)), right_on(range(5, 25))  # 15 gained, 5 lost of 40
    found = compare(a, b)["exact_accuracy"]
    assert found == compare(a, b)["exact_accuracy"]
    error = math.sqrt((20 / 40 - 0.25**2) / 40)  # of the mean of 15 times +1, 5 times -1, 20 times 0
    assert found.interval == pytest.approx((0.25 - 1.96 * error, 0.25 + 1.96 * error), abs=0.04)


def test_a_p_of_exactly_5_percent_is_noise():
    assert Difference("x", 0.1, (0, 0.2), 1, 0, 0.05).is_noise
    assert not Difference("x", 0.1, (0, 0.2), 1, 0, 0.0499).is_noise


def test_compare_refuses_other_rows_or_another_order(report):
    reverse = score(OUTPUTS[::-1], EXAMPLES[::-1], DESK)
    for other in (reverse, score(OUTPUTS[:9], EXAMPLES[:9], DESK), right_on([])):
        with pytest.raises(ValueError, match="not about the same rows"):
            compare(report, other)


def test_compare_refuses_rows_of_the_same_ids_with_other_targets():
    with pytest.raises(ValueError, match="not about the same rows"):
        compare(score([GOLD[0]], [row("1", track("A-1"))], DESK), score([GOLD[0]], [row("1", REFUSAL)], DESK))


def test_a_wrong_call_on_a_no_tool_row_is_a_false_call_whatever_the_row_accepts():
    example = row("1", REFUSAL | {"accept": [track("A-1")]}, "ambiguous")
    assert score([json.dumps(track("A-1"))], [example], DESK).rows[0].outcome == "right call"
    assert score([json.dumps(track("B-1"))], [example], DESK).rows[0].outcome == "false call"


def test_a_report_does_not_change_under_its_reader(report):
    with pytest.raises(AttributeError):
        report.name = "other"
    assert FourNumberReport(report.rows, "trial") == report
