"""Exercises checked: one `check_<name>(function)` for each exercise, which prints what it found.

It prints `not attempted yet` while the function raises NotImplementedError, `ok` when it does all that was asked, and otherwise
the first case that differs, with what was expected and what came.
"""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from helpers.examples import CALL_KINDS, Example, audit_labels, audit_leakage, check_target, load_examples
from helpers.negatives import KINDS, reason_for
from helpers.parsing import Decision, InvalidOutput, NoTool, ToolCall, parse_tool_call
from helpers.tools import Tool, Toolset, support_desk

Case = tuple[str, Any, Any]  # what was tried, what was expected, what came
Check = Callable[[Callable], Iterator[Case]]


def _exercise(cases: Check) -> Callable[[Callable], None]:
    """Turns a generator of cases into a checker that prints the first case whose expected and got differ."""

    @wraps(cases)
    def check(function: Callable) -> None:
        tried = "running it"
        try:
            for tried, expected, got in cases(function):
                if expected != got:
                    print(f"{tried}\n  expected: {expected!r}\n  got:      {got!r}")
                    return
        except NotImplementedError:
            print("not attempted yet")
        except Exception as error:  # the reader's code may raise anything, and the notebook goes on
            print(f"after: {tried}\n  expected: no exception\n  got:      {type(error).__name__}: {error}")
        else:
            print("ok")

    return check


# --- notebook 01 ------------------------------------------------------------------------------------------------------


@_exercise
def check_cancel_subscription(make_tool: Callable[[], type[Tool]]) -> Iterator[Case]:
    """`make_tool()` returns a tool `cancel_subscription(subscription_id: str, immediately?: bool)`."""
    tool = make_tool()
    yield "what the function returns", "a subclass of Tool", "a subclass of Tool" if _is_tool(tool) else repr(tool)
    catalogue = Toolset(tool)
    yield "names in the catalogue", ["cancel_subscription"], catalogue.names
    line = catalogue["cancel_subscription"].signature()
    yield "its line in the system message", "cancel_subscription(subscription_id: str, immediately?: bool)", line.rsplit("): ", 1)[0] + ")"
    for arguments, legal in (
        ('{"subscription_id":"SUB-7"}', True),
        ('{"subscription_id":"SUB-7","immediately":true}', True),
        ('{"subscription_id":"SUB-7","immediately":"yes"}', False),
        ('{"subscription_id":"SUB-7","immediately":null}', False),
        ('{"immediately":true}', False),
    ):
        decision = parse_tool_call(f'{{"tool":"cancel_subscription","arguments":{arguments}}}', catalogue)
        yield f"parsing the arguments {arguments}", _legal(legal), _legal(isinstance(decision, ToolCall))
    yield "immediately when the caller leaves it out", False, tool(subscription_id="SUB-7").immediately


@_exercise
def check_reply(reply: Callable[[Decision], str]) -> Iterator[Case]:
    """`reply(decision)` answers a refund with a question, any other call with its tool, a refusal with its reason, the rest with a plea."""
    refund = ToolCall("request_refund", {"order_id": "A-12", "reason": "it hums"})
    for decision, expected in (
        (refund, "Shall I refund A-12?"),
        (ToolCall("track_order", {"order_id": "A-12"}), "Calling track_order."),
        (ToolCall("escalate", {"reason": "a stolen parcel"}), "Calling escalate."),
        (NoTool("small talk"), "No action taken: small talk."),
        (InvalidOutput("not_json", "Sure!"), "Could you put that in other words?"),
        (InvalidOutput("unknown_tool", '{"tool":"request_refunds"}'), "Could you put that in other words?"),
    ):
        yield f"reply({decision!r})", expected, reply(decision)


# --- notebook 02 ------------------------------------------------------------------------------------------------------


@_exercise
def check_my_negatives(my_negatives: Callable[[], list[dict]]) -> Iterator[Case]:
    """`my_negatives()` returns seven rows, one of each kind, legal, labelled by the convention and unlike any training row."""
    rows = my_negatives()
    yield "kinds of the rows, sorted", sorted(KINDS), sorted(str(row.get("kind")) for row in rows)
    yield "ids used twice", [], sorted({row["id"] for row in rows if [other["id"] for other in rows].count(row["id"]) > 1})
    examples = [Example.model_validate(row) for row in rows]
    desk = support_desk()
    for example in examples:
        check_target(example, desk)
        yield f"target of {example.id!r} ({example.kind})", "no_tool", example.target.tool
        expected = _reasons(example.kind, desk)
        got = example.target.reason
        yield f"reason of {example.id!r} ({example.kind})", " or ".join(expected), " or ".join(expected) if got in expected else got
    findings = audit_labels(examples) + audit_leakage(load_examples("train"), examples)
    yield "what the audits find", [], [f"{finding.audit}: {finding.detail}" for finding in findings]


