"""The dispatcher: every status by a scripted router, what is called and what never is, and a line of audit for each request."""

import json
import time
from datetime import UTC, datetime
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.dispatch import RETRY, Dispatcher, Reply
from helpers.negatives import KINDS, reason_for
from helpers.parsing import InvalidOutput, NoTool, ToolCall, parse_tool_call
from helpers.tools import Tool, Toolset, support_desk

DESK = support_desk()
TRACK = ToolCall("track_order", {"order_id": "A-1"})
REFUND = ToolCall("request_refund", {"order_id": "A-1", "reason": "it leaks"})
ESCALATE = ToolCall("escalate", {"reason": "rude clerk"})


class Script:
    """A router that gives these outputs one after the other, and the requests that it got."""

    def __init__(self, *outputs):
        self.outputs, self.asked = list(outputs), []

    def __call__(self, requests):
        self.asked += requests
        return [self.outputs.pop(0) for _ in requests]


class Functions(dict):
    """A function for each tool of the desk that notes its arguments in `calls` and says `did <tool>`."""

    def __init__(self, **others):
        self.calls = []
        super().__init__({name: self._noting(name) for name in DESK.names} | others)

    def _noting(self, name):
        def function(**arguments):
            self.calls.append((name, arguments))
            return f"did {name}"

        return function


def handle(*outputs, functions=None, request="my message", **options):
    """The reply to one request and the calls that were made."""
    functions = Functions() if functions is None else functions
    return Dispatcher(Script(*outputs), DESK, functions, **options).handle(request), functions.calls


def fail(error):
    def function(*_, **__):
        raise error

    return function


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


# --- every status -----------------------------------------------------------------------------------------------------


def test_a_call_is_made_with_its_arguments_by_keyword_and_the_customer_reads_what_came_back():
    reply, calls = handle(TRACK.to_json())
    assert reply == Reply("done", "did track_order", TRACK, "did track_order", (TRACK.to_json(),))
    assert calls == [("track_order", {"order_id": "A-1"})]


@pytest.mark.parametrize(("returned", "text"), [(None, "Done."), (7, "7"), ({"eta": "noon"}, "{'eta': 'noon'}")])
def test_what_a_function_returns_is_kept_as_it_is_and_read_as_text(returned, text):
    reply, _ = handle(TRACK.to_json(), functions=Functions(track_order=lambda order_id: returned))
    assert (reply.status, reply.text, reply.result) == ("done", text, returned)


@pytest.mark.parametrize(
    ("tool", "missing", "text"),
    [
        ("track_order", ["order_id"], "To get the status of an order I need the order id. Could you tell me?"),
        ("escalate", ["reason"], "To hand the conversation to a person I need the reason. Could you tell me?"),
        (
            "request_refund",
            ["order_id", "reason"],
            "To file a refund for an order I need the order id and the reason. Could you tell me?",
        ),
    ],
)
def test_what_is_missing_is_asked_for_in_words(tool, missing, text):
    decision = NoTool(reason_for("underspecified", tool, missing))
    reply, calls = handle(decision.to_json())
    assert reply == Reply("asked", text, decision, None, (decision.to_json(),))
    assert calls == []


def test_a_question_can_name_three_things_and_a_tool_without_description():
    post = {"type": "object", "properties": {"to": {"type": "string"}, "post_code": {"type": "string"}, "size": {"type": "integer"}}}
    parcels = Toolset.from_mcp([{"name": "send_parcel", "inputSchema": post}])
    reason = reason_for("underspecified", "send_parcel", ["to", "post_code", "size"])
    reply = Dispatcher(Script(NoTool(reason).to_json()), parcels, {"send_parcel": print}).handle("send it")
    assert (reply.status, reply.text) == ("asked", "To send parcel I need the to, the post code and the size. Could you tell me?")


@pytest.mark.parametrize(
    "reason",
    [
        "need order_id before cancel_order",  # no such tool
        "need email before track_order",  # no such argument
        "need order_id and email before request_refund",
        "need order_id, reason before request_refund",
        "we need order_id before track_order",
        "need order_id before track_order.",
        "never calls",
    ],
)
def test_reasons_that_are_not_taught_get_a_neutral_sentence(reason):
    reply, calls = handle(NoTool(reason).to_json())
    assert (reply.status, reply.text) == (
        "refused",
        "I have not done anything yet. Could you say in one sentence what you would like done?",
    )
    assert calls == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("chitchat", "Thank you for your message."),
        ("information_request", "I carry out requests and cannot answer questions."),
        ("out_of_scope", "I have no way of doing that, so nothing has been done."),
        ("ambiguous", "I can do one thing at a time, and I am not sure which."),
        ("negated", "Then I leave everything as it is."),
        ("steering", "I act on requests in plain words only, so nothing has been done."),
    ],
)
def test_every_other_taught_reason_has_a_text_of_its_own(kind, said):
    reply, calls = handle(NoTool(KINDS[kind].reason).to_json())
    assert reply.status == "refused"
    assert reply.text.startswith(said)
    assert calls == []


