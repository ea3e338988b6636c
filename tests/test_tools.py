"""Tools and catalogues: names, the system message, the forms other systems publish, and what is refused."""

import copy
import json
import subprocess
import sys
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError, field_validator

from helpers.tools import MAX_STRING, NO_TOOL, Escalate, RequestRefund, Tool, Toolset, TrackOrder, support_desk

DESK = support_desk()

WEATHER = {  # one tool of another system, with an argument of every kind
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "unit": {"enum": ["C", "F"]},
        "hours": {"type": "array", "items": {"type": "integer"}},
        "wind": {"type": "boolean"},
        "radius": {"type": ["number", "null"]},
    },
    "required": ["city", "unit"],
}
NOTE = {"type": "object", "properties": {"title": {"type": "string", "title": "Title"}}, "required": ["title"]}


def openai_tool(parameters, name="f", description="Does f."):
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


class SetTimer(Tool):
    """Start a
    countdown."""

    minutes: int
    label: str | None = None
    tone: Literal["soft", "loud"] = "soft"
    laps: list[int] | None = None


# --- declaring tools --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_name", "tool_name"),
    [
        ("TrackOrder", "track_order"),
        ("Escalate", "escalate"),
        ("HTTPGet", "http_get"),
        ("GetURLNow", "get_url_now"),
        ("Play2Songs", "play2_songs"),
    ],
)
def test_tool_name_is_the_class_name_in_snake_case(class_name, tool_name):
    assert type(class_name, (Tool,), {"__doc__": "Does it."}).tool_name() == tool_name


def test_the_support_desk_is_the_lessons_three_tools_in_order():
    assert DESK.names == ["track_order", "request_refund", "escalate"]
    assert len(DESK) == 3
    assert repr(DESK) == "Toolset(track_order, request_refund, escalate)"
    assert DESK["escalate"].description == "Hand the conversation to a person."


def test_membership_takes_any_value_and_excludes_no_tool():
    assert "track_order" in DESK
    assert "TrackOrder" not in DESK and NO_TOOL not in DESK
    assert ["track_order"] not in DESK and None not in DESK and {} not in DESK


def test_tools_are_strict_closed_and_frozen():
    timer = SetTimer(minutes=5)
    with pytest.raises(ValidationError, match="frozen"):
        timer.minutes = 6
    with pytest.raises(ValidationError, match="valid integer"):
        SetTimer(minutes="5")
    with pytest.raises(ValidationError, match="valid integer"):
        SetTimer(minutes=True)
    with pytest.raises(ValidationError, match="Extra inputs"):
        SetTimer(minutes=5, seconds=1)


# --- the system message -----------------------------------------------------------------------------------------------


def test_the_system_message_of_the_support_desk_is_literally_this():
    assert DESK.system_prompt() == (
        "Route the message to one of these tools:\n"
        "- track_order(order_id: str): Get the status of an order.\n"
        "- request_refund(order_id: str, reason: str): File a refund for an order.\n"
        "- escalate(reason: str): Hand the conversation to a person.\n"
        'Answer with one JSON object: {"tool":"...","arguments":{...}}\n'
        'If no tool fits: {"tool":"no_tool","reason":"..."}'
    )


def test_the_instruction_can_be_replaced_and_the_rest_stays():
    ours, theirs = DESK.system_prompt().split("\n"), DESK.system_prompt("Pick one:").split("\n")
    assert theirs[0] == "Pick one:"
    assert theirs[1:] == ours[1:]


def test_signatures_show_optional_arguments_choices_and_types():
    assert Toolset(SetTimer)["set_timer"].signature() == (
        'set_timer(minutes: int, label?: str, tone?: "soft"|"loud", laps?: list): Start a countdown.'
    )
    assert Toolset.from_openai([openai_tool(WEATHER)])["f"].signature() == (
        'f(city: str, days?: int, unit: "C"|"F", hours?: list, wind?: bool, radius?: float|null): Does f.'
    )


def test_signatures_show_constants_and_untyped_arguments():
    parameters = {"type": "object", "properties": {"version": {"const": 2}, "payload": {}, "extra": {"type": "object"}}}
    assert Toolset.from_openai([openai_tool(parameters)])["f"].signature() == "f(version?: 2, payload?: any, extra?: dict): Does f."


