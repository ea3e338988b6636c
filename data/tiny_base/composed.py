"""Tools without end, each composed of a verb and a noun: what cannot be learned by heart has to be read in the catalogue.

A composed tool has the form of an entry of `tools.jsonl`, so that `synthesis.py` treats it like one. Its sentences come from
`frames.jsonl`, whose words say whether something is wished, asked, refused or told, and hold for every verb and noun of `words.jsonl`.
"""

import random
import re
from collections.abc import Callable

Words = dict  # {"verb", "ing", "past", "also"} or {"noun", "also"}, a line of words.jsonl

SHAPES = (("code",), ("code", "reason"), ("code", "reason"), ("reason",))  # the arguments of a tool
CODE_NAMES = ("{}_id", "{}_number", "reference", "id", "code", "number", "ref", "file_number")
REASON_NAMES = ("reason", "reason", "why", "cause", "details", "note", "explanation", "problem", "grounds")
HELD_OUT = 10  # every tenth verb is kept for measuring
ANY_VERB, ANY_NOUN = 0.15, 0.35  # how often any word stands for a verb or noun, so that all words are read, not only the listed ones
SYNONYM = 0.25  # how often a verb or noun goes by another name
SLOT = re.compile(r"\{(\w+)\}")


class Composer:
    """Draws composed tools. Now and then one of `any_words` stands for a verb or noun; `make_code` and `make_clause` give values where a
    sentence names what its tool does not take.
    """

    def __init__(
        self,
        words: list[dict],
        frames: list[dict],
        any_words: list[str],
        make_code: Callable[[], str],
        make_clause: Callable[[], str],
        held_out: bool = False,
    ):
        verbs = [w for w in words if "verb" in w]
        self.verbs = [w for n, w in enumerate(verbs) if (n % HELD_OUT == 0) == held_out]
        self.nouns = [w for w in words if "noun" in w]
        kept = {name for n, w in enumerate(verbs) if n % HELD_OUT == 0 for name in _names(w)}
        self.any_words = [word for word in any_words if word not in kept]
        self.any_verb = 0.0 if held_out else ANY_VERB
        self.make = {"code": make_code, "code2": make_code, "reason": make_clause}
        self.frames: dict[str, list[str]] = {}
        for frame in frames:
            slots = {s for s in SLOT.findall(frame["text"]) if s in self.make}
            kind = "call " + " ".join(sorted(slots)) if frame["kind"] == "call" else frame["kind"] + frame.get("lacks", "")
            self.frames.setdefault(kind, []).append(frame["text"])

    def family(self, rng: random.Random, size: int) -> list[dict]:
        """`size` tools: mostly for one noun, else one verb for several nouns, else unrelated."""
        dice = rng.random()
        verbs = [self._any_verb(rng) if rng.random() < self.any_verb else verb for verb in self._unlike(rng, self.verbs, size)]
        nouns = [self._any_noun(rng) if rng.random() < ANY_NOUN else noun for noun in self._unlike(rng, self.nouns, size)]
        if dice < 0.5:
            nouns = nouns[:1] * size
        elif dice < 0.7:
            verbs = verbs[:1] * size
        return [self._tool(rng, verb, noun) for verb, noun in zip(verbs, nouns, strict=True)]

    def _any_noun(self, rng: random.Random) -> Words:
        noun = " ".join(rng.sample(self.any_words, 1 if rng.random() < 0.7 else 2))
        return {"noun": noun, "also": [noun]}

    def _any_verb(self, rng: random.Random) -> Words:
        verb = rng.choice(self.any_words)
        return {"verb": verb, "ing": verb.removesuffix("e") + "ing", "past": verb.removesuffix("e") + "ed", "also": [verb]}

    def neighbour(self, rng: random.Random, family: list[dict]) -> dict:
        """A tool that is not in this family, but does the same to something else or something else to the same."""
        like = rng.choice(family)
        if rng.random() < 0.7:
            return self._tool(rng, self._unlike(rng, self.verbs, 1, [t["verb"] for t in family])[0], like["noun"])
        return self._tool(rng, like["verb"], self._unlike(rng, self.nouns, 1, [t["noun"] for t in family])[0])

    def ambiguous(self, rng: random.Random, one: dict, two: dict) -> str:
        """A message that asks for both tools, or leaves open for which."""
        text = rng.choice(self.frames["ambiguous"])
        text = SLOT.sub(lambda m: self._word(rng, m[1][:-1], two) if m[1][-1] == "2" and m[1] != "code2" else m[0], text)
        return self._say(rng, text, one, ())

    @staticmethod
    def _unlike(rng: random.Random, words: list[Words], size: int, taken: list[Words] = ()) -> list[Words]:
        """`size` words none of which is another's synonym, or that of one `taken`."""
        chosen: list[Words] = []
        while len(chosen) < size:
            word = rng.choice(words)
            if not any(_names(word) & _names(other) for other in [*chosen, *taken]):
                chosen.append(word)
        return chosen

    def _tool(self, rng: random.Random, verb: Words, noun: Words) -> dict:
        shape = rng.choice(SHAPES)
        tool = {"verb": verb, "noun": noun, "domain": noun["noun"], "composed": True}
        short = [v for v in (verb["verb"], *verb["also"]) if len(v.split()) <= 2]
        kept = noun["noun"]
        tool["names"] = [_identifier(f"{rng.choice(short) if rng.random() < SYNONYM else verb['verb']} {kept}")]
        action = rng.choice(verb["also"]) if rng.random() < SYNONYM else verb["verb"]
        thing = rng.choice(noun["also"]) if rng.random() < SYNONYM else kept
        tool["descriptions"] = [f"{action} {_article(thing)} {thing}"]
        last = _identifier(kept).split("_")[-1]
        tool["arguments"] = [
            {"names": ["code", *(name.format(last) for name in rng.sample(CODE_NAMES, 2))], "type": "code"}
            if argument == "code"
            else {"names": ["reason", *rng.sample(REASON_NAMES, 2)], "type": "text", "values": []}
            for argument in shape
        ]
        exact, wider = "call " + " ".join(shape), "call code reason"
        tool["requests"] = [self._say(rng, rng.choice(self.frames[exact if rng.random() < 0.75 else wider]), tool, shape) for _ in range(4)]
        tool["questions"] = [self._say(rng, rng.choice(self.frames["information_request"]), tool, shape) for _ in range(2)]
        tool["not_now"] = [self._say(rng, rng.choice(self.frames["negated"]), tool, shape) for _ in range(3)]
        tool["mentions"] = tool["not_now"]
        tool["missing"] = {}
        for lacking in ("code", "reason", "both"):
            names = shape if lacking == "both" else (lacking,)
            if lacking == "both" or lacking in shape:
                frames = [rng.choice(self.frames["underspecified" + lacking]) for _ in range(2)]
                tool["missing"].setdefault("+".join(names), []).extend(self._say(rng, frame, tool, shape) for frame in frames)
        return tool

    def _say(self, rng: random.Random, text: str, tool: dict, shape: tuple[str, ...]) -> str:
        """The frame about this tool; values that the tool takes stay open, others are made up."""

        def put(match: re.Match) -> str:
            slot = match[1]
            if slot in shape:
                return match[0]
            return self.make[slot]() if slot in self.make else self._word(rng, slot, tool)

        return SLOT.sub(put, text)

    @staticmethod
    def _word(rng: random.Random, slot: str, tool: dict) -> str:
        """A form of the tool's verb, or its noun, now and then by another name."""
        if slot == "noun":
            return rng.choice(tool["noun"]["also"]) if rng.random() < SYNONYM else tool["noun"]["noun"]
        if slot == "verb":
            return rng.choice(tool["verb"]["also"]) if rng.random() < SYNONYM else tool["verb"]["verb"]
        return tool["verb"][{"verbing": "ing", "verbed": "past"}[slot]]


def _names(word: Words) -> set[str]:
    return {word.get("verb") or word["noun"], *word["also"]}


def _article(noun: str) -> str:
    return "an" if noun[0].lower() in "aeiou" else "a"


def _identifier(text: str) -> str:
    return re.sub(r"\W+", "_", text.lower()).strip("_")