def test_an_irreversible_call_is_asked_for_and_not_made_when_there_is_nobody_to_confirm_it():
    reply, calls = handle(REFUND.to_json())
    text = 'Shall I file a refund for an order, with order id "A-1" and reason "it leaks"? Nothing is done before you say yes.'
    assert reply == Reply("unconfirmed", text, REFUND, None, (REFUND.to_json(),))
    assert calls == []


def test_the_question_before_an_irreversible_call_without_arguments():
    wipe = Toolset.from_mcp([{"name": "wipe", "description": "Wipe the disk.", "annotations": {"destructiveHint": True}}])
    reply = Dispatcher(Script(ToolCall("wipe", {}).to_json()), wipe, {"wipe": print}).handle("wipe it")
    assert (reply.status, reply.text) == ("unconfirmed", "Shall I wipe the disk? Nothing is done before you say yes.")


def test_a_confirmed_call_is_made_after_the_call_itself_was_shown():
    shown = []
    reply, calls = handle(REFUND.to_json(), confirm=lambda call: not shown.append(call))
    assert (reply.status, reply.text) == ("done", "did request_refund")
    assert shown == [REFUND]
    assert calls == [("request_refund", {"order_id": "A-1", "reason": "it leaks"})]


@pytest.mark.parametrize("answer", [False, None, 0, "", "no", 1])
def test_anything_but_true_is_a_no(answer):
    reply, calls = handle(REFUND.to_json(), confirm=lambda call: answer)
    assert reply == Reply("declined", "You said no, so nothing has been done.", REFUND, None, (REFUND.to_json(),))
    assert calls == []


@pytest.mark.parametrize("call", [TRACK, ESCALATE])
def test_reversible_calls_are_never_asked_about(call):
    reply, calls = handle(call.to_json(), confirm=fail(AssertionError("asked")))
    assert reply.status == "done"
    assert calls == [(call.tool, call.arguments)]


@pytest.mark.parametrize("error", [KeyError("secret-host:5432"), TimeoutError("secret-host:5432"), SystemExit("secret-host:5432")])
def test_a_function_that_raises_ends_as_failed_with_a_text_that_reveals_nothing(error):
    reply, _ = handle(TRACK.to_json(), functions=Functions(track_order=fail(error)))
    text = "Something went wrong on our side, and your request may not have been carried out. A person will look into it."
    assert reply == Reply("failed", text, TRACK, None, (TRACK.to_json(),))


def test_a_function_that_takes_too_long_is_left_behind_and_its_effect_may_still_come(tmp_path):
    gate, happened = Event(), Event()

    def track_order(order_id):
        gate.wait(10)
        happened.set()

    started = time.perf_counter()
    reply, _ = handle(TRACK.to_json(), functions=Functions(track_order=track_order), timeout=0.05, audit=tmp_path / "audit.jsonl")
    assert time.perf_counter() - started < 5
    assert (reply.status, reply.result, happened.is_set()) == ("timed_out", None, False)
    assert reply.text.startswith("This takes longer than it should, so it is not certain that it was done. A person")
    [line] = lines(tmp_path / "audit.jsonl")
    assert (line["status"], line["result"], line["error"]) == ("timed_out", None, "no answer from track_order within 0.05 seconds")
    assert line["seconds"] >= 0.05
    gate.set()
    assert happened.wait(10)


# --- invalid outputs --------------------------------------------------------------------------------------------------


def test_an_invalid_output_is_asked_for_once_more_with_the_problem_and_the_form():
    router = Script('{"tool":"track_order","arguments":{}}', TRACK.to_json())
    functions = Functions()
    reply = Dispatcher(router, DESK, functions).handle("where is A-1")
    assert router.asked == [
        "where is A-1",
        "where is A-1\n\nThe last answer to this message could not be used (bad_arguments: arguments: 'order_id' is a required property). "
        'Answer with exactly one JSON object: {"tool":"...","arguments":{...}}, or {"tool":"no_tool","reason":"..."} if no tool fits or '
        "something is missing.",
    ]
    assert (reply.status, reply.decision) == ("done", TRACK)
    assert reply.outputs == ('{"tool":"track_order","arguments":{}}', TRACK.to_json())
    assert functions.calls == [("track_order", {"order_id": "A-1"})]


