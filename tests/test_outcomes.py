"""How one row ends: details of literal rows, and rows that go to disk and come back."""

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.examples import Example
from helpers.outcomes import ScoredRow, read_rows, write_rows
from helpers.parsing import parse_tool_call
from helpers.tools import Toolset, support_desk

DESK = support_desk()
NAMES = ("order_id", "reason", "note")
TICKET = Toolset.from_mcp(
    [
        {
            "name": "open_ticket",
            "inputSchema": {"type": "object", "properties": {name: {} for name in NAMES}, "required": ["order_id"]},
        }
    ]
)


def scored(target, output, toolset=DESK, request="x"):
    example = Example.model_validate({"id": "r", "request": request, "target": target, "kind": "direct"})
    return ScoredRow(example, output, parse_tool_call(output, toolset))


def ticket(**arguments):
    return {"tool": "open_ticket", "arguments": arguments}


@pytest.mark.parametrize(
    ("gold", "written", "detail"),
    [
        (ticket(order_id="A"), ticket(order_id="A"), ""),
        (ticket(order_id="A"), ticket(order_id="B"), "order_id wrong"),
        (ticket(order_id="A", reason="r"), ticket(order_id="A"), "reason missing"),
        (ticket(order_id="A"), ticket(order_id="A", note="n"), "note extra"),
        (ticket(order_id="A", reason="r"), ticket(order_id="B", note="n"), "reason missing, note extra, order_id wrong"),
        (ticket(order_id=1), ticket(order_id=True), "order_id wrong"),
    ],
)
def test_wrong_arguments_are_named(gold, written, detail):
    assert scored(gold, json.dumps(written), TICKET).detail == detail


def test_the_nearest_of_several_right_answers_is_compared_with():
    gold = ticket(order_id="A", reason="r") | {"accept": [ticket(order_id="B")]}
    assert scored(gold, json.dumps(ticket(order_id="B", note="n")), TICKET).detail == "note extra"


def test_each_outcome_has_its_detail():
    track, refusal = {"tool": "track_order", "arguments": {"order_id": "A-1"}}, {"tool": "no_tool", "reason": "small talk"}
    escalate = {"tool": "escalate", "arguments": {"reason": "x"}}
    assert scored(track, "oops").detail == "not_json"
    assert scored(track, json.dumps(escalate)).detail == "escalate for track_order"
    assert scored(track, json.dumps(refusal)).detail == "track_order"  # the call that was missed
    assert scored(refusal, json.dumps(escalate)).detail == "escalate"  # the call that should not have been
    assert scored(refusal, json.dumps(refusal)).detail == ""


@given(st.text(min_size=1).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)), st.text())
def test_any_row_survives_jsonl(tmp_path_factory, request_text, output):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    row = scored({"tool": "no_tool", "reason": "small talk"}, output, request=request_text)
    write_rows([row], path)
    assert read_rows(path, DESK) == [row]


def test_csv_keeps_quotes_commas_and_line_breaks(tmp_path):
    awkward = 'no "quotes", a comma,\na line break and é 🙂'
    row = scored({"tool": "track_order", "arguments": {"order_id": "A-1"}}, awkward, request='where is A-1,\n"now"?')
    write_rows([row], tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        (found,) = csv.DictReader(file)
    assert found == {
        "id": "r",
        "kind": "direct",
        "request": 'where is A-1,\n"now"?',
        "output": awkward,
        "decision": "",
        "gold": '{"tool":"track_order","arguments":{"order_id":"A-1"}}',
        "outcome": "invalid",
        "detail": "not_json",
    }
    assert read_rows(tmp_path / "rows.csv", DESK) == [row]


def test_csv_takes_any_output_that_can_be_scored(tmp_path):
    write_rows([scored({"tool": "no_tool", "reason": "x"}, "\ud800")], tmp_path / "rows.csv")
    assert read_rows(tmp_path / "rows.csv", DESK)[0].output == "\\ud800"


def test_damaged_rows_are_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"id": "1"}\n')
    with pytest.raises(ValueError, match=r"rows.jsonl, row 1: not a row that write_rows left"):
        read_rows(tmp_path / "rows.jsonl", DESK)
    with pytest.raises(ValueError, match=r"rows are kept as .csv or .jsonl; got 'rows.txt'"):
        read_rows(tmp_path / "rows.txt", DESK)
