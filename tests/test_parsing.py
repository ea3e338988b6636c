"""Text to decision: what is legal, which of the five problems the rest has, and that no string makes the parser raise."""

import json
import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from helpers.parsing import InvalidOutput, NoTool, ToolCall, parse_tool_call, same_json
from helpers.tools import Toolset, support_desk

DESK = support_desk()
TRACK = '{"tool":"track_order","arguments":{"order_id":"A-1"}}'
TYPED = Toolset.from_openai(
    [
        {
            "type": "function",
            "function": {
                "name": "book",
                "description": "Book a table.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "seats": {"type": "integer", "minimum": 1},
                        "tip": {"type": "number"},
                        "area": {"enum": ["in", "out"]},
                        "outdoors": {"type": "boolean"},
                        "note": {},
                    },
                    "required": ["name", "seats"],
                },
            },
        }
    ]
)


def parse(text, toolset=DESK):
    """The decision, after what must hold of every decision: one of three types, an invalid one carrying its text."""
    decision = parse_tool_call(text, toolset)
    assert isinstance(decision, ToolCall | NoTool | InvalidOutput)
    if isinstance(decision, InvalidOutput):
        assert decision.problem in {"not_json", "not_an_object", "unknown_tool", "bad_arguments", "bad_no_tool"}
        assert decision.text is text
        assert decision.detail and len(decision.detail) < 400
    return decision


def problem(text, toolset=DESK):
    decision = parse(text, toolset)
    return decision.problem if isinstance(decision, InvalidOutput) else None


def track(order_id):
    """The text of a track_order call with the given JSON text as its argument."""
    return '{"tool":"track_order","arguments":{"order_id":' + order_id + "}}"


def book(**changes):
    return json.dumps({"tool": "book", "arguments": {"name": "Ann", "seats": 2} | changes})


# --- what is legal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        (TRACK, ToolCall("track_order", {"order_id": "A-1"})),
        (
            '{"arguments": {"reason": "torn", "order_id": "A-1"}, "tool": "request_refund"}',
            ToolCall("request_refund", {"order_id": "A-1", "reason": "torn"}),
        ),
        ('{"tool":"escalate","arguments":{"reason":"ça ne va pas 🙁"}}', ToolCall("escalate", {"reason": "ça ne va pas 🙁"})),
        ('{"tool":"escalate","arguments":{"reason":"\\u00e7a \\ud83d\\ude41"}}', ToolCall("escalate", {"reason": "ça 🙁"})),
        (
            '{"tool":"escalate","arguments":{"reason":"say \\"hi\\" {not} [json]"}}',
            ToolCall("escalate", {"reason": 'say "hi" {not} [json]'}),
        ),
        ('{"tool":"no_tool","reason":"small talk"}', NoTool("small talk")),
        ('{"reason":"small talk","tool":"no_tool"}', NoTool("small talk")),
        ("\n \t" + TRACK + "\r\n", ToolCall("track_order", {"order_id": "A-1"})),
        (TRACK.replace("A-1", "x" * 10_000), ToolCall("track_order", {"order_id": "x" * 10_000})),
    ],
)
def test_legal_outputs_are_read_as_they_stand(text, decision):
    assert parse(text) == decision


def test_every_decision_answers_which_tool():
    assert ToolCall("track_order", {"order_id": "A-1"}).tool == "track_order"
    assert NoTool("small talk").tool == "no_tool"
    assert InvalidOutput("not_json", "Hi!").tool is None


def test_decisions_are_frozen():
    for decision, field in ((ToolCall("f", {}), "tool"), (NoTool("r"), "reason"), (InvalidOutput("not_json", "x"), "problem")):
        with pytest.raises(FrozenInstanceError):
            setattr(decision, field, "other")


def test_the_detail_of_an_invalid_output_is_not_part_of_what_it_equals():
    assert InvalidOutput("not_json", "Hi!", "one wording") == InvalidOutput("not_json", "Hi!", "another")
    assert InvalidOutput("not_json", "Hi!") != InvalidOutput("not_json", "Ho!")


