"""The same rows as other hands would have typed them: noise beside the arguments, so that the right answer stays what it was."""

import random
import re
from collections.abc import Callable, Sequence

from helpers.examples import Example
from helpers.parsing import ToolCall

Change = Callable[[str, random.Random], str]

EMOJI = ("😀", "😡", "🙏", "📦", "🤷‍♀️", "👍🏽", "💸", "❤️")
ZERO_WIDTH = ("\u200b", "\u200c", "\u2060", "\ufeff")  # spaces and joiners that no one sees
FILLER = "I hope you are all keeping well, and thank you for reading this. "
LONG = 10_000  # characters


def typos(text: str, rng: random.Random) -> str:
    """One letter in about twelve dropped, doubled or swapped with the next."""

    def slip(match: re.Match) -> str:
        if rng.random() > 1 / 6:
            return match[0]
        a, b = match[0]
        return rng.choice((b, a + a + b, b + a))

    return re.sub(r"[a-zA-Z]{2}", slip, text)


def emoji(text: str, rng: random.Random) -> str:
    """An emoji after one word in five."""
    return re.sub(r"(?<=\w)(?= )", lambda _: " " + rng.choice(EMOJI) if rng.random() < 0.2 else "", text)


def zero_width(text: str, rng: random.Random) -> str:
    """An invisible sign between one pair of letters in eight."""
    return re.sub(r"(?<=[a-zA-Z])(?=[a-zA-Z])", lambda _: rng.choice(ZERO_WIDTH) if rng.random() < 1 / 8 else "", text)


def spacing(text: str, rng: random.Random) -> str:
    """Some spaces doubled, some turned into line breaks."""
    return re.sub(" ", lambda _: rng.choice((" ", " ", "  ", "\n", "\t")), text)


def padded(text: str, rng: random.Random) -> str:
    """LONG characters of politeness before the request."""
    return FILLER * (LONG // len(FILLER)) + text


CHANGES: dict[str, Change] = {
    "typos": typos,
    "lower case": lambda text, rng: text.lower(),
    "upper case": lambda text, rng: text.upper(),
    "emoji": emoji,
    "zero-width characters": zero_width,
    "spacing": spacing,
}


def perturb(examples: Sequence[Example], change: Change, seed: int = 0) -> list[Example]:
    """The rows with `change` made to their requests, but not inside any argument that a right answer copies from them.

    `change` takes a stretch of the request and a seeded random source; ids get `~` appended, so that they do not pass for the originals.
    """
    changed = []
    for example in examples:
        rng = random.Random(f"{seed}/{example.id}")
        parts = _split(example)
        parts[::2] = [change(part, rng) if part else part for part in parts[::2]]
        changed.append(example.model_copy(update={"id": example.id + "~", "request": "".join(parts)}))
    return changed


def _split(example: Example) -> list[str]:
    """The request cut into stretches that may change (even places) and those that hold arguments (odd places)."""
    spans = []
    for answer in example.answers:
        for value in answer.arguments.values() if isinstance(answer, ToolCall) else ():
            if isinstance(value, str) and value in example.request:
                spans += [(found.start(), found.end()) for found in re.finditer(re.escape(value), example.request)]
    parts, at = [], 0
    for start, end in sorted(spans):
        if start >= at:
            parts += [example.request[at:start], example.request[start:end]]
            at = end
        elif end > at:  # one argument inside another, or reaching out of it
            parts[-1] += example.request[at:end]
            at = end
    return [*parts, example.request[at:]]
