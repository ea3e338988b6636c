"""Make train.jsonl from written.jsonl: the hand-written rows, and variations of the calls among them.

    python data/support_desk/build.py

Deterministic. A variation keeps a written row's sentence frame and puts in another order id, now and then another customer's
reason of the same grammatical sort, and the haste of chat: one case for all, typos, other matters before or after. Typos and strange words
come into reasons too: what nobody could guess has to be copied. Every argument stays a verbatim stretch of its request. No row of
validation.jsonl or test.jsonl is read; ids.jsonl is, to keep away from the formats of its order ids.
"""

import random
import re
import string
from collections import defaultdict
from pathlib import Path

from helpers.examples import Example, audit_labels, id_format, read_examples, write_examples
from helpers.negatives import mix
from helpers.paths import SUPPORT_DESK
from helpers.tools import support_desk

SEED, SIZE, NO_TOOL_SHARE = 0, 5000, 0.18
BEFORE = (
    "hi", "hello there", "hey", "good evening", "quick one", "morning all", "sorry to bother you again", "second message from me today",
    "long-time customer here", "hope you're having a good week", "I already tried the website", "writing this from my phone on the bus",
    "my husband usually does this", "first time I've used this chat", "not sure this is the right place", "I've just got home from work",
    "you were great last time", "the kids are screaming so I'll be quick", "it's been a long day",
    "I looked everywhere for an email address",
    "we've been shopping with you since 2011", "the app keeps logging me out", "I was told to write here",
    "love the new website by the way",
    "I don't normally do this", "my internet is terrible today", "got your newsletter this morning", "I'm off on holiday tomorrow",
)  # fmt: skip
AFTER = (
    "thanks", "thank you so much", "cheers", "many thanks in advance", "please and thank you", "kind regards, Moira", "let me know",
    "hope that's all you need", "I'm around until six", "no rush", "as soon as you can please", "thx", "appreciate it",
    "have a nice weekend",
    "sent from my phone", "I'd be grateful", "you can text me", "that's everything", "sorry for the long message", "bye for now",
)  # fmt: skip
SIGNS = "+=%@^~*&|:#$[]{}<>()§°äéøñçß"  # what shops put into ids, beside the usual
CLAUSE_OPENERS = {
    "i", "it", "the", "my", "you", "u", "we", "they", "there", "your", "half", "one", "two", "both", "nobody", "someone", "this", "that",
}  # fmt: skip
LOWER, UPPER = 0.15, 0.04  # how often a whole message is in one case, its arguments too
STRANGE, MISSPELT = 0.4, 0.4  # how often a reason gets a word or two from anywhere, and typos


def make_id(rng: random.Random, kept: set[str]) -> str:
    """An order id in one of many formats, none of them in `kept`, with at least three digits."""
    pools = (string.digits, string.digits, string.ascii_uppercase, string.ascii_lowercase, string.ascii_uppercase + string.digits)
    head = rng.choice(("", "", "", "", "ORD-", "ord", "EU_", "INV", "SO-", "web-"))
    parts = ["".join(rng.choices(rng.choice(pools), k=rng.randint(1, 6))) for _ in range(rng.choice((1, 1, 2, 2, 2, 3)))]
    made = head + rng.choice(("-", "-", "", "/", ".", "_", rng.choice(SIGNS))).join(parts)
    fits = sum(c.isdigit() for c in made) >= 3 and 4 <= len(made) <= 16 and id_format(made) not in kept
    return made if fits else make_id(rng, kept)


def sort_of_reason(row: Example) -> str:
    """`clause` for a reason that could follow `because` or stand alone, `phrase` for one that hangs on a preposition."""
    reason = row.target.arguments["reason"]
    before = row.request[: row.request.find(reason)].lower().split()
    hangs = bool(before) and before[-1] in {"about", "over", "regarding", "with", "for", "of", "re", "concerning", "to"}
    return "phrase" if hangs or reason.split()[0].lower() not in CLAUSE_OPENERS else "clause"


