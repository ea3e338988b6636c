"""Rows of a data set, the conversation each becomes, and audits of their labels and of leakage between splits."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from helpers.parsing import InvalidOutput, NoTool, ToolCall, parse_tool_call
from helpers.paths import SUPPORT_DESK
from helpers.tools import NO_TOOL, Toolset, support_desk

SPLITS = ("train", "validation", "test")
CALL_KINDS = {
    "direct": "asked plainly",
    "buried": "among other matters, feelings or stories",
    "messy": "typos, no punctuation, slang, dictation, odd ids",
}


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CallAnswer(_Row):
    """A right call."""

    tool: str
    arguments: dict[str, Any]

    def decision(self) -> ToolCall:
        return ToolCall(self.tool, self.arguments)


class NoToolAnswer(_Row):
    """A right refusal; `reason` is what the model is taught to say, and is not scored."""

    tool: Literal["no_tool"]
    reason: str = Field(min_length=1)

    def decision(self) -> NoTool:
        return NoTool(self.reason)


def _target_form(value: Any) -> str:
    tool = value.get("tool") if isinstance(value, dict) else getattr(value, "tool", None)
    return "no_tool" if tool == NO_TOOL else "call"


Answer = Annotated[Annotated[CallAnswer, Tag("call")] | Annotated[NoToolAnswer, Tag("no_tool")], Discriminator(_target_form)]


class CallTarget(CallAnswer):
    """The gold call, with other answers that are as right."""

    accept: list[Answer] = []


class NoToolTarget(NoToolAnswer):
    """The gold refusal, with other answers that are as right."""

    accept: list[Answer] = []


Target = Annotated[Annotated[CallTarget, Tag("call")] | Annotated[NoToolTarget, Tag("no_tool")], Discriminator(_target_form)]


class Example(_Row):
    """One row: a request, the right answer (`target`, with `accept` for others as right), and the kind of request it is."""

    id: str = Field(min_length=1)
    request: str = Field(min_length=1)
    target: Target
    kind: str

    @property
    def is_call(self) -> bool:
        return isinstance(self.target, CallTarget)

    @property
    def answers(self) -> list[ToolCall | NoTool]:
        """Every right answer, the gold one first."""
        return [self.target.decision(), *(other.decision() for other in self.target.accept)]


def load_examples(split: str) -> list[Example]:
    """The support desk's `train`, `validation` or `test` rows."""
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; the splits are {', '.join(SPLITS)}")
    return read_examples(SUPPORT_DESK / f"{split}.jsonl", support_desk())


