"""What a model must beat: routers that never call, always call, or follow rules. All map requests to outputs like `Router.generate`."""

import re
from collections.abc import Sequence

from helpers.parsing import NoTool, ToolCall

MAX_READ = 2_000  # characters of a request that the rules look at; no customer needs more to say what they want

_ID = re.compile(r"#?\b((?=[\w./-]*\d[\w./-]*\d)[A-Za-z0-9]+(?:[-_/.][A-Za-z0-9]+)*)\b")
_PERSON = re.compile(r"\b(human|person|manager|supervisor|agent|representative|someone real|real people|somebody)\b", re.IGNORECASE)
_REFUND = re.compile(r"\b(refund\w*|money back|reimburse\w*|credit me)\b", re.IGNORECASE)
_TRACK = re.compile(r"\b(where|track\w*|status|arriv\w*|deliver\w*|shipped|when|eta)\b", re.IGNORECASE)
_REASON = re.compile(r"(?:\b(?:because|since|as|cause|reason:|about)|[-:;,.!?])\s+([^.!?\n]{6,}?)\s*(?:[.!?\n]|$)", re.IGNORECASE)


def always_no_tool(requests: Sequence[str]) -> list[str]:
    """The router that refuses everything: valid, never a false call, and of no use."""
    return [NoTool("never calls").to_json() for _ in requests]


def always_call(requests: Sequence[str]) -> list[str]:
    """The router without a no-tool path: refunds what says refund or has a reason, tracks every other id, escalates all the rest.

    >>> always_call(["My blender B-77 broke"])
    ['{"tool":"request_refund","arguments":{"order_id":"B-77","reason":"My blender B-77 broke"}}']
    """
    return [_call(request) for request in requests]


def keyword_router(requests: Sequence[str]) -> list[str]:
    """Rules and regular expressions: a keyword picks the tool, the first token with two digits is the id, and what follows
    `because`, `about` or punctuation is the reason.

    >>> keyword_router(["Where is ORD-1234?"])
    ['{"tool":"track_order","arguments":{"order_id":"ORD-1234"}}']
    """
    return [_route(request) for request in requests]


def _call(request: str) -> str:
    request = request[:MAX_READ].encode("utf-8", "replace").decode().strip() or "nothing was said"
    found = _ID.search(request)
    if found and (_REFUND.search(request) or not _TRACK.search(request)):
        return ToolCall("request_refund", {"order_id": found[1], "reason": _reason(request, found[1]) or request}).to_json()
    return ToolCall("track_order", {"order_id": found[1]}).to_json() if found else ToolCall("escalate", {"reason": request}).to_json()


def _route(request: str) -> str:
    request = request[:MAX_READ].encode("utf-8", "replace").decode()
    found = _ID.search(request)
    order_id = found[1] if found else None
    reason = _reason(request, order_id)
    if _PERSON.search(request) and reason:
        return ToolCall("escalate", {"reason": reason}).to_json()
    if _REFUND.search(request) and order_id and reason:
        return ToolCall("request_refund", {"order_id": order_id, "reason": reason}).to_json()
    if _TRACK.search(request) and order_id and not _REFUND.search(request):
        return ToolCall("track_order", {"order_id": order_id}).to_json()
    return NoTool("no rule matched").to_json()


def _reason(request: str, order_id: str | None) -> str | None:
    """The longest stretch after a word or sign that introduces reasons and that holds no id."""
    stretches = [match[1].strip() for match in _REASON.finditer(request) if not (order_id and order_id in match[1])]
    return max(stretches, key=len, default=None) or None