def typo(text: str, rng: random.Random) -> str:
    spots = [i for i in range(1, len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha()]
    if not spots:
        return text
    i = rng.choice(spots)
    return rng.choice((text[:i] + text[i + 1 :], text[:i] + text[i + 1] + text[i] + text[i + 2 :], text[: i + 1] + text[i:]))


def disturb(reason: str, words: list[str], rng: random.Random) -> str:
    """The reason with, now and then, a word or two of other customers in place of its own, and typos."""
    if rng.random() < STRANGE:
        parts = reason.split(" ")
        spots = [i for i, part in enumerate(parts) if len(part) > 4 and part.isalpha()]
        for i in rng.sample(spots, min(len(spots), rng.randint(1, 2))):
            parts[i] = rng.choice(words)
        reason = " ".join(parts)
    if rng.random() < MISSPELT:
        for _ in range(rng.randint(1, 3)):
            reason = typo(reason, rng)
    return reason


def vary(row: Example, reasons: dict[tuple[str, str], list[str]], words: list[str], kept: set[str], rng: random.Random) -> dict:
    """Another row in the frame of this one, as a plain dict without an id; its order id has none of the `kept` formats."""
    pieces, arguments = {}, dict(row.target.arguments)
    for name in arguments:
        old = arguments[name]
        if name == "order_id":
            arguments[name] = make_id(rng, kept)
        elif rng.random() < (0.3 if row.kind == "buried" else 0.6) and sort_of_reason(row) == "clause":
            arguments[name] = rng.choice(reasons[row.target.tool, "clause"])
            if old[0].isupper() and not arguments[name][0].isupper():
                arguments[name] = arguments[name][0].upper() + arguments[name][1:]
        if name == "reason":
            arguments[name] = disturb(arguments[name], words, rng)
        pieces[old] = arguments[name]
    pattern = "(" + "|".join(re.escape(old) for old in sorted(pieces, key=len, reverse=True)) + ")"
    parts = re.split(pattern, row.request)
    parts[1::2] = [pieces[part] for part in parts[1::2]]
    for i in range(0, len(parts), 2):
        if rng.random() < 0.12:
            parts[i] = typo(parts[i], rng)
    request = "".join(parts)
    if rng.random() < 0.25:
        request = rng.choice(BEFORE) + rng.choice((", ", ". ", " - ", "! ", "... ")) + request
    if rng.random() < 0.25:
        request = request.rstrip() + rng.choice((" ", " - ", ", ", "\n")) + rng.choice(AFTER)
    case = rng.random()
    if case < LOWER + UPPER:
        change = str.lower if case < LOWER else str.upper
        request, arguments = change(request), {name: change(value) for name, value in arguments.items()}
    return {"request": request, "target": {"tool": row.target.tool, "arguments": arguments}, "kind": row.kind}


def build(written: list[Example], kept: set[str]) -> list[dict]:
    """SIZE rows: the written calls and variations of them, and NO_TOOL_SHARE of written negatives, in random order."""
    rng = random.Random(SEED)
    calls, negatives = [row for row in written if row.is_call], [row for row in written if not row.is_call]
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in calls:
        if "reason" in row.target.arguments:
            reasons[row.target.tool, sort_of_reason(row)].append(row.target.arguments["reason"])
    words = sorted({word for row in written for word in re.findall(r"[a-z]{5,}", row.request)})
    wanted = SIZE - round(SIZE * NO_TOOL_SHARE)
    made, seen = list(calls), {row.request.lower() for row in written}
    while len(made) < wanted:
        row = Example.model_validate({"id": "variation", **vary(rng.choice(calls), reasons, words, kept, rng)})
        if row.request.lower() not in seen and not audit_labels([row]):
            seen.add(row.request.lower())
            made.append(row)
    rows = mix(made, negatives, NO_TOOL_SHARE, seed=SEED, size=SIZE)
    return [{**row.model_dump(exclude_defaults=True), "id": f"train-{n:04d}"} for n, row in enumerate(rows, 1)]


def read_sources() -> tuple[list[Example], set[str]]:
    """The hand-written rows, and the formats of the ids that are kept for testing."""
    written, new_ids = (read_examples(SUPPORT_DESK / f"{name}.jsonl", support_desk()) for name in ("written", "ids"))
    return written, {id_format(row.target.arguments["order_id"]) for row in new_ids}


def main() -> None:
    path: Path = SUPPORT_DESK / "train.jsonl"
    print(write_examples(path, build(*read_sources())), "rows in", path.name)


if __name__ == "__main__":
    main()