def test_decisions_are_written_as_compact_json_with_letters_kept():
    assert ToolCall("escalate", {"reason": "ça"}).to_json() == '{"tool":"escalate","arguments":{"reason":"ça"}}'
    assert NoTool("small talk").to_json() == '{"tool":"no_tool","reason":"small talk"}'


# --- the five problems ------------------------------------------------------------------------------------------------

NOT_JSON = {
    "nothing": "",
    "white space": " \n",
    "prose": "I cannot help with that.",
    "prose before": "Sure! " + TRACK,
    "prose after": TRACK + " Done.",
    "two objects": TRACK + TRACK,
    "two lines": TRACK + "\n" + TRACK,
    "code fence": "```json\n" + TRACK + "\n```",
    "byte order mark": "\ufeff" + TRACK,
    "single quotes": TRACK.replace('"', "'"),
    "cut short": TRACK[:-1],
    "one bracket too many": TRACK + "}",
    "trailing comma": '{"tool":"no_tool","reason":"hi",}',
    "comment": '{"tool":"no_tool","reason":"hi"} // hi',
    "line break in a string": '{"tool":"no_tool","reason":"a\nb"}',
    "NUL": "\x00",
    "NUL after": TRACK + "\x00",
    "no-break space around": "\u00a0" + TRACK,
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "1e999": "1e999",
    "NaN as an argument": track("NaN"),
    "Infinity as an argument": track("Infinity"),
    "1e999 as an argument": track("1e999"),
    "-1e999 as an argument": track("-1e999"),
    "None": "None",
    "Python's True": track("True"),
    "key twice": '{"tool":"no_tool","tool":"no_tool","reason":"hi"}',
    "key twice, once escaped": '{"tool":"track_order","\\u0074ool":"escalate","arguments":{"reason":"hi"}}',
    "argument twice": '{"tool":"track_order","arguments":{"order_id":"A-1","order_id":"A-2"}}',
    "lone surrogate": '{"tool":"no_tool","reason":"\ud800"}',
    "lone surrogate, escaped": '{"tool":"no_tool","reason":"\\ud800"}',
    "lone low surrogate, escaped": track('"A-1\\udc00"'),
    "lone surrogate in a key": '{"tool":"no_tool","reason":"hi","\\udfff":1}',
    "surrogates the wrong way round": '{"tool":"no_tool","reason":"\\ude41\\ud83d"}',
    "100,000 brackets": "[" * 100_000,
    "100,000 closed brackets": "[" * 100_000 + "]" * 100_000,
    "100,000 objects": '{"a":' * 100_000,
    "100,000 brackets as the tool": '{"tool":' + "[" * 100_000 + "]" * 100_000 + "}",
    "100,000 brackets as an argument": track("[" * 100_000 + "]" * 100_000),
    "5,000 digits": "9" * 5_000,
    "-5,000 digits": "-" + "9" * 5_000,
    "5,000 digits as an argument": track("9" * 5_000),
    "5,000 digits and a fraction": track("9" * 5_000 + ".5"),
    "1 MB of prose": "a" * 1_000_000,
    "1 MB string, never closed": track('"' + "a" * 1_000_000),
}
NOT_AN_OBJECT = {
    "list": "[]",
    "list of a call": f"[{TRACK}]",
    "null": "null",
    "true": "true",
    "number": "5",
    "float": "-0.5e3",
    "string": '"no_tool"',
    "a call inside a string": json.dumps(TRACK),
    "200 brackets": "[" * 200 + "]" * 200,
    "1 MB string": '"' + "a" * 1_000_000 + '"',
    "1 MB list": "[" + "0," * 500_000 + "0]",
}
UNKNOWN_TOOL = {
    "empty": "{}",
    "no tool named": '{"arguments":{"order_id":"A-1"}}',
    "another tool": TRACK.replace("track_order", "cancel_order"),
    "other case": TRACK.replace("track_order", "Track_Order"),
    "the class's name": TRACK.replace("track_order", "TrackOrder"),
    "space around": TRACK.replace("track_order", " track_order"),
    "no-tool": '{"tool":"no-tool","reason":"hi"}',
    "blank": '{"tool":"","reason":"hi"}',
    "null": '{"tool":null,"reason":"hi"}',
    "list": '{"tool":["x"]}',
    "list of a tool": '{"tool":["track_order"],"arguments":{"order_id":"A-1"}}',
    "object": '{"tool":{"name":"track_order"}}',
    "number": '{"tool":1}',
    "boolean": '{"tool":true}',
    "200 brackets": '{"tool":' + "[" * 200 + "]" * 200 + "}",
    "1 MB name": '{"tool":"' + "a" * 1_000_000 + '"}',
    "OpenAI's form": '{"name":"track_order","arguments":{"order_id":"A-1"}}',
}
BAD_ARGUMENTS = {
    "none": '{"tool":"track_order"}',
    "null": '{"tool":"track_order","arguments":null}',
    "string": '{"tool":"track_order","arguments":"A-1"}',
    "JSON in a string": '{"tool":"track_order","arguments":"{\\"order_id\\":\\"A-1\\"}"}',
    "list": '{"tool":"track_order","arguments":["A-1"]}',
    "empty": '{"tool":"track_order","arguments":{}}',
    "beside, not inside": '{"tool":"track_order","order_id":"A-1"}',
    "one missing": '{"tool":"request_refund","arguments":{"order_id":"A-1"}}',
    "one too many": '{"tool":"track_order","arguments":{"order_id":"A-1","reason":"late"}}',
    "key beside them": TRACK[:-1] + ',"confidence":0.9}',
    "reason beside them": TRACK[:-1] + ',"reason":"late"}',
    "other case": '{"tool":"track_order","arguments":{"Order_ID":"A-1"}}',
    "number for text": track("5"),
    "true for text": track("true"),
    "null for text": track("null"),
    "list for text": track('["A-1"]'),
    "object for text": track("{}"),
    "brackets for text": track("[" * 200 + "]" * 200),
    "blank text": track('""'),
    "spaces": track('" "'),
    "escaped white space": track('"\\n\\t\\u00a0"'),
    "10,001 characters": track('"' + "x" * 10_001 + '"'),
    "1 MB string": track('"' + "x" * 1_000_000 + '"'),
    "1 MB key": '{"tool":"track_order","arguments":{"' + "x" * 1_000_000 + '":1}}',
    "4,000 digits": track("9" * 4_000),
}
BAD_NO_TOOL = {
    "without reason": '{"tool":"no_tool"}',
    "blank reason": '{"tool":"no_tool","reason":""}',
    "spaces for a reason": '{"tool":"no_tool","reason":" \\n"}',
    "null for a reason": '{"tool":"no_tool","reason":null}',
    "number for a reason": '{"tool":"no_tool","reason":5}',
    "list for a reason": '{"tool":"no_tool","reason":["hi"]}',
    "200 brackets for a reason": '{"tool":"no_tool","reason":' + "[" * 200 + "]" * 200 + "}",
    "reason in the arguments": '{"tool":"no_tool","arguments":{"reason":"hi"}}',
    "arguments beside the reason": '{"tool":"no_tool","reason":"hi","arguments":{}}',
    "one key too many": '{"tool":"no_tool","reason":"hi","confidence":1}',
    "10,001 characters": '{"tool":"no_tool","reason":"' + "x" * 10_001 + '"}',
    "1 MB reason": '{"tool":"no_tool","reason":"' + "x" * 1_000_000 + '"}',
}