def read_examples(path: Path | str, toolset: Toolset) -> list[Example]:
    """Rows of a JSONL file, each checked against the row schema and `toolset`.

    Raises FileNotFoundError, or ValueError naming the file, the line, and what is wrong with it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no data file at {path}; expected JSONL with one row a line (see data/README.md)")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: a request may hold a Unicode line separator
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    examples, lines_of = [], {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            example = Example.model_validate_json(line)
            check_target(example, toolset)
        except ValidationError as failed:
            first = failed.errors(include_url=False, include_input=False)[0]
            raise ValueError(f"{path}, line {number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except ValueError as failed:
            raise ValueError(f"{path}, line {number}: {failed}") from None
        if example.id in lines_of:
            raise ValueError(f"{path}, line {number}: the id {example.id!r} is used on line {lines_of[example.id]} already")
        lines_of[example.id] = number
        examples.append(example)
    if not examples:
        raise ValueError(f"{path} holds no rows")
    return examples


def check_target(example: Example, toolset: Toolset) -> None:
    """Raises ValueError when an answer of the row is not a legal output for `toolset`."""
    for answer in example.answers:
        decision = parse_tool_call(answer.to_json(), toolset)
        if isinstance(decision, InvalidOutput):
            raise ValueError(f"target of row {example.id!r} is not legal: {decision.problem}: {decision.detail}")


def to_messages(request: str, toolset: Toolset, system_role: bool = True) -> list[dict[str, str]]:
    """The conversation up to the model's turn. Templates without a system role (Gemma) get it at the head of the user's turn."""
    system = toolset.system_prompt()
    if not system_role:
        return [{"role": "user", "content": f"{system}\n\n{request}"}]
    return [{"role": "system", "content": system}, {"role": "user", "content": request}]


def to_prompt_completion(example: Example, toolset: Toolset, system_role: bool = True) -> dict[str, list[dict[str, str]]]:
    """The row as TRL's conversational prompt/completion, the only form in which the loss falls on the answer alone.

    The answer stays a string: as a dict, `datasets` would merge the keys of all rows into each (see notebook 03).
    """
    completion = [{"role": "assistant", "content": example.answers[0].to_json()}]
    return {"prompt": to_messages(example.request, toolset, system_role), "completion": completion}


# --- audits -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """Something an audit found: which audit, the rows concerned, and what it saw."""

    audit: str
    rows: tuple[str, ...]
    detail: str


def audit_labels(examples: Iterable[Example]) -> list[Finding]:
    """Breaks of the labelling convention: an argument that is no verbatim stretch of its request, one request with two targets."""
    findings, first_with = [], {}
    for example in examples:
        for answer in example.answers:
            for name, value in getattr(answer, "arguments", {}).items():
                if isinstance(value, str) and value not in example.request:
                    findings.append(Finding("argument not in request", (example.id,), f"{name}={value!r}"))
        twin = first_with.setdefault(_normal(example.request), example)
        if twin is not example and not _same_answers(twin, example):
            findings.append(Finding("label conflict", (twin.id, example.id), f"{example.request!r}"))
    return findings


def audit_leakage(train: Sequence[Example], held_out: Sequence[Example], threshold: float = 0.6) -> list[Finding]:
    """Held-out rows that a train row gives away: the same sentence frame, a shared order id, or a near-duplicate.

    Near means a Jaccard similarity of at least `threshold` between the character 5-grams of the requests, arguments blanked.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is a similarity above 0 and at most 1, got {threshold}")
    findings = []
    frames = {frame(row): row for row in train}
    ids = {value: row for row in train for name, value in _string_arguments(row) if name == "order_id"}
    known = [(row, grams(blanked(row))) for row in train]
    for row in held_out:
        if (twin := frames.get(frame(row))) is not None:
            findings.append(Finding("same frame", (twin.id, row.id), frame(row)))
        for name, value in _string_arguments(row):
            if name == "order_id" and value in ids:
                findings.append(Finding("shared id", (ids[value].id, row.id), value))
        mine = grams(blanked(row))
        for other, theirs in known:
            if not len(mine) * threshold <= len(theirs) <= len(mine) / threshold:
                continue  # sets of such different sizes cannot be that similar
            shared = len(mine & theirs)
            if shared >= threshold * (len(mine) + len(theirs) - shared):
                findings.append(Finding("near-duplicate", (other.id, row.id), f"{other.request!r} ~ {row.request!r}"))
    return findings


def _same_answers(left: Example, right: Example) -> bool:
    """Whether two rows ask for the same decisions; the words of a refusal are free."""
    a, b = ([answer if isinstance(answer, ToolCall) else NO_TOOL for answer in row.answers] for row in (left, right))
    return a == b


def frame(example: Example) -> str:
    """The request in lower case with its arguments blanked: `where is {order_id}`."""
    text = example.request
    for name, value in sorted(_string_arguments(example), key=lambda pair: -len(pair[1])):
        text = text.replace(value, "{" + name + "}")
    return _normal(text)


def _string_arguments(example: Example) -> list[tuple[str, str]]:
    arguments = getattr(example.answers[0], "arguments", {})
    return [(name, value) for name, value in arguments.items() if isinstance(value, str)]


def _normal(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower()).strip(" .!?")


def grams(text: str, n: int = 5) -> set[str]:
    """The pieces of `n` characters that the text holds; a shorter text is its only piece."""
    return {text[i : i + n] for i in range(max(1, len(text) - n + 1))}


def blanked(example: Example) -> str:
    """The request's frame with one sign for every argument, so that requests are alike for their words alone."""
    return re.sub(r"\{\w+\}", "_", frame(example))


def id_format(order_id: str) -> str:
    """An order id's form: a run of capitals is A, of small letters a, of digits 9; other signs are themselves (`KX-4471`: `A-9`)."""
    classes = ("9" if c.isdigit() else "A" if c.isupper() else "a" if c.islower() else c for c in order_id)
    return "".join(c if c in "9Aa" else c * len(list(run)) for c, run in groupby(classes))


def write_examples(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows as JSONL, one a line; returns how many."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)
