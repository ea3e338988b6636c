"""Rows, the conversation each becomes, and the audits, on small data sets made good and bad by hand."""

import json

import pytest
from pydantic import ValidationError

from helpers.examples import (
    Example,
    Finding,
    audit_labels,
    audit_leakage,
    check_target,
    frame,
    id_format,
    load_examples,
    read_examples,
    to_messages,
    to_prompt_completion,
    write_examples,
)
from helpers.parsing import NoTool, ToolCall, parse_tool_call
from helpers.tools import support_desk

DESK = support_desk()
CALL = {
    "id": "t-1",
    "request": "where is A-17 please",
    "target": {"tool": "track_order", "arguments": {"order_id": "A-17"}},
    "kind": "direct",
}
REFUSAL = {"id": "t-2", "request": "hello there", "target": {"tool": "no_tool", "reason": "small talk"}, "kind": "chitchat"}


def track(id, request, order_id):
    target = {"tool": "track_order", "arguments": {"order_id": order_id}}
    return Example.model_validate({"id": id, "request": request, "target": target, "kind": "direct"})


def refund(id, request, order_id, reason):
    target = {"tool": "request_refund", "arguments": {"order_id": order_id, "reason": reason}}
    return Example.model_validate({"id": id, "request": request, "target": target, "kind": "direct"})


def refuse(id, request, reason="small talk"):
    return Example.model_validate({"id": id, "request": request, "target": {"tool": "no_tool", "reason": reason}, "kind": "chitchat"})


def changed(row, **changes):
    return row | changes


def without(row, key):
    return {name: value for name, value in row.items() if name != key}


@pytest.fixture
def jsonl(tmp_path):
    """A function that writes lines (dicts as JSON, strings as they are) to a file and returns its path."""

    def write(*lines):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), encoding="utf-8")
        return path

    return write


# --- one row ----------------------------------------------------------------------------------------------------------


def test_a_row_knows_whether_it_is_a_call_and_its_right_answer():
    call, refusal = Example.model_validate(CALL), Example.model_validate(REFUSAL)
    assert call.is_call and not refusal.is_call
    assert call.answers == [ToolCall("track_order", {"order_id": "A-17"})]
    assert refusal.answers == [NoTool("small talk")]


def test_accepted_alternatives_follow_the_gold_answer():
    target = CALL["target"] | {
        "accept": [{"tool": "escalate", "arguments": {"reason": "please"}}, {"tool": "no_tool", "reason": "small talk"}],
    }
    row = Example.model_validate(changed(CALL, target=target))
    assert row.is_call
    assert row.answers == [ToolCall("track_order", {"order_id": "A-17"}), ToolCall("escalate", {"reason": "please"}), NoTool("small talk")]


def test_a_refusal_may_accept_a_call():
    row = Example.model_validate(changed(REFUSAL, target=REFUSAL["target"] | {"accept": [CALL["target"]]}))
    assert not row.is_call
    assert row.answers == [NoTool("small talk"), ToolCall("track_order", {"order_id": "A-17"})]


def test_a_row_and_its_target_are_frozen():
    row = Example.model_validate(CALL)
    with pytest.raises(ValidationError, match="frozen"):
        row.request = "another"
    with pytest.raises(ValidationError, match="frozen"):
        row.target.tool = "escalate"


@pytest.mark.parametrize("key", ["id", "request", "target", "kind"])
def test_every_key_of_a_row_is_required(key):
    with pytest.raises(ValidationError, match="Field required"):
        Example.model_validate(without(CALL, key))


@pytest.mark.parametrize(
    ("row", "where"),
    [
        (changed(CALL, note="hi"), ("note",)),
        (changed(CALL, id=1), ("id",)),
        (changed(CALL, id=b"t-1"), ("id",)),
        (changed(CALL, request=""), ("request",)),
        (changed(CALL, request=None), ("request",)),
        (changed(CALL, kind=["direct"]), ("kind",)),
        (changed(CALL, target={"tool": "track_order"}), ("target", "call", "arguments")),
        (changed(CALL, target={"tool": "track_order", "arguments": "A-17"}), ("target", "call", "arguments")),
        (changed(CALL, target=CALL["target"] | {"reason": "hi"}), ("target", "call", "reason")),
        (changed(CALL, target={"arguments": {}}), ("target", "call", "tool")),
        (changed(CALL, target="no_tool"), ("target", "call")),
        (changed(REFUSAL, target={"tool": "no_tool"}), ("target", "no_tool", "reason")),
        (changed(REFUSAL, target={"tool": "no_tool", "reason": ""}), ("target", "no_tool", "reason")),
        (changed(REFUSAL, target=REFUSAL["target"] | {"arguments": {}}), ("target", "no_tool", "arguments")),
        (changed(CALL, target=CALL["target"] | {"accept": [{"tool": "no_tool"}]}), ("target", "call", "accept", 0, "no_tool", "reason")),
        (changed(CALL, target=CALL["target"] | {"accept": REFUSAL["target"]}), ("target", "call", "accept")),
    ],
)
def test_a_row_that_breaks_the_schema_is_refused_at_the_place(row, where):
    with pytest.raises(ValidationError) as caught:
        Example.model_validate(row)
    assert [error["loc"] for error in caught.value.errors()] == [where]


