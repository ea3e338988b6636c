"""The three routers that a model must beat: their shape, the rules on literal requests, and outputs that are legal for any request."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.baselines import always_call, always_no_tool, keyword_router
from helpers.evaluation import Rate, score
from helpers.examples import load_examples
from helpers.parsing import InvalidOutput, NoTool, ToolCall, parse_tool_call
from helpers.tools import support_desk

DESK = support_desk()
BASELINES = [always_no_tool, always_call, keyword_router]


def decide(request):
    return parse_tool_call(keyword_router([request])[0], DESK)


@pytest.mark.parametrize("router", BASELINES)
def test_one_output_a_request_in_the_same_order(router):
    requests = ["Where is ORD-1234?", "hello", "Where is ORD-99?"]
    outputs = router(requests)
    assert isinstance(outputs, list)
    assert outputs == [router([request])[0] for request in requests]
    assert router([]) == []


def test_always_no_tool_refuses_everything():
    assert [json.loads(text)["tool"] for text in always_no_tool(["Where is ORD-1234?", ""])] == ["no_tool", "no_tool"]


def test_always_no_tool_is_valid_never_a_false_call_and_of_no_use():
    test = load_examples("test")
    report = score(always_no_tool([example.request for example in test]), test, DESK)
    n, negatives = len(test), sum(not example.is_call for example in test)
    assert report.valid_tool_call_rate == Rate(n, n)
    assert report.false_tool_call_rate == Rate(0, n)
    assert report.false_calls_on_no_tool == Rate(0, negatives)
    assert report.missed_calls == Rate(n - negatives, n - negatives)
    assert report.argument_match_accuracy == Rate(0, 0)
    assert report.tool_name_accuracy == Rate(negatives, n)


@pytest.mark.parametrize(
    ("request_text", "tool", "arguments"),
    [
        ("Where is ORD-1234?", "track_order", {"order_id": "ORD-1234"}),
        ("when will #88123 arrive", "track_order", {"order_id": "88123"}),
        ("STATUS OF 12/AB_7.x PLEASE", "track_order", {"order_id": "12/AB_7.x"}),
        ("Refund ORD-77 because the lamp is broken.", "request_refund", {"order_id": "ORD-77", "reason": "the lamp is broken"}),
        (
            "Where is my money back for A-100 since it never came",
            "request_refund",
            {"order_id": "A-100", "reason": "it never came"},
        ),
        ("I need a manager: your clerk was rude to me", "escalate", {"reason": "your clerk was rude to me"}),
        ("Let a human look at ORD-55 because I was charged twice", "escalate", {"reason": "I was charged twice"}),
    ],
)
def test_a_keyword_picks_the_tool_and_the_patterns_its_arguments(request_text, tool, arguments):
    assert decide(request_text) == ToolCall(tool, arguments)


@pytest.mark.parametrize(
    "request_text",
    [
        "",
        "hello there",
        "Where is my order?",  # no id
        "Where is order 7?",  # one digit is no id
        "Refund ORD-77",  # no reason
        "Refund my lamp because it is broken.",  # no id
        "Get me a manager",  # no reason
        "ORD-1234",  # no keyword
    ],
)
def test_without_a_keyword_an_id_or_a_reason_nothing_is_called(request_text):
    assert isinstance(decide(request_text), NoTool)


def test_the_longest_reason_wins():
    assert decide("Refund ORD-77: too small. Because the glass is cracked. Sorry: cracks").arguments["reason"] == "the glass is cracked"


pieces = st.sampled_from(["refund", "manager", "where", " ORD-12 ", " because ", ": ", '"', "\\", "\n", "{", "🙂"]) | st.text(max_size=8)


@pytest.mark.parametrize("router", BASELINES)
@given(parts=st.lists(pieces, max_size=12))
def test_outputs_are_legal_whatever_the_request(router, parts):
    decision = parse_tool_call(router(["".join(parts)])[0], DESK)
    assert not isinstance(decision, InvalidOutput), decision
    if isinstance(decision, ToolCall) and "".join(parts).strip():  # of nothing, always_call has to make something up
        assert all(value in "".join(parts) for value in decision.arguments.values())


@pytest.mark.parametrize("reason", [" " * 8, "a" * 10_001], ids=["blank", "over-long"])
def test_a_reason_that_no_call_may_hold_is_no_reason(reason):
    assert not isinstance(decide(f"manager because {reason}"), InvalidOutput)


def test_outputs_on_the_test_split_are_legal_and_some_are_right():
    test = load_examples("test")
    report = score(keyword_router([example.request for example in test]), test, DESK)
    assert report.valid_tool_call_rate.value == 1.0
    assert 0.2 < report.exact_accuracy.value < 0.8
    assert all(report.outcomes[outcome] for outcome in ("right call", "right no_tool", "false call", "missed call"))


def test_always_call_calls_whatever_is_said():
    toolset = support_desk()
    said = ["hello", "", "Where is A-12?", "no refund for B-34 please", "\ud800", " " * 30, "x" * 5000]
    decisions = [parse_tool_call(output, toolset) for output in always_call(said)]
    assert [decision.tool for decision in decisions] == [
        "escalate", "escalate", "track_order", "request_refund", "escalate", "escalate", "escalate",
    ]  # fmt: skip
    report = score(always_call([example.request for example in load_examples("test")]), load_examples("test"), toolset)
    assert (report.valid_tool_call_rate.value, report.missed_calls.value, report.false_calls_on_no_tool.value) == (1.0, 0.0, 1.0)