# --- catalogues that cannot be ----------------------------------------------------------------------------------------


def test_an_empty_catalogue_is_refused():
    for make in (Toolset, lambda: Toolset.from_openai([]), lambda: Toolset.from_mcp([])):
        with pytest.raises(ValueError, match="at least one tool"):
            make()


def test_a_name_used_twice_is_refused():
    with pytest.raises(ValueError, match="two tools are called 'track_order'"):
        Toolset(TrackOrder, TrackOrder)
    with pytest.raises(ValueError, match="two tools are called 'f'"):
        Toolset.from_mcp([{"name": "f"}, {"name": "f"}])


def test_the_name_no_tool_is_reserved():
    with pytest.raises(ValueError, match="'no_tool' is reserved"):
        Toolset(type("NoTool", (Tool,), {"__doc__": "Does nothing."}))
    with pytest.raises(ValueError, match="'no_tool' is reserved"):
        Toolset.from_openai([openai_tool(NOTE, name="no_tool")])


@pytest.mark.parametrize("name", ["", "two words", "1st", 'quote"d', "line\nbreak", "f\n", "x" * 65])
def test_a_name_that_is_no_identifier_is_refused(name):
    with pytest.raises(ValueError, match="not an identifier"):
        Toolset.from_mcp([{"name": name}])


@pytest.mark.parametrize("name", ["f", "_f", "files.read-all", "x" * 64])
def test_names_that_other_systems_use_are_taken(name):
    assert Toolset.from_mcp([{"name": name}]).names == [name]


def test_a_tool_without_docstring_is_refused():
    with pytest.raises(ValueError, match="tool Mute has no docstring"):
        Toolset(type("Mute", (Tool,), {}))


@pytest.mark.parametrize("not_a_tool", ["track_order", BaseModel, TrackOrder(order_id="A-1"), None])
def test_a_catalogue_takes_only_tool_classes(not_a_tool):
    with pytest.raises(ValueError, match="takes subclasses of"):
        Toolset(not_a_tool)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"type": "strin"}, "OpenAI tool 'f': parameters is not valid JSON Schema"),
        ({"type": "object", "properties": {"a": {"minimum": "one"}}}, "OpenAI tool 'f': parameters is not valid JSON Schema"),
        ({"type": "object", "properties": {"a": {"pattern": "("}}}, "OpenAI tool 'f': parameters is not valid JSON Schema"),
        ({"type": "string"}, "OpenAI tool 'f': parameters must have type object, got 'string'"),
        ({"properties": {}}, "OpenAI tool 'f': parameters must have type object, got None"),
    ],
)
def test_an_imported_schema_that_is_wrong_is_named(parameters, said):
    with pytest.raises(ValueError, match=said):
        Toolset.from_openai([openai_tool(parameters)])


def test_an_imported_tool_without_name_is_counted_and_its_keys_shown():
    with pytest.raises(ValueError, match=r"MCP tool 1 has no name; got the keys \['description', 'title'\]"):
        Toolset.from_mcp([{"name": "f"}, {"title": "g", "description": "Does g."}])
    with pytest.raises(ValueError, match="OpenAI tool 0 has no name"):
        Toolset.from_openai([{"name": "f", "parameters": NOTE}])  # the flat form of another interface


# --- other systems' forms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "toolset", [DESK, Toolset(SetTimer), Toolset.from_openai([openai_tool(WEATHER), openai_tool(NOTE, "note")])], ids=repr
)
def test_openais_form_reads_back_as_the_same_catalogue(toolset):
    published = json.loads(json.dumps(toolset.openai_tools()))
    again = Toolset.from_openai(published)
    assert again.names == toolset.names
    assert again.system_prompt() == toolset.system_prompt()
    assert again.output_schema() == toolset.output_schema()
    assert again.openai_tools() == published


def test_openais_form_of_a_declared_tool_says_what_is_required_and_closed():
    tool = DESK.openai_tools()[1]
    assert tool["type"] == "function"
    assert tool["function"]["name"] == "request_refund"
    assert tool["function"]["description"] == "File a refund for an order."
    parameters = tool["function"]["parameters"]
    text = {"type": "string", "minLength": 1, "maxLength": 10_000, "pattern": r"\S"}
    assert parameters["type"] == "object"
    assert parameters["properties"] == {"order_id": text, "reason": text}
    assert parameters["required"] == ["order_id", "reason"]
    assert parameters["additionalProperties"] is False