@pytest.mark.parametrize("text", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_no_json_text_is_not_json(text):
    assert problem(text) == "not_json"


@pytest.mark.parametrize("text", NOT_AN_OBJECT.values(), ids=NOT_AN_OBJECT.keys())
def test_json_that_is_no_object_is_not_an_object(text):
    assert problem(text) == "not_an_object"


@pytest.mark.parametrize("text", UNKNOWN_TOOL.values(), ids=UNKNOWN_TOOL.keys())
def test_an_object_without_a_tool_of_the_catalogue_is_unknown_tool(text):
    assert problem(text) == "unknown_tool"


@pytest.mark.parametrize("text", BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS.keys())
def test_a_known_tool_with_anything_but_its_arguments_is_bad_arguments(text):
    assert problem(text) == "bad_arguments"


@pytest.mark.parametrize("text", BAD_NO_TOOL.values(), ids=BAD_NO_TOOL.keys())
def test_no_tool_with_anything_but_a_reason_is_bad_no_tool(text):
    assert problem(text) == "bad_no_tool"


def test_the_detail_says_what_was_wrong_in_words():
    assert parse("NaN").detail == "NaN is not JSON"
    assert parse('{"a":1,"a":2}').detail == "the key 'a' stands twice"
    assert parse("1e999").detail == "1e999 is too large for a number"
    assert parse("[]").detail == "expected one JSON object, got list"
    assert parse('{"tool":"cancel"}').detail == "the key 'tool' names 'cancel'; legal are track_order, request_refund, escalate and no_tool"
    assert parse("{}").detail == "the key 'tool' names nothing; legal are track_order, request_refund, escalate and no_tool"
    assert parse('{"tool":"escalate"}').detail == "a call has the keys tool and arguments, got ['tool']"
    assert parse(track("5")).detail == "arguments['order_id']: 5 is not of type 'string'"
    assert parse('{"tool":"no_tool"}').detail == "no_tool has the keys tool and reason, got ['tool']"


# --- typed arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"seats": 1}, {"tip": 0.5}, {"tip": 2}, {"area": "in"}, {"outdoors": False}, {"note": [[[{"a": None}]]]}, {"note": ""}]
)
def test_arguments_of_the_declared_type_are_taken_unchanged(changes):
    text = book(**changes)
    assert parse(text, TYPED) == ToolCall("book", json.loads(text)["arguments"])


