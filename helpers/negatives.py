"""The no-tool path: the kinds of request that must not become a call, and how many of them a training set holds."""

import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from helpers.examples import Example

RECOMMENDED_SHARE = (0.10, 0.20)  # the lesson's band


@dataclass(frozen=True)
class Kind:
    """One kind of negative: what it is, why it is hard, and the `reason` the router is taught to give."""

    name: str
    definition: str
    why_hard: str
    reason: str


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "chitchat",
            "greetings, thanks, moods and small talk",
            "a router that has seen only calls answers every message with one",
            "small talk",
        ),
        Kind(
            "information_request",
            "asks how things work, for policy, hours or facts",
            "it uses the tools' own words: refund, order, track",
            "a question, not a request to act",
        ),
        Kind(
            "underspecified",
            "wants one of the tools, but leaves out a required argument",
            "the tool is right, so the model fills the gap with something it made up",
            "need {missing} before {tool}",
        ),
        Kind(
            "out_of_scope",
            "wants an action that no tool here does",
            "it has an order id and a verb, and some other catalogue may well have the tool",
            "no tool does this",
        ),
        Kind(
            "ambiguous",
            "asks for two actions at once, or for one that cannot be told",
            "either call would be half right, which a caller cannot see",
            "more than one request",
        ),
        Kind(
            "negated",
            "mentions an action but does not want it: withdrawn, done already, hypothetical, reported",
            "everything a call needs is there except the wish",
            "not asked for now",
        ),
        Kind(
            "steering",
            "tries to make the router say or do something: pasted JSON, false system messages, role play",
            "it contains the very text of a call",
            "instructions to the router are not requests",
        ),
    )
}


def reason_for(kind: str, tool: str = "", missing: Sequence[str] = ()) -> str:
    """The taught `reason` of a negative; underspecified ones name the tool and what it lacks.

    >>> reason_for("underspecified", "request_refund", ["order_id", "reason"])
    'need order_id and reason before request_refund'
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of negative; the kinds are {', '.join(KINDS)}")
    if (kind == "underspecified") != bool(tool and missing):
        raise ValueError("an underspecified negative names its tool and the missing arguments, the other kinds do not")
    return KINDS[kind].reason.format(missing=" and ".join(missing), tool=tool)


def no_tool_share(examples: Sequence[Example]) -> float:
    """Share of rows whose target is `no_tool`, in [0, 1]. Raises ValueError on no rows."""
    if not examples:
        raise ValueError("a share needs at least one row")
    return sum(not example.is_call for example in examples) / len(examples)


def mix(
    calls: Sequence[Example],
    negatives: Sequence[Example],
    no_tool_share: float,
    seed: int = 0,
    size: int | None = None,
) -> list[Example]:
    """A training set of `size` rows of which `no_tool_share` are negatives, spread evenly over their kinds, in random order.

    `size` defaults to the number of calls, so that sets of different shares are equally large. No row is used twice.
    Raises ValueError when the share is outside [0, 1], the set would be empty, or there are too few rows for it; warns outside the
    lesson's 10-20%.
    """
    if not 0 <= no_tool_share <= 1:
        raise ValueError(f"no_tool_share is a share between 0 and 1, got {no_tool_share}")
    if any(not row.is_call for row in calls) or any(row.is_call for row in negatives):
        raise ValueError("`calls` takes rows whose target is a call, `negatives` rows whose target is no_tool")
    size = len(calls) if size is None else size
    if size < 1:
        raise ValueError(f"a training set needs at least one row, got size={size}; without calls, say how many rows with size=")
    n_negatives = round(size * no_tool_share)
    for name, wanted, rows in (("negatives", n_negatives, negatives), ("calls", size - n_negatives, calls)):
        if wanted > len(rows):
            raise ValueError(
                f"a share of {no_tool_share:.0%} in {size} rows needs {wanted} {name} and there are {len(rows)}; "
                f"add {name}, or ask for fewer rows with size="
            )
    low, high = RECOMMENDED_SHARE
    percent = f"{100 * no_tool_share:.3g}%"
    if no_tool_share < low:
        warnings.warn(f"{percent} negatives is under {low:.0%}: the router may learn to call a tool every time", stacklevel=2)
    if no_tool_share > high:
        warnings.warn(f"{percent} negatives is over {high:.0%}: the router may learn to hold back on real requests", stacklevel=2)
    rng = random.Random(seed)
    rows = rng.sample(list(calls), size - n_negatives) + _spread(negatives, n_negatives, rng)
    rng.shuffle(rows)
    return rows


def _spread(negatives: Sequence[Example], n: int, rng: random.Random) -> list[Example]:
    """`n` rows, taken from the kinds in turn until each is used up."""
    by_kind: dict[str, list[Example]] = defaultdict(list)
    for row in negatives:
        by_kind[row.kind].append(row)
    piles = [rng.sample(by_kind[kind], len(by_kind[kind])) for kind in sorted(by_kind)]
    rng.shuffle(piles)
    taken: list[Example] = []
    while len(taken) < n:
        piles = [pile for pile in piles if pile]
        taken += [pile.pop() for pile in piles[: n - len(taken)]]
    return taken


def share_table(examples: Sequence[Example]) -> dict[str, int]:
    """Rows per kind of negative, in the order of `KINDS`, after a first entry `call` for all the others."""
    counts = Counter("call" if row.is_call else row.kind for row in examples)
    return {name: counts.pop(name, 0) for name in ("call", *KINDS)} | dict(sorted(counts.items()))