def test_mcp_and_openai_forms_of_one_tool_give_one_catalogue():
    mcp = {
        "name": "weather",
        "title": "Weather",
        "description": "Says the\n  weather.",
        "inputSchema": WEATHER,
        "annotations": {"readOnlyHint": True},
    }
    from_mcp = Toolset.from_mcp([mcp])
    from_openai = Toolset.from_openai([openai_tool(WEATHER, "weather", "Says the weather.")])
    assert from_mcp.openai_tools() == from_openai.openai_tools()
    assert from_mcp.system_prompt() == from_openai.system_prompt()


@pytest.mark.parametrize(
    "tool", [{"name": "ping"}, {"name": "ping", "inputSchema": None}, {"name": "ping", "inputSchema": {"type": "object"}}]
)
def test_an_imported_tool_without_schema_takes_no_arguments(tool):
    ping = Toolset.from_mcp([tool])["ping"]
    assert ping.signature() == "ping(): "
    assert ping.problem_with({}) is None
    assert "Additional properties" in ping.problem_with({"host": "a"})


def test_an_import_leaves_the_given_dicts_as_they_were():
    tools = [openai_tool(WEATHER), openai_tool(NOTE, "note")]
    before = copy.deepcopy(tools)
    Toolset.from_openai(tools)
    assert tools == before


def test_an_argument_may_be_called_title_or_description():
    parameters = {
        "type": "object",
        "title": "Note",
        "properties": {"title": {"type": "string", "title": "Title"}, "description": {"type": "string"}},
    }
    plain = Toolset.from_openai([openai_tool(parameters)])["f"].parameters
    assert plain["properties"] == {"title": {"type": "string"}, "description": {"type": "string"}}
    assert "title" not in plain


def test_references_to_own_definitions_are_inlined():
    class Address(BaseModel):
        street: str

    class SendParcel(Tool):
        """Send a parcel."""

        to: Address
        back: Address | None = None

    parcel = Toolset(SendParcel)["send_parcel"]
    assert "$ref" not in json.dumps(parcel.parameters) and "$defs" not in json.dumps(parcel.parameters)
    assert parcel.parameters["properties"]["to"]["properties"] == {"street": {"type": "string"}}
    assert parcel.signature() == "send_parcel(to: dict, back?: dict): Send a parcel."
    assert parcel.problem_with({"to": {"street": "Elm"}}) is None
    assert parcel.problem_with({"to": {"street": 5}}) == "arguments['to']['street']: 5 is not of type 'string'"


def test_what_stands_beside_a_reference_is_kept():
    parameters = {
        "type": "object",
        "properties": {"unit": {"$ref": "#/$defs/Unit", "default": "C"}},
        "$defs": {"Unit": {"enum": ["C", "F"], "title": "Unit"}},
    }
    plain = Toolset.from_openai([openai_tool(parameters)])["f"].parameters
    assert plain["properties"] == {"unit": {"enum": ["C", "F"], "default": "C"}}


def test_only_titles_go_not_what_is_called_title():
    parameters = {"type": "object", "patternProperties": {"title": {"type": "string"}}, "title": "Note"}
    assert Toolset.from_openai([openai_tool(parameters)])["f"].parameters["patternProperties"] == {"title": {"type": "string"}}


