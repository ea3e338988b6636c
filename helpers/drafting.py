"""What the rest of an output probably is: a guess from the catalogue and the request, for the model to check in one step.

A router's output holds little news. Its skeleton follows from the tool's name, and its arguments stand in the request. So a draft
costs nothing to make, and one forward pass tells how much of it the model would have written itself (prompt-lookup and speculative
decoding: Leviathan et al., 2023; Saxena, 2023). Drafts decide how fast an output comes, never what it is.
"""

import json
import re
from dataclasses import dataclass, field

from helpers.negatives import KINDS
from helpers.tools import NO_TOOL, Toolset

OPENING = '{"tool":"'
_ID = re.compile(r"[^\s,;!?()\"']*\d[^\s,;!?()\"']*\d[^\s,;!?()\"']*")
_ID_END = re.compile(r"[.:]*(?:[\s,;!?)]|$)")
_CLAUSE_END = re.compile(r"[.!?;]+(?=\s|$)|\n|$")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)$')  # an open string at the end of a text that began outside of one


@dataclass(frozen=True)
class Drafter:
    """Guesses under one catalogue; `draft` takes what is written so far and returns what might follow, "" when nothing suggests itself."""

    toolset: Toolset
    reasons: tuple[str, ...] = field(default_factory=lambda: tuple(kind.reason for kind in KINDS.values() if "{" not in kind.reason))

    def draft(self, written: str, request: str) -> str:
        """The probable rest of the output that begins with `written`, as text.

        >>> from helpers.tools import support_desk
        >>> Drafter(support_desk()).draft('{"tool":"tr', "where is A-12?")
        'ack_order","arguments":{"order_id":"A-12"}}'
        """
        if len(written) < len(OPENING):
            return OPENING[len(written) :] if OPENING.startswith(written) else ""
        if not written.startswith(OPENING):
            return ""
        name, closed, rest = written[len(OPENING) :].partition('"')
        if not closed:
            fitting = [tool for tool in (*self.toolset.names, NO_TOOL) if tool.startswith(name)]
            return fitting[0][len(name) :] + self._rest(fitting[0], "", request) if len(fitting) == 1 else ""
        return self._rest(name, closed + rest, request) if name == NO_TOOL or name in self.toolset else ""

    def _rest(self, tool: str, written: str, request: str) -> str:
        """What follows `written`, which begins at the quote that closes the tool's name."""
        if tool == NO_TOOL:
            head = '","reason":"'
            if len(written) <= len(head):
                return head[len(written) :] if head.startswith(written) else ""
            found = [reason for reason in self.reasons if reason.startswith(written[len(head) :])] if written.startswith(head) else []
            return found[0][len(written) - len(head) :] + '"}' if len(found) == 1 else ""
        full, arguments = '","arguments":{', [*self.toolset[tool].parameters["properties"]]
        for number, argument in enumerate(arguments):
            full += f'{"," if number else ""}"{argument}":'
            after = "}}" if number + 1 == len(arguments) else f',"{arguments[number + 1]}":"'
            if len(written) <= len(full):
                guess = self._value(argument, "", request)
                return full[len(written) :] + guess + (after if len(guess) > 1 else "") if full.startswith(written) else ""
            if not written.startswith(full):
                return ""
            value = written[len(full) :]
            try:
                _, end = json.JSONDecoder(strict=False).raw_decode(value)
            except ValueError:
                guess = self._value(argument, value, request)
                return guess and guess + after
            full += value[:end]
        closing = "}}"
        left = written[len(full) :]
        return closing[len(left) :] if closing.startswith(left) else ""

    def _value(self, argument: str, value: str, request: str) -> str:
        """The rest of a string argument: the request goes on as it went before, to the end of the id or of the clause."""
        if not value:
            found = _ID.search(request) if argument.endswith("id") else None
            return '"' + (_escaped(found[0].strip("#.:")) + '"' if found else "")
        if not (opened := _STRING.match(value)):
            return ""
        try:
            so_far = json.loads(f'"{opened[1]}"')
        except ValueError:  # half an escape
            return ""
        at = request.find(so_far) if so_far else -1
        if at < 0:
            return ""
        start = at + len(so_far)
        end = (_ID_END if argument.endswith("id") else _CLAUSE_END).search(request, start)
        return _escaped(request[start : end.start()]) + '"'


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