# --- reading a file ---------------------------------------------------------------------------------------------------


def test_rows_are_read_in_order_and_blank_lines_are_passed_over(jsonl):
    assert read_examples(jsonl(CALL, "", REFUSAL, "  "), DESK) == [Example.model_validate(CALL), Example.model_validate(REFUSAL)]


def test_rows_can_be_read_from_a_path_given_as_text(jsonl):
    assert [row.id for row in read_examples(str(jsonl(CALL)), DESK)] == ["t-1"]


def test_written_rows_are_read_back(tmp_path):
    rows = [
        changed(CALL, request="où est A-17 🙁\nmerci\ttoi\\"),
        changed(REFUSAL, target=REFUSAL["target"] | {"accept": [CALL["target"]]}),
    ]
    path = tmp_path / "rows.jsonl"
    assert write_examples(path, rows) == 2
    assert path.read_bytes().count(b"\n") == 2
    assert read_examples(path, DESK) == [Example.model_validate(row) for row in rows]


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "nowhere.jsonl"
    with pytest.raises(FileNotFoundError) as caught:
        read_examples(path, DESK)
    assert str(path) in str(caught.value)
    assert "data/README.md" in str(caught.value)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data file at"):
        read_examples(tmp_path, DESK)


@pytest.mark.parametrize("lines", [[], ["", "  "]], ids=["empty", "blank lines"])
def test_a_file_without_rows_is_an_error(jsonl, lines):
    path = jsonl(*lines)
    with pytest.raises(ValueError) as caught:
        read_examples(path, DESK)
    assert str(caught.value) == f"{path} holds no rows"


BROKEN_LINES = {
    "cut short": (json.dumps(CALL)[:-1], "Invalid JSON"),
    "prose": ("where is my order", "Invalid JSON"),
    "two rows": (json.dumps(CALL) + json.dumps(REFUSAL), "Invalid JSON"),
    "100,000 brackets": ("[" * 100_000, "Invalid JSON"),
    "list": ("[1]", "object"),
    "missing request": (without(CALL, "request"), "request: Field required"),
    "request no text": (changed(CALL, request=5), "request: Input should be a valid string"),
    "unknown key": (changed(CALL, note="hi"), "note: Extra inputs are not permitted"),
    "target without arguments": (changed(CALL, target={"tool": "track_order"}), "target.call.arguments: Field required"),
    "unknown tool": (
        changed(CALL, target={"tool": "cancel_order", "arguments": {"order_id": "A-17"}}),
        "target of row 't-1' is not legal: unknown_tool: the key 'tool' names 'cancel_order'; legal are track_order, ",
    ),
    "empty tool": (changed(CALL, target={"tool": "", "arguments": {}}), "target of row 't-1' is not legal: unknown_tool"),
    "missing argument": (
        changed(CALL, target={"tool": "track_order", "arguments": {}}),
        "target of row 't-1' is not legal: bad_arguments: arguments: 'order_id' is a required property",
    ),
    "extra argument": (
        changed(CALL, target={"tool": "track_order", "arguments": {"order_id": "A-17", "reason": "late"}}),
        "target of row 't-1' is not legal: bad_arguments",
    ),
    "argument of another type": (
        changed(CALL, target={"tool": "track_order", "arguments": {"order_id": 17}}),
        "target of row 't-1' is not legal: bad_arguments: arguments['order_id']: 17 is not of type 'string'",
    ),
    "blank argument": (
        changed(CALL, target={"tool": "track_order", "arguments": {"order_id": " "}}),
        "target of row 't-1' is not legal: bad_arguments",
    ),
    "NaN as an argument": (json.dumps(CALL).replace('"A-17"', "NaN"), "not_json"),
    "blank reason": (changed(REFUSAL, target={"tool": "no_tool", "reason": " "}), "target of row 't-2' is not legal: bad_no_tool"),
    "unknown tool among the accepted": (
        changed(CALL, target=CALL["target"] | {"accept": [{"tool": "cancel_order", "arguments": {}}]}),
        "target of row 't-1' is not legal: unknown_tool",
    ),
}