@pytest.mark.parametrize(
    "parameters",
    [
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/Node"}},
            "$defs": {"Node": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
        },
        {"type": "object", "properties": {"a": {"$ref": "https://example.org/a.json"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/Missing"}}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
    ],
)
def test_references_that_cannot_be_inlined_are_refused(parameters):
    with pytest.raises(ValueError, match="cannot use the reference"):
        Toolset.from_openai([openai_tool(parameters)])


# --- legal arguments --------------------------------------------------------------------------------------------------


def test_legal_arguments_have_no_problem():
    assert DESK["track_order"].problem_with({"order_id": "A-1"}) is None
    assert DESK["track_order"].problem_with({"order_id": "x" * MAX_STRING}) is None
    assert Toolset(SetTimer)["set_timer"].problem_with({"minutes": 5, "label": None, "laps": [1, 2]}) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "arguments: 'order_id' is a required property"),
        ({"order_id": 5}, "arguments['order_id']: 5 is not of type 'string'"),
        ({"order_id": None}, "arguments['order_id']: None is not of type 'string'"),
        ({"order_id": "A-1", "reason": "late"}, "arguments: Additional properties are not allowed ('reason' was unexpected)"),
        ({"order_id": " \t"}, "arguments['order_id']: ' \\t' does not match '\\\\S'"),
        ("A-1", "arguments: 'A-1' is not of type 'object'"),
        (None, "arguments: None is not of type 'object'"),
    ],
)
def test_problems_with_arguments_say_where_and_what(arguments, said):
    assert DESK["track_order"].problem_with(arguments) == said


@pytest.mark.parametrize("blank", ["", " ", "\n", "\u00a0", "\u2003"])
def test_a_blank_required_string_is_a_problem_in_declared_and_imported_tools(blank):
    assert DESK["escalate"].problem_with({"reason": blank})
    assert Toolset.from_openai([openai_tool(NOTE)])["f"].problem_with({"title": blank})


def test_an_optional_string_may_be_blank():
    assert Toolset(SetTimer)["set_timer"].problem_with({"minutes": 1, "label": ""}) is None


def test_a_string_over_the_limit_is_a_problem_told_in_one_short_line():
    said = DESK["escalate"].problem_with({"reason": "x" * (MAX_STRING + 1)})
    assert said.startswith("arguments['reason']: ")
    assert len(said) < 300 and "\n" not in said


def test_a_required_choice_is_left_as_declared_even_a_blank_one():
    field = {"type": "string", "enum": ["", "express"]}
    tool = Toolset.from_openai([openai_tool({"type": "object", "properties": {"speed": field}, "required": ["speed"]})])["f"]
    assert tool.parameters["properties"] == {"speed": field}
    assert tool.problem_with({"speed": ""}) is None


def test_a_schemas_own_limits_on_a_required_string_win():
    parameters = {
        "type": "object",
        "properties": {"code": {"type": "string", "maxLength": 3, "pattern": "^[A-Z]*$", "minLength": 0}},
        "required": ["code"],
    }
    tool = Toolset.from_openai([openai_tool(parameters)])["f"]
    assert tool.problem_with({"code": "ABC"}) is None
    assert tool.problem_with({"code": ""}) is None
    assert tool.problem_with({"code": "ABCD"}) and tool.problem_with({"code": "abc"})


def test_a_declared_tools_own_validator_is_asked():
    class Book(Tool):
        """Book a table."""

        seats: int

        @field_validator("seats")
        @classmethod
        def even(cls, value):
            if value % 2:
                raise ValueError("tables are for two")
            return value

    book = Toolset(Book)["book"]
    assert book.problem_with({"seats": 4}) is None
    assert book.problem_with({"seats": 3}) == "arguments['seats']: Value error, tables are for two"


ARGUMENT_VALUES = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["A-1", "", " "]),
    st.none(),
    st.booleans(),
    st.integers(),
    st.lists(st.text(max_size=2), max_size=2),
)


@given(st.dictionaries(st.sampled_from(["order_id", "reason", "Reason", ""]), ARGUMENT_VALUES, max_size=3))
@example({"order_id": "A-1", "reason": "late"})
@example({"order_id": "A-1", "reason": "\x1f"})
def test_arguments_are_legal_exactly_when_pydantic_takes_them_and_no_string_is_blank(arguments):
    try:
        RequestRefund.model_validate_json(json.dumps(arguments))
        legal = all(value.strip() for value in arguments.values())
    except ValidationError:
        legal = False
    assert (DESK["request_refund"].problem_with(arguments) is None) == legal


# --- the schema of legal outputs --------------------------------------------------------------------------------------

