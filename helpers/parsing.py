"""Text to decision: what a model wrote is a legal call, a legal refusal, or invalid. It is never repaired and never guessed at."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from helpers.tools import MAX_STRING, NO_TOOL, Toolset

Problem = Literal["not_json", "not_an_object", "unknown_tool", "bad_arguments", "bad_no_tool"]


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool in the catalogue, its arguments legal for that tool."""

    tool: str
    arguments: dict[str, Any]

    def to_json(self) -> str:
        return _dumps({"tool": self.tool, "arguments": self.arguments})


@dataclass(frozen=True)
class NoTool:
    """The explicit refusal: no tool fits, and why."""

    reason: str

    @property
    def tool(self) -> str:
        return NO_TOOL

    def to_json(self) -> str:
        return _dumps({"tool": NO_TOOL, "reason": self.reason})


@dataclass(frozen=True)
class InvalidOutput:
    """Anything else: `problem` is its class, `text` the output as it came, `detail` says what was wrong in words."""

    problem: Problem
    text: str
    detail: str = field(default="", compare=False)

    @property
    def tool(self) -> None:
        return None


Decision = ToolCall | NoTool | InvalidOutput


class _Refused(ValueError):
    """JSON that Python's parser takes and the standard, or a careful reader, does not."""


def parse_tool_call(text: str, toolset: Toolset) -> Decision:
    """The decision that `text` states. Never raises on any string.

    Legal is exactly one JSON object, white space around it allowed, in one of the two forms that `toolset.output_schema()`
    describes. Prose around it, code fences, duplicate keys, NaN, infinities, lone surrogates, extra keys, wrong types and blank
    strings are all invalid: a wrong call costs more than a failed parse.

    >>> from helpers.tools import support_desk
    >>> parse_tool_call('{"tool":"track_order","arguments":{"order_id":"A-1"}}', support_desk())
    ToolCall(tool='track_order', arguments={'order_id': 'A-1'})
    >>> parse_tool_call('Sure! {"tool":"no_tool","reason":"hi"}', support_desk()).problem
    'not_json'
    """
    try:
        data = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_refuse_constant, parse_float=_finite)
        _dumps(data).encode("utf-8")  # fails on lone surrogates, which no system downstream could store
    except (ValueError, RecursionError) as error:  # ValueError covers JSON, Unicode and over-long numbers
        return InvalidOutput("not_json", text, str(error)[:200])
    if not isinstance(data, dict):
        return InvalidOutput("not_an_object", text, f"expected one JSON object, got {type(data).__name__}")
    tool = data.get("tool")
    if tool == NO_TOOL and isinstance(tool, str):
        return _refusal(data, text)
    if tool not in toolset:
        named = f"{tool!r:.80}" if "tool" in data else "nothing"
        return InvalidOutput("unknown_tool", text, f"the key 'tool' names {named}; legal are {', '.join(toolset.names)} and {NO_TOOL}")
    if data.keys() != {"tool", "arguments"}:
        return InvalidOutput("bad_arguments", text, f"a call has the keys tool and arguments, got {sorted(data)!r:.120}")
    try:
        problem = toolset[tool].problem_with(data["arguments"])
    except RecursionError:
        problem = "arguments: nested too deeply to check"
    if problem:
        return InvalidOutput("bad_arguments", text, problem)
    return ToolCall(tool, data["arguments"])


def same_json(left: Any, right: Any) -> bool:
    """Equality as JSON sees it: `True` is not 1, 5 equals 5.0, the order of keys is free and that of lists is not.

    >>> same_json({"a": 5, "b": [1, 2]}, {"b": [1, 2], "a": 5.0}), same_json(True, 1)
    (True, False)
    """
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    return left == right


def _refusal(data: dict, text: str) -> NoTool | InvalidOutput:
    reason = data.get("reason")
    if data.keys() != {"tool", "reason"}:
        return InvalidOutput("bad_no_tool", text, f"{NO_TOOL} has the keys tool and reason, got {sorted(data)!r:.120}")
    if not isinstance(reason, str) or not reason.strip() or len(reason) > MAX_STRING:
        return InvalidOutput("bad_no_tool", text, f"reason must be a string of 1 to {MAX_STRING} characters that says something")
    return NoTool(reason)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Refused(f"the key {key!r:.80} stands twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> None:
    raise _Refused(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _Refused(f"{digits[:40]} is too large for a number")
    return value
