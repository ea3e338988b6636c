"""The agent's side of a routed request: parse, ask, confirm, call, write down."""

import json
import re
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import TIMEOUT_MAX, Thread
from typing import Any, Literal

from helpers.negatives import KINDS
from helpers.parsing import Decision, InvalidOutput, NoTool, ToolCall, parse_tool_call
from helpers.tools import NO_TOOL, Toolset, ToolSpec

Status = Literal["done", "asked", "refused", "unconfirmed", "declined", "failed", "timed_out", "invalid"]

RETRY = (  # after the request, when its first output was invalid
    "\n\nThe last answer to this message could not be used ({problem}: {detail}). Answer with exactly one JSON object: "
    '{{"tool":"...","arguments":{{...}}}}, or {{"tool":"no_tool","reason":"..."}} if no tool fits or something is missing.'
)

_TEXTS: dict[Status, str] = {
    "declined": "You said no, so nothing has been done.",
    "failed": "Something went wrong on our side, and your request may not have been carried out. A person will look into it.",
    "timed_out": "This takes longer than it should, so it is not certain that it was done. A person will check before it is tried again.",
    "invalid": "I could not work out what to do with your message, so nothing has been done. A person will take it from here.",
}
_REFUSALS = {  # what the customer reads, by the reason that the router is taught for a kind of negative
    KINDS[kind].reason: text
    for kind, text in {
        "chitchat": "Thank you for your message. If there is something you would like done, tell me what it is.",
        "information_request": "I carry out requests and cannot answer questions. If you would like something done, tell me what it is.",
        "out_of_scope": "I have no way of doing that, so nothing has been done.",
        "ambiguous": "I can do one thing at a time, and I am not sure which. What would you like done first?",
        "negated": "Then I leave everything as it is. If you would like something done after all, tell me.",
        "steering": "I act on requests in plain words only, so nothing has been done. What would you like done?",
    }.items()
}
_UNKNOWN_REFUSAL = "I have not done anything yet. Could you say in one sentence what you would like done?"
_MISSING = re.compile(KINDS["underspecified"].reason.format(missing="(?P<missing>.+)", tool=r"(?P<tool>\S+)"))


@dataclass(frozen=True)
class Reply:
    """How a request ended: its status, what the customer reads, what was decided, what the function returned, every raw output."""

    status: Status
    text: str
    decision: Decision
    result: Any
    outputs: tuple[str, ...]