@pytest.mark.parametrize(("line", "said"), BROKEN_LINES.values(), ids=BROKEN_LINES.keys())
def test_a_broken_row_is_named_by_file_and_line_and_what_is_wrong(jsonl, line, said):
    path = jsonl(changed(CALL, id="first"), "", line, changed(CALL, id="last"))
    with pytest.raises(ValueError) as caught:
        read_examples(path, DESK)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert said in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400


def test_an_id_used_twice_names_both_lines(jsonl):
    path = jsonl(CALL, "", changed(REFUSAL, id="t-1"))
    with pytest.raises(ValueError) as caught:
        read_examples(path, DESK)
    assert str(caught.value) == f"{path}, line 3: the id 't-1' is used on line 1 already"


def test_a_split_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(ValueError, match=r"no split 'dev'; the splits are train, validation, test"):
        load_examples("dev")


def test_check_target_passes_legal_rows_and_names_illegal_ones():
    check_target(Example.model_validate(CALL), DESK)
    check_target(Example.model_validate(REFUSAL), DESK)
    with pytest.raises(ValueError, match="row 't-1' is not legal: bad_arguments"):
        check_target(Example.model_validate(changed(CALL, target={"tool": "escalate", "arguments": {}})), DESK)


# --- the conversation -------------------------------------------------------------------------------------------------


def test_messages_are_the_catalogue_as_system_and_the_request_as_user():
    assert to_messages("Hi!", DESK) == [{"role": "system", "content": DESK.system_prompt()}, {"role": "user", "content": "Hi!"}]


def test_without_a_system_role_the_catalogue_heads_the_users_turn():
    assert to_messages("Hi!", DESK, system_role=False) == [{"role": "user", "content": DESK.system_prompt() + "\n\nHi!"}]


@pytest.mark.parametrize("system_role", [True, False])
def test_prompt_and_completion_are_conversations_and_the_answer_is_a_string(system_role):
    pair = to_prompt_completion(Example.model_validate(CALL), DESK, system_role)
    assert pair == {
        "prompt": to_messages("where is A-17 please", DESK, system_role),
        "completion": [{"role": "assistant", "content": '{"tool":"track_order","arguments":{"order_id":"A-17"}}'}],
    }


def test_a_refusal_is_completed_by_its_reason():
    pair = to_prompt_completion(Example.model_validate(REFUSAL), DESK)
    assert pair["completion"] == [{"role": "assistant", "content": '{"tool":"no_tool","reason":"small talk"}'}]


def test_the_completion_is_the_gold_answer_not_an_accepted_one_and_parses_to_it():
    row = Example.model_validate(changed(CALL, target=CALL["target"] | {"accept": [REFUSAL["target"]]}))
    [message] = to_prompt_completion(row, DESK)["completion"]
    assert parse_tool_call(message["content"], DESK) == row.answers[0] == ToolCall("track_order", {"order_id": "A-17"})


# --- the label audit --------------------------------------------------------------------------------------------------


def test_the_label_audit_finds_nothing_in_clean_rows():
    rows = [
        track("1", "where is A-17 please", "A-17"),
        refund("2", "refund B-2, it came torn", "B-2", "it came torn"),
        refuse("3", "hello there"),
        track("4", "Where is  A-17, please?", "A-17"),  # other words than row 1 once the comma is there
        track("5", "WHERE IS A-17 PLEASE!", "A-17"),  # row 1 again, with the same answer
    ]
    assert audit_labels(rows) == []
    assert audit_labels([]) == []


def test_the_label_audit_names_arguments_that_are_not_in_the_request():
    rows = [
        track("ok", "where is A-17", "A-17"),
        track("case", "where is a-17", "A-17"),
        refund("both", "money back", "B-2", "broken"),
        refund("one", "refund B-2, it broke", "B-2", "it is broken"),
    ]
    assert audit_labels(rows) == [
        Finding("argument not in request", ("case",), "order_id='A-17'"),
        Finding("argument not in request", ("both",), "order_id='B-2'"),
        Finding("argument not in request", ("both",), "reason='broken'"),
        Finding("argument not in request", ("one",), "reason='it is broken'"),
    ]


def test_the_label_audit_looks_at_accepted_answers_too():
    target = CALL["target"] | {"accept": [{"tool": "escalate", "arguments": {"reason": "angry"}}]}
    assert audit_labels([Example.model_validate(changed(CALL, target=target))]) == [
        Finding("argument not in request", ("t-1",), "reason='angry'")
    ]


def test_the_label_audit_names_both_rows_of_a_conflict():
    rows = [
        track("1", "where is A-17", "A-17"),
        refuse("2", "hello there"),
        refuse("3", " Where is  a-17?! "),
        track("4", "where is A-17.", "A-17"),
        refuse("5", "hello there, where is A-17"),
    ]
    assert audit_labels(rows) == [Finding("label conflict", ("1", "3"), "' Where is  a-17?! '")]