@pytest.mark.parametrize("second", ["Sure!", "[]", '{"tool":"cancel_order","arguments":{}}'])
def test_two_invalid_outputs_hand_over_to_a_person_and_call_nothing(second):
    reply, calls = handle("Sure! {", second)
    text = "I could not work out what to do with your message, so nothing has been done. A person will take it from here."
    assert (reply.status, reply.text, reply.result) == ("invalid", text, None)
    assert reply.decision == parse_tool_call(second, DESK)
    assert reply.outputs == ("Sure! {", second)
    assert calls == []


def test_a_valid_output_is_not_asked_for_again():
    router = Script(NoTool("small talk").to_json(), TRACK.to_json())
    Dispatcher(router, DESK, Functions()).handle("hello")
    assert router.asked == ["hello"]


def test_braces_in_what_went_wrong_do_not_break_the_second_request():
    router = Script('{"{detail}":1,"tool":"track_order"}', TRACK.to_json())
    Dispatcher(router, DESK, Functions()).handle("{problem}")
    assert router.asked[1].startswith("{problem}\n\nThe last answer")
    assert "['tool', '{detail}']" in router.asked[1] or "['{detail}', 'tool']" in router.asked[1]


LEGAL = st.sampled_from([TRACK, REFUND, ESCALATE, NoTool("small talk"), NoTool("need order_id before track_order")])
OUTPUTS = st.one_of(
    st.text(max_size=40),
    LEGAL.map(lambda decision: decision.to_json()),
    st.tuples(LEGAL, st.integers(0, 40), st.text(max_size=2)).map(lambda t: t[0].to_json()[: t[1]] + t[2] + t[0].to_json()[t[1] :]),
)


@given(OUTPUTS, OUTPUTS)
def test_functions_are_called_on_a_valid_call_and_on_nothing_else(first, second):
    reply, calls = handle(first, second, confirm=lambda call: True)
    decision = parse_tool_call(first, DESK)
    if isinstance(decision, InvalidOutput):
        decision = parse_tool_call(second, DESK)
    assert reply.decision == decision
    assert calls == ([(decision.tool, decision.arguments)] if isinstance(decision, ToolCall) else [])
    assert (reply.status == "done") == bool(calls)


# --- audit ------------------------------------------------------------------------------------------------------------