class Dispatcher:
    """A router, its catalogue and the functions behind it, as `request -> Reply`.

    `generate` maps requests to outputs (`Router.generate`, a baseline). `functions` has for each tool a plain Python function that
    takes the arguments by keyword; it is called with legal arguments only. `confirm` is asked before a call of an irreversible tool,
    and anything but True is a no; without it such a call is never made. `timeout` is in seconds, for one function. `audit` is a JSONL
    file that gets a line for each request handled.

    A function runs in a thread of its own, and a thread cannot be killed: after a timeout its effect may still happen. So the function
    of an irreversible tool must be idempotent, that is, safe to be called again with the same arguments.

    Raises ValueError on a tool without function, a function without tool or a timeout that is not positive, FileNotFoundError when
    the folder of `audit` is not there.

    >>> from helpers.tools import TrackOrder
    >>> router = lambda requests: ['{"tool":"track_order","arguments":{"order_id":"A-1"}}' for _ in requests]
    >>> desk = Dispatcher(router, Toolset(TrackOrder), {"track_order": lambda order_id: f"Order {order_id} is on its way."})
    >>> desk.handle("where is A-1").text
    'Order A-1 is on its way.'
    """

    def __init__(
        self,
        generate: Callable[[list[str]], list[str]],
        toolset: Toolset,
        functions: Mapping[str, Callable[..., Any]],
        confirm: Callable[[ToolCall], bool] | None = None,
        timeout: float = 5.0,
        audit: Path | str | None = None,
    ):
        if missing := [name for name in toolset.names if name not in functions]:
            raise ValueError(f"every tool needs a function; add one for {', '.join(missing)}")
        if extra := [name for name in functions if name not in toolset]:
            raise ValueError(f"no tool of the catalogue is called {', '.join(extra)}; the tools are {', '.join(toolset.names)}")
        if not 0 < timeout <= TIMEOUT_MAX:
            raise ValueError(f"timeout is a positive number of seconds, got {timeout}")
        if audit is not None and not Path(audit).parent.is_dir():  # told now, not after the first refund
            raise FileNotFoundError(f"there is no folder {Path(audit).parent} for the audit file; make it first")
        self.generate, self.toolset, self.functions = generate, toolset, dict(functions)
        self.confirm, self.timeout, self.audit = confirm, timeout, audit

    def handle(self, request: str) -> Reply:
        """Route one request and carry out what was decided. An invalid output is asked for once more, with the problem named.

        The status is `done`, `failed` or `timed_out` after a call; `asked` when something that the tool needs is missing, `refused`
        for every other no-tool; `unconfirmed` (nobody to ask) and `declined` (the answer was no) for irreversible calls not made;
        `invalid` when the second output was no decision either. No memory is kept: the answer to a question is a new request.

        What `generate` or `confirm` raises is written to the audit file as `failed` and raised again.
        """
        started, outputs = time.perf_counter(), []
        entry = {"time": datetime.now(UTC).isoformat(), "request": request, "outputs": outputs}
        entry |= dict.fromkeys(("decision", "status", "result", "error"))
        try:
            decision = self._decide(request, outputs)
            entry["decision"] = _as_dict(decision)
            status, text, result, error = self._act(decision)
            entry |= {"status": status, "result": None if result is None else text, "error": error}
            return Reply(status, text, decision, result, tuple(outputs))
        except BaseException as error:
            entry |= {"status": "failed", "error": _in_words(error)}
            raise
        finally:
            self._write(entry | {"seconds": round(time.perf_counter() - started, 4)})

    def _decide(self, request: str, outputs: list[str]) -> Decision:
        """The decision on `request` after at most two outputs, which are appended to `outputs` as they come."""
        decision = self._route(request, outputs)
        if isinstance(decision, InvalidOutput):
            decision = self._route(request + RETRY.format(problem=decision.problem, detail=decision.detail), outputs)
        return decision

    def _route(self, text: str, outputs: list[str]) -> Decision:
        found = self.generate([text])
        if len(found) != 1 or not isinstance(found[0], str):
            raise ValueError(f"generate must return a list with one string for each request; for one it returned {found!r:.80}")
        outputs.append(found[0])
        return parse_tool_call(found[0], self.toolset)

    def _act(self, decision: Decision) -> tuple[Status, str, Any, str | None]:
        """Status, text for the customer, result and error of what was decided."""
        match decision:
            case InvalidOutput():
                return "invalid", _TEXTS["invalid"], None, None
            case NoTool(reason):
                if (question := _question(reason, self.toolset)) is not None:
                    return "asked", question, None, None
                return "refused", _REFUSALS.get(reason, _UNKNOWN_REFUSAL), None, None
        if self.toolset[decision.tool].irreversible:
            if self.confirm is None:
                return "unconfirmed", _may_i(decision, self.toolset), None, None
            if self.confirm(decision) is not True:  # True alone is a yes: a text such as "no" counts as true
                return "declined", _TEXTS["declined"], None, None
        return self._call(decision)

    def _call(self, call: ToolCall) -> tuple[Status, str, Any, str | None]:
        future: Future[tuple[Any, str]] = Future()

        def work() -> None:
            try:
                result = self.functions[call.tool](**call.arguments)
                future.set_result((result, "Done." if result is None else str(result)))
            except BaseException as error:  # sys.exit in a function must not leave the caller waiting
                future.set_exception(error)

        Thread(target=work, daemon=True).start()  # daemon: a function that hangs must not keep the program from ending
        try:
            error = future.exception(self.timeout)  # not result(), which could not tell our timeout from the function's own
        except TimeoutError:
            return "timed_out", _TEXTS["timed_out"], None, f"no answer from {call.tool} within {self.timeout} seconds"
        if error is not None:
            return "failed", _TEXTS["failed"], None, _in_words(error)
        result, text = future.result()
        return "done", text, result, None

    def _write(self, entry: dict[str, Any]) -> None:
        if self.audit is not None:
            # a lone surrogate is written as its JSON escape, so that every line stays readable JSON
            with open(self.audit, "a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _as_dict(decision: Decision) -> dict[str, Any]:
    match decision:
        case ToolCall(tool, arguments):
            return {"tool": tool, "arguments": arguments}
        case NoTool(reason):
            return {"tool": NO_TOOL, "reason": reason}
        case InvalidOutput(problem, _, detail):
            return {"problem": problem, "detail": detail}


def _in_words(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()  # str(error) could itself raise


def _question(reason: str, toolset: Toolset) -> str | None:
    """What to ask for, when `reason` has the form taught for underspecified requests and fits the catalogue; else None."""
    found = _MISSING.fullmatch(reason)
    if found is None or found["tool"] not in toolset:
        return None
    spec, missing = toolset[found["tool"]], found["missing"].split(" and ")
    if not set(missing) <= spec.parameters["properties"].keys():
        return None
    return f"To {_aim(spec)} I need {_listed(f'the {_words(name)}' for name in missing)}. Could you tell me?"


def _may_i(call: ToolCall, toolset: Toolset) -> str:
    given = _listed(
        f'{_words(name)} "{value}"' if isinstance(value, str) else f"{_words(name)} {value}" for name, value in call.arguments.items()
    )
    return f"Shall I {_aim(toolset[call.tool])}{', with ' if given else ''}{given}? Nothing is done before you say yes."


def _aim(spec: ToolSpec) -> str:
    """The tool's description as the rest of a sentence: `file a refund for an order`."""
    aim = spec.description.split(". ")[0].rstrip(".") or _words(spec.name)
    return aim[0].lower() + aim[1:]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _listed(parts: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *head, last = [*parts] or [""]
    return f"{', '.join(head)} and {last}" if head else last