LEGAL = [
    {"tool": "track_order", "arguments": {"order_id": "A-1"}},
    {"tool": "request_refund", "arguments": {"order_id": "A-1", "reason": "late"}},
    {"tool": "escalate", "arguments": {"reason": "angry"}},
    {"tool": "no_tool", "reason": "small talk"},
]
ILLEGAL = [
    {"tool": "track_order"},
    {"tool": "track_order", "arguments": {"reason": "late"}},
    {"tool": "escalate", "arguments": {"reason": " "}},
    {"tool": "escalate", "arguments": {"reason": "angry"}, "confidence": 1},
    {"tool": "no_tool"},
    {"tool": "no_tool", "reason": ""},
    {"tool": "no_tool", "arguments": {}},
    {"tool": "cancel_order", "arguments": {"order_id": "A-1"}},
    {},
    [],
    "no_tool",
]


def test_the_output_schema_is_valid_json_schema_and_can_be_written_as_json():
    for toolset in (DESK, Toolset(SetTimer), Toolset.from_openai([openai_tool(WEATHER)])):
        schema = toolset.output_schema()
        Draft202012Validator.check_schema(schema)
        assert json.loads(json.dumps(schema)) == schema
        assert len(schema["anyOf"]) == len(toolset) + 1


@pytest.mark.parametrize("output", LEGAL, ids=json.dumps)
def test_the_output_schema_takes_every_legal_form(output):
    assert Draft202012Validator(DESK.output_schema()).is_valid(output)


@pytest.mark.parametrize("output", ILLEGAL, ids=json.dumps)
def test_the_output_schema_refuses_everything_else(output):
    assert not Draft202012Validator(DESK.output_schema()).is_valid(output)


# --- calls that cannot be taken back ------------------------------------------------------------------------------------


def test_of_the_support_desk_only_a_refund_is_irreversible():
    assert {name: DESK[name].irreversible for name in DESK.names} == {"track_order": False, "request_refund": True, "escalate": False}


def test_the_flag_stands_in_the_entry_and_nowhere_that_a_model_or_another_system_reads():
    class SetTimerForGood(SetTimer):
        """Start a countdown."""

        irreversible = True

    for_good = Toolset(SetTimerForGood)
    assert for_good["set_timer_for_good"].irreversible and not Toolset(SetTimer)["set_timer"].irreversible
    for published in (for_good.system_prompt(), json.dumps(for_good.openai_tools()), json.dumps(for_good.output_schema())):
        assert "irreversible" not in published
    assert list(for_good["set_timer_for_good"].parameters["properties"]) == ["minutes", "label", "tone", "laps"]


def test_the_flag_goes_with_the_entry_into_another_catalogue():
    fewer = Toolset.from_specs([DESK["request_refund"], DESK["escalate"]])
    assert [fewer[name].irreversible for name in fewer.names] == [True, False]


@pytest.mark.parametrize(
    ("annotations", "irreversible"),
    [
        ({"destructiveHint": True}, True),
        ({"destructiveHint": True, "idempotentHint": True, "title": "Delete"}, True),
        ({"destructiveHint": False}, False),
        ({"destructiveHint": "true"}, False),
        ({"readOnlyHint": True}, False),
        ({}, False),
        (None, False),
        ("destructiveHint", False),
    ],
)
def test_an_mcp_tool_is_irreversible_when_its_destructive_hint_is_true(annotations, irreversible):
    tool = {"name": "f", "inputSchema": NOTE, "annotations": annotations}
    assert Toolset.from_mcp([tool, {"name": "g"}])["f"].irreversible is irreversible
    assert Toolset.from_mcp([tool, {"name": "g"}])["g"].irreversible is False


def test_an_openai_tool_is_never_irreversible():
    tool = openai_tool(NOTE)
    tool["annotations"] = tool["function"]["annotations"] = {"destructiveHint": True}
    assert Toolset.from_openai([tool])["f"].irreversible is False
    assert Toolset.from_openai(DESK.openai_tools())["request_refund"].irreversible is False


def test_the_tools_module_and_its_neighbours_do_not_load_torch():
    code = "import sys, helpers.negatives; sys.exit(sum(name in sys.modules for name in ('torch', 'transformers', 'datasets')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_declared_tools_carry_the_lessons_arguments():
    assert list(TrackOrder.model_fields) == ["order_id"]
    assert list(RequestRefund.model_fields) == ["order_id", "reason"]
    assert list(Escalate.model_fields) == ["reason"]
