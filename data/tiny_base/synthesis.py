"""Training rows for the tiny base: catalogues from many domains, requests under them, and the one right answer to each.

Everything is drawn from a `random.Random`, so a seed fixes the stream. Sources: `tools.jsonl` and `phrases.jsonl` (written for this
project), `intents.jsonl` (names and descriptions for the intents of CLINC150) and CLINC150's own requests (not in this repository).
Nothing here speaks of customer support: that is left for the fine-tune to teach. What is taught is the difference between a wish
for an action and its mention: every tool comes with requests, and with questions, refusals and anecdotes in nearly the same words.
"""

import json
import random
import re
import string
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from composed import Composer

from helpers.negatives import reason_for
from helpers.parsing import NoTool, ToolCall
from helpers.tools import INSTRUCTION, Toolset, ToolSpec

HERE = Path(__file__).resolve().parent
HELD_OUT_INTENTS = (  # never trained on: the model card measures routing among tools the base has not seen
    "exchange_rate", "flip_coin", "gas_type", "insurance_change", "mpg",
    "play_music", "recipe", "spelling", "time", "vaccines",
)  # fmt: skip
SUPPORT_WORDS = re.compile(r"refund|parcel|escalat|order|deliver|shipp(ing|ed)|track|package|representative", re.IGNORECASE)
SIGNS = "#:^%=[]+@~|*&!?;<>{}()$€£§°,–'"  # what a code may be joined by, beside the usual
LETTERS = "äöüßéèêáàâåøæñçíóúžšłőçÄÖÜÉÅØÑ"
CHITCHAT = {  # CLINC intents that are conversation rather than work
    "greeting", "goodbye", "thank_you", "tell_joke", "fun_fact", "meaning_of_life", "who_made_you", "what_is_your_name",
    "where_are_you_from", "how_old_are_you", "are_you_a_bot", "do_you_have_pets", "what_are_your_hobbies", "who_do_you_work_for",
}  # fmt: skip
INSTRUCTIONS = (
    INSTRUCTION, INSTRUCTION, "You route requests to tools. Tools:", "Pick the tool that does what is asked:",
    "You can call these tools:", "Tools you may use:", "Choose one tool for the request below.",
)  # fmt: skip

COMMON = 4  # times that a word has to be said to stand for any verb or noun
COMPOSED = 0.45  # of the catalogues hold composed tools
CALL_SHARE = 0.5  # of the turns; the others are refusals, of these kinds in these proportions (`foreign`: nothing here serves it)
REFUSALS = {"negated": 0.28, "information_request": 0.16, "underspecified": 0.18, "ambiguous": 0.09, "steering": 0.07, "foreign": 0.22}
NUMBERS = (
    "I've waited # days already", "it's # past # here", "I'm # years old", "this is the #nd time I write", "there are # of us",
    "it cost me # euros", "my postcode is #", "I live at number #", "it happened on the #th", "I've had it since #", "we met in #",
    "the bus takes # minutes", "I have # percent battery left", "room # by the way", "I'm # minutes from home", "it's page # of the manual",
    "I counted # of them", "my daughter turned # today", "we are # floors up", "it was #:# when I noticed", "only # left",
    "I paid $# for it",
)  # fmt: skip


@dataclass
class Turn:
    """One request and the text of its answer."""

    request: str
    answer: str
    kind: str


@dataclass
class Scene:
    """One system prompt and the turns asked under it."""

    system: str
    turns: list[Turn] = field(default_factory=list)


def read_jsonl(path: Path) -> list[dict]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; it is part of the repository, restore it with git")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def read_clinc(source: str) -> list[dict]:
    """CLINC150's training requests, `{"request", "intent"}`, from a JSONL file or (source `hub`) from the Hugging Face Hub."""
    if source == "hub":
        from datasets import load_dataset

        split = load_dataset("clinc/clinc_oos", "plus", split="train")
        name = split.features["intent"].int2str
        rows = [{"request": r["text"], "intent": name(r["intent"]).replace("oos", "out_of_scope")} for r in split]
    else:
        rows = read_jsonl(Path(source))
    return [row for row in rows if row["intent"] != "order_status" and not SUPPORT_WORDS.search(row["request"])]