@pytest.mark.parametrize(
    "changes",
    [
        {"seats": "2"},
        {"seats": True},
        {"seats": 2.5},
        {"seats": 0},
        {"seats": None},
        {"name": 5},
        {"name": ["Ann"]},
        {"tip": "5"},
        {"tip": True},
        {"area": "IN"},
        {"area": ["in"]},
        {"outdoors": 1},
        {"outdoors": "true"},
        {"when": "now"},
    ],
    ids=json.dumps,
)
def test_arguments_of_another_type_are_never_converted(changes):
    assert problem(book(**changes), TYPED) == "bad_arguments"


@pytest.mark.parametrize("depth", [1, 10, 100])
def test_brackets_nested_within_reason_are_kept_where_anything_goes(depth):
    text = '{"tool":"book","arguments":{"name":"Ann","seats":2,"note":' + "[" * depth + "]" * depth + "}}"
    assert isinstance(parse(text, TYPED), ToolCall)


@pytest.mark.parametrize(
    "place",
    [
        '{"tool":%s}',
        '{"tool":"no_tool","reason":%s}',
        '{"tool":"track_order","arguments":{"order_id":%s}}',
        '{"tool":"book","arguments":{"name":"Ann","seats":2,"note":%s}}',
    ],
)
@pytest.mark.parametrize("toolset", [DESK, TYPED], ids=repr)
def test_no_depth_of_nesting_raises_anywhere(place, toolset):
    near_pythons_limit = range(900, 1_010, 3)  # where the JSON parser passes and what follows may not
    for depth in (300, 500, *near_pythons_limit, 2_000, 5_000, 20_000):
        parse(place % ("[" * depth + "]" * depth), toolset)
        parse(place % ('{"a":' * depth + "1" + "}" * depth), toolset)


def test_nesting_too_deep_to_compare_is_bad_arguments():
    parameters = {"type": "object", "properties": {"list": {"type": "array", "uniqueItems": True}}}
    toolset = Toolset.from_mcp([{"name": "f", "inputSchema": parameters}])
    for depth in (10, 600):
        item = "[" * depth + "]" * depth
        assert problem(f'{{"tool":"f","arguments":{{"list":[{item},{item}]}}}}', toolset) == "bad_arguments"
        assert problem(f'{{"tool":"f","arguments":{{"list":[{item}]}}}}', toolset) is None


# --- naive parsing raises, ours does not --------------------------------------------------------------------------------


def naive_tool(text):
    return json.loads(text).get("tool")