def test_the_audit_has_a_complete_line_for_each_request_in_order(tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_text('{"kept":true}\n', encoding="utf-8")
    router = Script(TRACK.to_json(), "Sure!", "Sorry!", NoTool("small talk").to_json(), REFUND.to_json(), ESCALATE.to_json())
    functions = Functions(escalate=fail(LookupError("no desk at night")))
    desk = Dispatcher(router, DESK, functions, confirm=lambda call: False, audit=path)
    before = datetime.now(UTC)
    written = []
    for request in ("one", "two", "three", "four", "five"):
        desk.handle(request)
        written.append(len(lines(path)))
    assert written == [2, 3, 4, 5, 6]  # each line is there when the reply is
    kept, *found = lines(path)
    assert kept == {"kept": True}
    for line in found:
        assert list(line) == ["time", "request", "outputs", "decision", "status", "result", "error", "seconds"]
        assert before <= datetime.fromisoformat(line.pop("time")) <= datetime.now(UTC)
        assert 0 <= line.pop("seconds") < 10
    nothing = {"result": None, "error": None}
    track, refund, escalate = (json.loads(call.to_json()) for call in (TRACK, REFUND, ESCALATE))
    problem = {"problem": "not_json", "detail": "Expecting value: line 1 column 1 (char 0)"}
    small_talk = {"tool": "no_tool", "reason": "small talk"}
    assert found == [
        nothing | {"request": "one", "outputs": [TRACK.to_json()], "decision": track, "status": "done", "result": "did track_order"},
        nothing | {"request": "two", "outputs": ["Sure!", "Sorry!"], "decision": problem, "status": "invalid"},
        nothing | {"request": "three", "outputs": [NoTool("small talk").to_json()], "decision": small_talk, "status": "refused"},
        nothing | {"request": "four", "outputs": [REFUND.to_json()], "decision": refund, "status": "declined"},
        nothing
        | {"request": "five", "outputs": [ESCALATE.to_json()], "decision": escalate, "status": "failed"}
        | {"error": "LookupError: no desk at night"},
    ]


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_what_the_router_raises_is_written_down_and_raised_again(tmp_path, error):
    outputs = iter([["Sure!"]])

    def generate(requests):
        for found in outputs:
            return found
        raise error

    functions = Functions()
    with pytest.raises(type(error)):
        Dispatcher(generate, DESK, functions, audit=tmp_path / "audit.jsonl").handle("hello")
    [line] = lines(tmp_path / "audit.jsonl")
    assert (line["request"], line["outputs"], line["decision"], line["status"]) == ("hello", ["Sure!"], None, "failed")
    assert line["error"].startswith(type(error).__name__)
    assert functions.calls == []


def test_what_confirm_raises_is_written_down_and_raised_again_and_nothing_is_called(tmp_path):
    functions = Functions()
    desk = Dispatcher(Script(REFUND.to_json()), DESK, functions, confirm=fail(EOFError("gone")), audit=tmp_path / "audit.jsonl")
    with pytest.raises(EOFError, match="gone"):
        desk.handle("refund A-1")
    [line] = lines(tmp_path / "audit.jsonl")
    assert (line["decision"]["tool"], line["status"], line["error"]) == ("request_refund", "failed", "EOFError: gone")
    assert functions.calls == []


@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=()), max_size=20))
def test_odd_strings_stay_one_readable_line(tmp_path_factory, request_text, output):
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    functions = Functions(track_order=lambda order_id: request_text, escalate=fail(ValueError(request_text)))
    times = 2 if isinstance(parse_tool_call(output, DESK), InvalidOutput) else 1
    desk = Dispatcher(Script(*[output] * times, TRACK.to_json(), ESCALATE.to_json()), DESK, functions, audit=path)
    statuses = [desk.handle(request_text).status for _ in range(3)]
    assert [line["status"] for line in lines(path)] == statuses
    assert statuses[1:] == ["done", "failed"]


def test_a_lone_surrogate_reads_back_as_itself(tmp_path):
    handle(NoTool("small talk").to_json(), request="a\ud800b\u2028é", audit=tmp_path / "audit.jsonl")
    [line] = lines(tmp_path / "audit.jsonl")
    assert line["request"] == "a\ud800b\u2028é"
    assert "é".encode() in (tmp_path / "audit.jsonl").read_bytes()  # readable to a person too


# --- dispatchers that cannot be ---------------------------------------------------------------------------------------


def test_tools_without_function_are_named():
    with pytest.raises(ValueError, match="every tool needs a function; add one for request_refund, escalate"):
        Dispatcher(Script(), DESK, {"track_order": print})


def test_functions_without_tool_are_named():
    with pytest.raises(ValueError, match="no tool of the catalogue is called cancel_order; the tools are track_order, request_refund, esc"):
        Dispatcher(Script(), DESK, Functions(cancel_order=print))


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_refused(timeout):
    with pytest.raises(ValueError, match="timeout is a positive number of seconds, got"):
        Dispatcher(Script(), DESK, Functions(), timeout=timeout)


def test_an_audit_file_in_no_folder_is_refused_before_anything_is_called(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere for the audit file; make it first"):
        Dispatcher(Script(), DESK, Functions(), audit=tmp_path / "nowhere" / "audit.jsonl")


@pytest.mark.parametrize("returned", [[], ["{}", "{}"], [None], TRACK.to_json()])
def test_a_router_of_another_shape_is_told_so(returned):
    functions = Functions()
    with pytest.raises(ValueError, match="generate must return a list with one string for each request; for one it returned"):
        Dispatcher(lambda requests: returned, DESK, functions).handle("hello")
    assert functions.calls == []


def test_a_tool_declared_irreversible_by_the_reader_is_asked_about():
    class CloseAccount(Tool):
        """Close an account for good."""

        irreversible = True
        account: int

    desk = Dispatcher(Script('{"tool":"close_account","arguments":{"account":12}}'), Toolset(CloseAccount), {"close_account": print})
    assert desk.handle("close it").text == "Shall I close an account for good, with account 12? Nothing is done before you say yes."


def test_the_words_of_the_second_request_hold_nothing_that_looks_like_an_id():
    assert not any(sign.isdigit() for sign in RETRY)