@_exercise
def check_invented_arguments(invented_arguments: Callable[[Example], list[str]]) -> Iterator[Case]:
    """`invented_arguments(example)` names, sorted, the arguments whose value is not in the request letter for letter."""
    for request, target, expected in (
        ("Where is A-12?", {"tool": "track_order", "arguments": {"order_id": "A-12"}}, []),
        ("Where is a-12?", {"tool": "track_order", "arguments": {"order_id": "A-12"}}, ["order_id"]),
        ("Where is it?", {"tool": "track_order", "arguments": {"order_id": "A-12"}}, ["order_id"]),
        ("Refund A-12.", {"tool": "request_refund", "arguments": {"reason": "broken", "order_id": "A-12"}}, ["reason"]),
        ("Refund it.", {"tool": "request_refund", "arguments": {"reason": "broken", "order_id": "A-12"}}, ["order_id", "reason"]),
        ("Hello there", {"tool": "no_tool", "reason": "small talk"}, []),
    ):
        example = Example.model_validate({"id": "case", "request": request, "target": target, "kind": "direct"})
        yield f"request {request!r}, target {target}", expected, invented_arguments(example)
    calls = [row for row in load_examples("train") if row.kind in CALL_KINDS]
    yield "ids of training calls with an invented argument", [], [row.id for row in calls if invented_arguments(row)]


def _is_tool(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Tool)


def _legal(legal: bool) -> str:
    return "a legal call" if legal else "an invalid output"


def _reasons(kind: str, toolset: Toolset) -> list[str]:
    """Every reason that the convention allows for a negative of this kind."""
    if kind != "underspecified":
        return [reason_for(kind)]
    reasons = []
    for name in toolset.names:
        required = toolset[name].parameters["required"]
        gaps = [[argument] for argument in required] + ([required] if len(required) > 1 else [])
        reasons += [reason_for(kind, name, missing) for missing in gaps]
    return reasons


# --- notebook 03 ------------------------------------------------------------------------------------------------------


@_exercise
def check_saved_share(saved_share: Callable[[int, list[int]], float]) -> Iterator[Case]:
    """`saved_share(prefix, rows)`: the share of tokens saved against padding prefix and row to the longest row."""
    for prefix, rows, expected in ((100, [20, 20], 1 - 140 / 240), (90, [10, 30, 20], 1 - 150 / 360), (50, [25], 0.0), (0, [5, 10], 0.25)):
        yield f"saved_share({prefix}, {rows})", round(expected, 6), round(saved_share(prefix, rows), 6)


# --- notebook 04 ------------------------------------------------------------------------------------------------------


@_exercise
def check_missed_calls(missed_calls: Callable[[list[Decision], list[str]], float]) -> Iterator[Case]:
    """`missed_calls(decisions, gold)`: refusals on rows whose gold is a call, over those rows."""
    call, refusal, invalid = ToolCall("track_order", {"order_id": "A-1"}), NoTool("small talk"), InvalidOutput("not_json", "?")
    for decisions, gold, expected in (
        ([call, refusal], ["track_order", "track_order"], 0.5),
        ([refusal, refusal, call], ["no_tool", "escalate", "escalate"], 0.5),
        ([invalid, call], ["track_order", "track_order"], 0.0),
        ([call, refusal, refusal, refusal], ["no_tool", "no_tool", "escalate", "track_order"], 1.0),
    ):
        yield f"missed_calls({decisions}, {gold})", expected, missed_calls(decisions, gold)


# --- notebook 05 ------------------------------------------------------------------------------------------------------


@_exercise
def check_coverage_and_risk(coverage_and_risk: Callable[[list[float], list[bool], float], tuple[float, float]]) -> Iterator[Case]:
    """`coverage_and_risk(confidence, right, threshold)`: the share of calls kept, and the share of those that is wrong."""
    sure, right = [0.9, 0.8, 0.5, 0.4], [True, False, True, False]
    for threshold, expected in ((0.0, (1.0, 0.5)), (0.5, (0.75, 1 / 3)), (0.8, (0.5, 0.5)), (0.85, (0.25, 0.0)), (0.95, (0.0, 0.0))):
        got = coverage_and_risk(sure, right, threshold)
        close = isinstance(got, tuple) and len(got) == 2 and all(abs(a - b) < 1e-9 for a, b in zip(got, expected, strict=True))
        yield f"{right} with confidences {sure} at {threshold}", expected, expected if close else got