@pytest.mark.parametrize(
    ("text", "raised", "ours"),
    [
        ('["track_order"]', AttributeError, "not_an_object"),
        ("null", AttributeError, "not_an_object"),
        ("[" * 100_000, RecursionError, "not_json"),
        ('{"tool":' + "9" * 5_000 + "}", ValueError, "not_json"),
    ],
    ids=["list", "null", "deep nesting", "huge number"],
)
def test_naive_parsing_raises_where_ours_names_a_problem(text, raised, ours):
    with pytest.raises(raised) as caught:
        naive_tool(text)
    assert not isinstance(caught.value, json.JSONDecodeError)  # so that guarding against broken JSON alone would not have helped
    assert problem(text) == ours


def test_naive_lookup_of_a_list_as_tool_raises_where_ours_names_a_problem():
    text = '{"tool":["x"]}'
    with pytest.raises(TypeError):
        {"track_order": 1}.get(naive_tool(text))
    assert problem(text) == "unknown_tool"


# --- any string at all --------------------------------------------------------------------------------------------------

ANY_TEXT = st.text(st.characters(), max_size=60)  # lone surrogates included
BRACKETS = st.text(st.sampled_from('[]{}:,"\\ 0e-+.truefalsn\ud800'), max_size=60)


@settings(max_examples=100)
@given(st.one_of(ANY_TEXT, BRACKETS, st.builds("{}{}{}".format, ANY_TEXT, st.just(TRACK), ANY_TEXT)))
@example("\ud800")
@example("\udfff" + TRACK)
def test_parsing_never_raises(text):
    if not isinstance(parse(text), InvalidOutput):
        json.loads(text)


@settings(max_examples=100)
@given(st.integers(0, len(TRACK)), st.integers(0, 6), st.one_of(BRACKETS, ANY_TEXT))
def test_parsing_never_raises_on_a_damaged_call(start, length, inserted):
    text = TRACK[:start] + inserted + TRACK[start + length :]
    decision = parse(text)
    if isinstance(decision, ToolCall):
        assert json.loads(text) == {"tool": decision.tool, "arguments": decision.arguments}


@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip))
def test_any_text_that_says_something_survives_as_an_argument_and_as_a_reason(words):
    call, refusal = ToolCall("escalate", {"reason": words}), NoTool(words)
    assert parse(call.to_json()) == call
    assert parse(refusal.to_json()) == refusal
    assert parse(json.dumps({"tool": "no_tool", "reason": words})) == refusal


# --- two outside judges: JSON Schema, and the rules said again for the support desk ---------------------------------------

FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), FINITE, st.text(max_size=5), st.sampled_from(["A-1", "", " ", "in", "Ann"]))
JSON_VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3), max_leaves=8)
SAID = st.sampled_from(["A-1", "late", "Ann"])
ARGUMENT_NAMES = st.sampled_from(["order_id", "reason", "name", "seats", "tip", "area", "outdoors", "note", "extra"])
ARGUMENTS = st.one_of(
    st.fixed_dictionaries({"order_id": SAID}),
    st.fixed_dictionaries({"order_id": SAID, "reason": SAID | SCALARS}),
    st.fixed_dictionaries({"reason": SAID | SCALARS}),
    st.fixed_dictionaries(
        {"name": SAID, "seats": st.integers(-1, 9) | FINITE},
        optional={"tip": SCALARS, "area": SAID | st.just("in"), "outdoors": st.booleans(), "note": JSON_VALUES},
    ),
    st.dictionaries(ARGUMENT_NAMES, SCALARS, max_size=3),
    JSON_VALUES,
)
TOOLS = st.sampled_from(["track_order", "request_refund", "escalate", "book", "no_tool"])
LEGAL = st.one_of(
    st.fixed_dictionaries({"tool": st.just("track_order"), "arguments": st.fixed_dictionaries({"order_id": SAID})}),
    st.fixed_dictionaries({"tool": st.just("request_refund"), "arguments": st.fixed_dictionaries({"order_id": SAID, "reason": SAID})}),
    st.fixed_dictionaries({"tool": st.just("book"), "arguments": st.fixed_dictionaries({"name": SAID, "seats": st.integers(1, 9)})}),
    st.fixed_dictionaries({"tool": st.just("no_tool"), "reason": SAID}),
)
NEAR = st.one_of(
    st.fixed_dictionaries({"tool": TOOLS, "arguments": ARGUMENTS}),
    st.fixed_dictionaries({"tool": st.just("no_tool"), "reason": SCALARS}),
    st.fixed_dictionaries({}, optional={"tool": TOOLS | JSON_VALUES, "arguments": ARGUMENTS, "reason": SAID, "extra": SCALARS}),
    JSON_VALUES,
)
OUTPUTS = st.integers(0, 2).flatmap(lambda pick: NEAR if pick else LEGAL)
NEEDS = {"track_order": {"order_id"}, "request_refund": {"order_id", "reason"}, "escalate": {"reason"}}