def make_code(rng: random.Random, words: list[str]) -> str:
    """An identifier such as `KX-4471`, `7781204`, `wx9_22f`, `kite/88`: one to four runs of digits, letters or a word, joined or not."""
    alphabets = (string.digits, string.digits, string.ascii_uppercase, string.ascii_lowercase, string.digits + string.ascii_uppercase)
    separator = rng.choice(("-", "-", "-", "", "", "/", "_", ".", rng.choice(SIGNS)))
    runs = ["".join(rng.choices(rng.choice(alphabets), k=rng.randint(1, 6))) for _ in range(rng.randint(1, 4))]
    if rng.random() < 0.12:
        word = rng.choice(words).replace("'", "")
        runs[rng.randrange(len(runs))] = rng.choice((word, word.upper(), word.capitalize()))
    if rng.random() < 0.05:
        runs[rng.randrange(len(runs))] += "".join(rng.choices(LETTERS, k=rng.randint(1, 3)))
    code = separator.join(runs)
    if rng.random() < 0.1:  # signs around it or anywhere in it
        at = rng.randint(0, len(code))
        code = f"({code})" if rng.random() < 0.2 else code[:at] + rng.choice(SIGNS) + code[at:]
    return code if sum(c.isdigit() for c in code) >= 2 and 4 <= len(code) <= 18 else make_code(rng, words)