# --- the leakage audit ------------------------------------------------------------------------------------------------


def audits(findings):
    return [(finding.audit, finding.rows) for finding in findings]


TRAIN = [
    track("a", "where is order A-17 please", "A-17"),
    refund("b", "I want my money back for B-2 because it came torn", "B-2", "it came torn"),
    refuse("c", "good morning to all of you"),
]


def test_the_leakage_audit_finds_nothing_between_splits_that_share_nothing():
    held_out = [
        track("x", "any news on C-9? it should have been here by now", "C-9"),
        refund("y", "D-4 broke after a day, I expect a refund", "D-4", "broke after a day"),
        refuse("z", "what a lovely website"),
    ]
    assert audit_leakage(TRAIN, held_out) == []
    assert audit_leakage(TRAIN, []) == audit_leakage([], held_out) == []


def test_a_shared_frame_is_found_whatever_fills_it():
    [same, near] = audit_leakage(TRAIN, [track("x", "Where is order ZZ-999-Q please?", "ZZ-999-Q")])
    assert same == Finding("same frame", ("a", "x"), "where is order {order_id} please")
    assert near == Finding("near-duplicate", ("a", "x"), "'where is order A-17 please' ~ 'Where is order ZZ-999-Q please?'")


def test_a_shared_order_id_is_found_in_another_sentence_and_another_tool():
    found = audit_leakage(TRAIN, [refund("x", "A-17 arrived broken, so pay me back", "A-17", "arrived broken")])
    assert found == [Finding("shared id", ("a", "x"), "A-17")]


@pytest.mark.parametrize(
    "held_out",
    [
        refund("x", "it came torn!!! box D-4. refund", "D-4", "it came torn"),  # the reason of row b
        refund("x", "D-4 has to go back, I was sent A-17", "D-4", "A-17"),  # the id of row a, as a reason
        track("x", "any news? it came torn is what the label says", "it came torn"),  # the reason of row b, as an id
    ],
    ids=["reason", "id as reason", "reason as id"],
)
def test_only_ids_are_compared_as_ids(held_out):
    assert audit_leakage(TRAIN, [held_out]) == []


def test_a_near_duplicate_is_found_and_a_distant_one_is_not():
    near = refuse("x", "good morning to all of you there")
    far = refuse("y", "good morning, is anyone there")
    assert audits(audit_leakage(TRAIN, [near, far])) == [("near-duplicate", ("c", "x"))]


def test_the_threshold_is_the_jaccard_similarity_of_five_letter_pieces():
    train, held_out = [refuse("a", "abcdefgh")], [refuse("x", "abcdefghij")]  # pieces: 4 and 6, of which 4 are shared: 4/6
    assert audits(audit_leakage(train, held_out, threshold=0.66)) == [("near-duplicate", ("a", "x"))]
    assert audit_leakage(train, held_out, threshold=0.67) == []


def test_the_threshold_is_included_and_works_in_both_directions():
    short, long = refuse("s", "abcdefg"), refuse("l", "abcdefghij")  # pieces: 3 and 6, of which 3 are shared: 1/2
    assert audits(audit_leakage([short], [long], threshold=0.5)) == [("near-duplicate", ("s", "l"))]
    assert audits(audit_leakage([long], [short], threshold=0.5)) == [("near-duplicate", ("l", "s"))]


def test_requests_shorter_than_a_piece_are_compared_whole():
    assert audits(audit_leakage([refuse("a", "hi")], [refuse("x", "Hi!"), refuse("y", "ho")])) == [
        ("same frame", ("a", "x")),
        ("near-duplicate", ("a", "x")),
    ]


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        (track("1", "Where  is A-17?", "A-17"), "where is {order_id}"),
        (refund("1", "Refund B-2: it is torn!", "B-2", "it is torn"), "refund {order_id}: {reason}"),
        (refund("1", "B-2 torn, B-2!", "B-2", "B-2 torn"), "{reason}, {order_id}"),
        (refuse("1", " Hello,\n THERE. "), "hello, there"),
    ],
)
def test_a_frame_is_the_request_in_lower_case_with_arguments_blanked(example, expected):
    assert frame(example) == expected


@pytest.mark.parametrize(
    ("order_id", "form"),
    [("KX-4471", "A-9"), ("7781204", "9"), ("ab12CD", "a9A"), ("3--4", "9--9"), ("[90]Žižka", "[9]Aa"), ("ÉÅ/ß1", "A/a9"), ("", "")],
)
def test_the_format_of_an_id_is_its_runs_and_its_signs(order_id, form):
    assert id_format(order_id) == form