def says_something(value):
    return isinstance(value, str) and value.strip() != ""


def legal_at_the_support_desk(value):
    """The rules of the support desk in plain Python."""
    if not isinstance(value, dict) or not isinstance(value.get("tool"), str):
        return False
    if value["tool"] == "no_tool":
        return set(value) == {"tool", "reason"} and says_something(value["reason"])
    arguments = value.get("arguments")
    if set(value) != {"tool", "arguments"} or not isinstance(arguments, dict):
        return False
    return set(arguments) == NEEDS.get(value["tool"]) and all(map(says_something, arguments.values()))


@pytest.mark.parametrize("toolset", [DESK, TYPED], ids=repr)
@settings(max_examples=100)
@given(value=OUTPUTS, escaped=st.booleans())
@example(value={"tool": "track_order", "arguments": {"order_id": "A-1"}}, escaped=True)
@example(value={"tool": "request_refund", "arguments": {"order_id": "A-1", "reason": "late"}}, escaped=True)
@example(value={"tool": "escalate", "arguments": {"reason": "\u2003\x1f"}}, escaped=True)
@example(value={"tool": "no_tool", "reason": "late"}, escaped=False)
@example(value={"tool": "book", "arguments": {"name": "Ann", "seats": 2.0, "tip": 1, "area": "out"}}, escaped=False)
@example(value={"tool": "book", "arguments": {"name": "Ann", "seats": True}}, escaped=False)
def test_the_parser_takes_exactly_what_the_output_schema_takes(toolset, value, escaped):
    decision = parse(json.dumps(value, ensure_ascii=escaped), toolset)
    legal = Draft202012Validator(toolset.output_schema()).is_valid(value)
    assert (not isinstance(decision, InvalidOutput)) == legal
    if legal:
        assert json.loads(decision.to_json()) == value
    if toolset is DESK:
        assert legal == legal_at_the_support_desk(value)


def test_the_generated_values_are_legal_often_enough_to_mean_something():
    seen = []

    @settings(max_examples=100)
    @given(OUTPUTS)
    def collect(value):
        seen.append(type(parse(json.dumps(value))).__name__)

    collect()
    assert min(seen.count(kind) for kind in ("ToolCall", "NoTool", "InvalidOutput")) >= 5


# --- equality as JSON sees it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (5, 5.0),
        ("a", "a"),
        (None, None),
        (True, True),
        ({"a": 1, "b": [1, {"c": 2.0}]}, {"b": [1.0, {"c": 2}], "a": 1}),
        ({}, {}),
        ([], []),
    ],
)
def test_equal_json_values_are_the_same(left, right):
    assert same_json(left, right) and same_json(right, left)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (True, 1),
        (False, 0),
        (False, None),
        (True, "true"),
        (5, "5"),
        ("a", "A"),
        ("a", "a "),
        ([1, 2], [2, 1]),
        ([1], [1, 1]),
        ([True], [1]),
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": 1, "b": None}),
        ({"a": {"b": False}}, {"a": {"b": 0}}),
        ([], {}),
        (None, ""),
    ],
)
def test_different_json_values_are_not_the_same(left, right):
    assert not same_json(left, right) and not same_json(right, left)


def canonical(value):
    """A text that equal JSON values share: keys sorted, whole floats written as integers."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    return json.dumps(value)


@given(JSON_VALUES, JSON_VALUES)
@example({"a": [True]}, {"a": [1]})
@example([0.0, -0.0], [0, 0])
def test_sameness_agrees_with_equality_of_canonical_texts(left, right):
    assert same_json(left, left)
    assert same_json(left, right) == (canonical(left) == canonical(right))