class Synthesis:
    """Draws scenes. `rng` gives every random choice; `held_out` draws on the intents and verbs kept for measuring, and on no others."""

    def __init__(self, clinc: list[dict], seed: int | str, held_out: bool = False):
        self.rng = random.Random(seed)
        self.pieces: list[str] = []  # of which odd words are put together, once there is a tokenizer
        self.checked: dict[str, ToolSpec] = {}
        self.tools = read_jsonl(HERE / "tools.jsonl")
        self.phrases: dict[str, list[str]] = {}
        for row in read_jsonl(HERE / "phrases.jsonl"):
            self.phrases.setdefault(row["kind"], []).append(row["text"])
        self.intents = {i["intent"]: i for i in read_jsonl(HERE / "intents.jsonl") if (i["intent"] in HELD_OUT_INTENTS) == held_out}
        self.said: dict[str, list[str]] = {}
        for row in clinc:
            self.said.setdefault(row["intent"], []).append(row["request"])
        self.oos = self.said["out_of_scope"] + self.phrases["out_of_scope"] * 3
        self.intents = {k: v for k, v in self.intents.items() if len(self.said.get(k, ())) >= 20 and k not in CHITCHAT}
        self.small_talk = [text for intent in sorted(CHITCHAT) for text in self.said.get(intent, ())] + self.phrases["chitchat"] * 5
        self.clauses = [v for t in self.tools for a in t["arguments"] if a["type"] == "text" for v in a["values"]]
        self.requests = [text for intent in sorted(self.intents) for text in self.said[intent]]
        self.reasons = self.phrases["reason"]
        self.words = sorted({w for text in self.requests + self.clauses for w in re.findall(r"[a-z']+", text)})
        said = Counter(w for text in self.requests + self.clauses for w in re.findall(r"[a-z]+", text.lower()))
        self.composer = Composer(
            read_jsonl(HERE / "words.jsonl"),
            read_jsonl(HERE / "frames.jsonl"),
            any_words=sorted(word for word, n in said.items() if n >= COMMON and len(word) > 3),
            make_code=lambda: make_code(self.rng, self.words),
            make_clause=lambda: self._clause(self.reasons),
            held_out=held_out,
        )
        self.composed = COMPOSED

    # --- catalogues -------------------------------------------------------------------------------------------------

    def scene(self, turns: int) -> Scene:
        """A catalogue of two to five tools and `turns` requests under it."""
        rng = self.rng
        size = rng.choice((2, 3, 3, 3, 4, 4, 5))
        composed, style = rng.random() < self.composed, rng.random()
        n_intents = 0 if composed or style < 0.55 else size if style < 0.85 else rng.randint(1, size - 1)
        intents = rng.sample(sorted(self.intents), n_intents)
        tools = self.composer.family(rng, size) if composed else self._pick_tools(size - n_intents)
        entries = [self._instantiate(tool) for tool in tools] + [self._intent_tool(name) for name in intents]
        entries = list({e["spec"]["name"]: e for e in entries}.values())
        rng.shuffle(entries)
        catalogue = Toolset.from_specs(self._checked(e["spec"]) for e in entries)
        scene = Scene(catalogue.system_prompt(rng.choice(INSTRUCTIONS)))
        scene.turns = [self._turn(entries) for _ in range(turns)]
        return scene

    def _checked(self, spec: dict) -> ToolSpec:
        """The catalogue's entry for `spec`; checking a schema takes longer than all the rest, so each is checked once."""
        key = json.dumps(spec)
        if key not in self.checked:
            self.checked[key] = Toolset.from_mcp([spec])[spec["name"]]
        return self.checked[key]

    def _pick_tools(self, n: int) -> list[dict]:
        if n and self.rng.random() < 0.5:  # neighbours from one domain are the easiest to confuse
            domain = self.rng.choice(self.tools)["domain"]
            near = [t for t in self.tools if t["domain"] == domain]
            if len(near) >= n:
                return self.rng.sample(near, n)
        return self.rng.sample(self.tools, n)

    def _instantiate(self, tool: dict) -> dict:
        """The tool under one of its names, with one of its descriptions and its arguments named and ordered afresh."""
        rng = self.rng
        properties, required, named = {}, [], {}
        arguments = list(tool["arguments"])
        rng.shuffle(arguments)
        for argument in arguments:
            key = argument["names"][0]
            name = rng.choice(argument["names"])
            named[key] = (name, argument)
            kind = {"code": "string", "text": "string", "enum": "string"}.get(argument["type"], argument["type"])
            properties[name] = {"type": kind} | ({"enum": argument["values"]} if argument["type"] == "enum" else {})
            if not argument.get("optional"):
                required.append(name)
        description = rng.choice(tool["descriptions"])
        schema = {"type": "object", "properties": properties, "required": required}
        name = self._restyle(rng.choice(tool["names"]))
        spec = {"name": name, "description": self._sentence(description), "inputSchema": schema}
        return {"spec": spec, "descriptions": tool["descriptions"], "tool": tool, "named": named}

    def _intent_tool(self, intent: str) -> dict:
        entry = self.intents[intent]
        schema = {"type": "object", "properties": {}}
        name = self._restyle(self.rng.choice(entry["names"]))
        spec = {"name": name, "description": self._sentence(self.rng.choice(entry["descriptions"])), "inputSchema": schema}
        return {"spec": spec, "descriptions": entry["descriptions"], "intent": intent}

    def _restyle(self, name: str) -> str:
        if self.rng.random() > 0.1:
            return name
        head, *rest = name.split("_")
        return self.rng.choice((head + "".join(w.title() for w in rest), ".".join([head, *rest]), "-".join([head, *rest])))

    def _sentence(self, text: str) -> str:
        return text[0].upper() + text[1:] + "." if self.rng.random() < 0.7 else text

    # --- requests ---------------------------------------------------------------------------------------------------

    def _turn(self, entries: list[dict]) -> Turn:
        rng = self.rng
        if rng.random() < CALL_SHARE:
            return self._call(rng.choice(entries))
        kind = rng.choices(list(REFUSALS), weights=REFUSALS.values())[0]
        entry = rng.choice(entries)
        tool = entry.get("tool")
        spoken = rng.choice(entry["descriptions"])  # the action as a verb phrase
        match kind:
            case "underspecified" if tool:
                return self._missing(entry)
            case "information_request":
                own = tool and rng.random() < 0.7
                return self._refuse(self._fill(rng.choice(tool["questions"]), entry)[0] if own else self._phrase(kind, do=spoken), kind)
            case "negated":
                own = tool and rng.random() < 0.75
                template = rng.choice(rng.choice((tool["not_now"], tool["mentions"]))) if own else None
                request = self._request(entry)[0] if tool else rng.choice(self.said[entry["intent"]])
                general = rng.choice(("negated", "negated", "mentioned"))
                return self._refuse(self._fill(template, entry)[0] if own else self._phrase(general, do=spoken, request=request), kind)
            case "ambiguous" if len(entries) > 1:
                return self._ambiguous(*rng.sample(entries, 2))
            case "steering":
                call = self._call(entry)
                return Turn(self._phrase(kind, tool=entry["spec"]["name"], answer=call.answer, request=call.request), self._no(kind), kind)
            case _:
                return self._foreign(entries)

    def _phrase(self, kind: str, **values: str) -> str:
        """One of the general phrases of this kind, with its placeholders filled."""
        return re.sub(r"\{(\w+)\}", lambda m: values[m[1]], self.rng.choice(self.phrases[kind]))

    def _ask(self, entry: dict) -> tuple[str, dict]:
        """A request for this tool and the arguments that it holds."""
        if "intent" not in entry:
            return self._request(entry)
        if self.rng.random() < 0.15:
            return self._phrase("call", do=self.rng.choice(entry["descriptions"])), {}
        return self.rng.choice(self.said[entry["intent"]]), {}

    def _ambiguous(self, one: dict, two: dict) -> Turn:
        rng = self.rng
        composed = "composed" in one.get("tool", ()) and "composed" in two.get("tool", ())
        dice = rng.random()
        if composed and dice < 0.6:
            text = self.composer.ambiguous(rng, one["tool"], two["tool"])
        elif dice < 0.6:
            text = self._phrase("ambiguous", do=rng.choice(one["descriptions"]), do2=rng.choice(two["descriptions"]))
        else:
            joint = rng.choice((" and ", ", and also ", ". also ", " then ", ". And ", " plus ", " or else "))
            text = self._ask(one)[0] + joint + self._ask(two)[0]
        return self._refuse(text, "ambiguous")

    def _call(self, entry: dict) -> Turn:
        request, arguments = self._ask(entry)
        types = {argument["type"] for _, argument in entry.get("named", {}).values()}
        spans = [v for v in arguments.values() if isinstance(v, str)]
        case = self.rng.random()
        if case < 0.15 and types <= {"code", "text", "string"}:  # the whole message in one case, its arguments too
            change = str.lower if case < 0.12 else str.upper
            request, spans, arguments = change(request), [change(v) for v in spans], {k: change(v) for k, v in arguments.items()}
        request = self._roughen(request, spans, clauses="text" not in types)
        order = [a for a in entry["spec"]["inputSchema"]["properties"] if a in arguments]
        return Turn(request, ToolCall(entry["spec"]["name"], {a: arguments[a] for a in order}).to_json(), "call")

    def _request(self, entry: dict) -> tuple[str, dict]:
        rng, tool = self.rng, entry["tool"]
        required = [a for a in tool["arguments"] if not a.get("optional")]
        if len(required) == 1 and required[0]["type"] == "code" and rng.random() < 0.2:  # what was underspecified, but for the id
            key = required[0]["names"][0]
            asked = rng.choice(tool["missing"][key]).rstrip(" .!?")
            joint = rng.choice((", it's ", ": ", ". The number is ", " - ", " (", ", number ", ". ", " "))
            return self._fill(f"{asked}{joint}{{{key}}}{')' if joint == ' (' else ''}", entry)
        return self._fill(rng.choice(tool["requests"]), entry)

    def _fill(self, template: str, entry: dict) -> tuple[str, dict]:
        """The template with values in its placeholders, and those values as arguments under the catalogue's names."""
        arguments = {}

        def put(match: re.Match) -> str:
            name, argument = entry["named"][match[1]]
            text, arguments[name] = self._value(argument)
            return text

        return re.sub(r"\{(\w+)\}", put, template), arguments

    def _value(self, argument: dict) -> tuple[str, object]:
        """A value as it stands in the request, and as it stands in the arguments."""
        rng = self.rng
        match argument["type"]:
            case "code":
                value = make_code(rng, self.words)
            case "integer":
                value = rng.randint(argument["min"], argument["max"])
                return str(value), value
            case "number":
                value = round(rng.uniform(argument["min"], argument["max"]), rng.choice((1, 1, 2)))
                return str(value), value
            case "boolean":
                value = rng.random() < 0.5
                return rng.choice(argument["true" if value else "false"]), value
            case "enum":
                value = rng.choice(argument["values"])
            case "text":
                value = self._clause(argument["values"])
            case _:
                value = rng.choice(argument["values"])
                if rng.random() < 0.3:  # a value that cannot be known by heart must be copied
                    value = " ".join(rng.choices(self.words, k=rng.randint(1, 3)))
        return value, value

    def _clause(self, values: list[str]) -> str:
        """Free words, mostly the tool's own; also others', pairs, nonsense, typos, capitals and quotes, so that they must be copied."""
        rng = self.rng
        dice = rng.random()
        clause = rng.choice(values or self.reasons if dice < 0.7 else self.clauses if dice < 0.82 else self.requests)
        if dice > 0.88:
            clause = " ".join(self._odd_word() if rng.random() < 0.4 else rng.choice(self.words) for _ in range(rng.randint(2, 12)))
        elif rng.random() < 0.25:  # a word or two that nobody could guess
            words = clause.split(" ")
            for _ in range(rng.randint(1, 2)):
                words[rng.randrange(len(words))] = self._odd_word()
            clause = " ".join(words)
        if rng.random() < 0.15:
            clause += rng.choice((" and ", ", ", " but ", " so ")) + rng.choice(self.clauses)
        while rng.random() < 0.25:
            clause = self._typo(clause)
        case = rng.random()
        if case < 0.05:
            clause = clause.upper()
        elif case < 0.08:
            word = rng.choice(clause.split())
            clause = clause.replace(word, f'"{word}"', 1)
        return clause.strip(" .?!,")

    def _missing(self, entry: dict) -> Turn:
        rng, tool = self.rng, entry["tool"]
        if rng.random() < 0.2:
            lacking = entry["spec"]["inputSchema"]["required"]
            request = self._phrase("underspecified", do=rng.choice(entry["descriptions"]))
        else:
            key = rng.choice(sorted(tool["missing"]))
            names = {entry["named"][part][0] for part in key.split("+")}
            lacking = [name for name in entry["spec"]["inputSchema"]["required"] if name in names]
            request = self._fill(rng.choice(tool["missing"][key]), entry)[0]
        reason = reason_for("underspecified", entry["spec"]["name"], lacking)
        return Turn(self._roughen(request), NoTool(reason).to_json(), "underspecified")

    def _foreign(self, entries: list[dict]) -> Turn:
        """A request that no tool of this catalogue serves."""
        rng = self.rng
        here = {e.get("intent") for e in entries} | {e["tool"]["names"][0] for e in entries if "tool" in e}
        dice = rng.random()
        if dice < 0.2:
            return self._refuse(rng.choice(self.small_talk), "chitchat")
        if dice < 0.3:
            return self._refuse(rng.choice(self.oos), "out_of_scope")
        if dice < 0.55:
            intent = rng.choice([i for i in sorted(self.intents) if i not in here])
            return self._refuse(rng.choice(self.said[intent]), "out_of_scope")
        family = [e["tool"] for e in entries if "composed" in e.get("tool", ())]
        if family and dice < 0.9:
            return self._refuse(self._request(self._instantiate(self.composer.neighbour(rng, family)))[0], "out_of_scope")
        domains = {e["tool"]["domain"] for e in entries if "tool" in e}
        near = dice < 0.8 and bool(domains)  # a neighbour of these tools that happens not to be here
        others = [t for t in self.tools if (t["domain"] in domains) == near and t["names"][0] not in here]
        request, _ = self._request(self._instantiate(rng.choice(others)))
        return self._refuse(request, "out_of_scope")

    def _no(self, kind: str) -> str:
        return NoTool(reason_for(kind)).to_json()

    def _refuse(self, request: str, kind: str) -> Turn:
        return Turn(self._roughen(request), self._no(kind), kind)

    def _roughen(self, request: str, protect: list[str] = (), clauses: bool = True) -> str:
        """The request as hurried people send it: other matters first or last, lower case, typos; never inside a `protect`ed argument.

        `clauses` lets others' free words stand beside it; where the tool takes free words itself that would leave open which are meant.
        """
        rng = self.rng
        parts = (
            re.split("(" + "|".join(re.escape(p) for p in sorted(protect, key=len, reverse=True)) + ")", request) if protect else [request]
        )
        case = rng.random()
        for i in range(0, len(parts), 2):
            if case < 0.15:
                parts[i] = parts[i].lower()
            elif case < 0.17:
                parts[i] = parts[i].upper()
            if rng.random() < 0.15:
                parts[i] = self._typo(parts[i])
        text = "".join(parts)
        if case > 0.6:
            text = text[:1].upper() + text[1:] if not (protect and text.startswith(tuple(protect))) else text
        if rng.random() < 0.12:
            text += rng.choice((" thanks", " please", ". Thank you!", "!!", " asap", " ok?", ". cheers", " :)"))
        if rng.random() < 0.12:
            text = rng.choice(("hi, ", "Hello. ", "hey ", "ok so ", "um ", "Good morning, ", "right, ")) + text
        dice = rng.random()
        if dice < 0.3:
            aside = rng.choice(self.clauses) if clauses and dice < 0.06 else self._aside("before" if dice < 0.2 else "after")
            first, last = (aside, text) if dice < 0.2 else (text.rstrip("."), aside)
            text = f"{first}{rng.choice(('. ', '. ', '. ', ', ', ' - ', '; ', '! ', chr(10)))}{last}"
        return text

    def _aside(self, place: str) -> str:
        """Words beside the request that ask for nothing; some hold numbers, which are not the ones to copy."""
        rng = self.rng
        if rng.random() < 0.3:
            aside = re.sub("#", lambda _: str(rng.randint(2, rng.choice((9, 28, 60)))), rng.choice(NUMBERS))
        else:
            aside = rng.choice(self.phrases[place])
        return aside[:1].upper() + aside[1:] if rng.random() < 0.6 else aside

    def _typo(self, text: str) -> str:
        spots = [i for i in range(1, len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha()]
        if not spots:
            return text
        i = self.rng.choice(spots)
        return self.rng.choice((text[:i] + text[i + 1 :], text[:i] + text[i + 1] + text[i] + text[i + 2 :], text[:i] + text[i] + text[i:]))

    def _odd_word(self) -> str:
        """A word of pieces that the tokenizer knows, put together as they never are, or a known one misspelt."""
        rng = self.rng
        if self.pieces and rng.random() < 0.7:
            return "".join(rng.choices(self.pieces, k=rng.choice((1, 2, 2, 3))))
        return self._typo(rng.choice(self.words))

    # --- copying ----------------------------------------------------------------------------------------------------

    def copy_scene(self, turns: int) -> Scene:
        """Nothing but copying: the request is words and codes in no order, the answer repeats a marked stretch of them."""
        rng = self.rng
        scene = Scene(rng.choice(("copy", "repeat", "say it again")))
        for _ in range(turns):
            sorts = rng.choices(("code", "word", "odd"), weights=(0.25, 0.35, 0.4), k=rng.randint(2, 8))
            makers = {"code": lambda: make_code(rng, self.words), "word": lambda: rng.choice(self.words), "odd": self._odd_word}
            words = [makers[sort]() for sort in sorts]
            if rng.random() < 0.25:
                words = [w.capitalize() for w in words]
            value = " ".join(words)
            before, after = (" ".join(rng.choices(self.words, k=rng.randint(0, 4))) for _ in range(2))
            opening, closing = rng.choice((("[", "]"), ("<", ">"), ("(", ")"), (": ", "\n")))
            scene.turns.append(
                Turn(f"{before} {opening}{value}{closing} {after}".strip(" "), json.dumps({"copy": value}, separators=(",", ":")), "copy")
            )
        return scene
