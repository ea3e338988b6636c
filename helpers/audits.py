"""What a look at the data finds before any training: one report over all audits."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array

from helpers.examples import Example, audit_labels, blanked, grams
from helpers.negatives import KINDS, RECOMMENDED_SHARE, no_tool_share, share_table
from helpers.parsing import InvalidOutput, NoTool, parse_tool_call
from helpers.tools import NO_TOOL, Toolset, support_desk

# Every kind of finding, worst first. An error makes a measured number wrong or teaches something false; a warning wants a look.
SEVERITY = {
    "duplicate across splits": "error",
    "near duplicate across splits": "error",
    "label conflict": "error",
    "argument not in request": "error",
    "unknown tool": "error",
    "target breaks schema": "error",
    "possible label conflict": "warning",
    "duplicate within a split": "warning",
    "near duplicate in train": "warning",
    "no_tool share": "warning",
    "missing kind": "warning",
    "rare kind": "warning",
    "length outlier": "warning",
    "empty request": "warning",
}
RARE = 0.05  # a kind of negative below this share of its split's negatives is taught, or measured, by too few rows
_LONGEST, _SHOWN = 80, 5  # characters in a sentence; findings of a kind, and ids of a finding, that a report spells out
_BLOCK = 256  # rows compared with all others at a time
Placed = tuple[str, Example]  # a row, after the name of its split


@dataclass(frozen=True)
class Finding:
    """What an audit saw: its kind (a key of `SEVERITY`), splits and ids of the rows concerned, and one sentence, cut to 80 characters."""

    kind: str
    splits: tuple[str, ...]
    rows: tuple[str, ...]
    text: str

    @property
    def severity(self) -> str:
        """`error` or `warning`."""
        return SEVERITY[self.kind]

    def __str__(self) -> str:
        more = f" and {len(self.rows) - _SHOWN} more" if len(self.rows) > _SHOWN else ""
        return f"{', '.join(self.rows[:_SHOWN]) or 'no row'}{more} ({', '.join(self.splits)}): {self.text}"


@dataclass(frozen=True)
class AuditReport:
    """All findings of an audit, errors first, and for each split its rows of every kind (`share_table`)."""

    findings: tuple[Finding, ...]
    tables: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings are allowed."""
        return not self.errors

    def counts(self) -> dict[str, int]:
        """Findings per kind, 0 included, in the order of `SEVERITY`."""
        return {kind: sum(finding.kind == kind for finding in self.findings) for kind in SEVERITY}

    def check(self) -> None:
        """Raises AssertionError with the errors, up to five of a kind, when there are any."""
        if not self.ok:
            raise AssertionError(f"the data need mending before any training:\n{AuditReport(self.errors)._details(zeros=False)}")

    def __str__(self) -> str:
        errors = len(self.errors)
        head = f"errors: {errors}, warnings: {len(self.findings) - errors}"
        return "\n".join([head, self._details(zeros=True), *self._shares()])

    def _repr_markdown_(self) -> str:
        counts = [f"| {SEVERITY[kind]} | {kind} | {n} |" for kind, n in self.counts().items()]
        details = ["", "```text", self._details(zeros=False), "```"] if self.findings else []  # fenced: requests may hold Markdown, HTML
        shares = [f"\n{line}" for line in self._shares()]
        return "\n".join(["| severity | kind | findings |", "| --- | --- | --- |", *counts, *details, *shares])

    def _shares(self) -> Iterator[str]:
        """A line per split with the share of each kind in its rows."""
        for split, table in self.tables.items():
            total = sum(table.values())
            yield f"{split}, {total:,} rows: " + ", ".join(f"{kind} {n / total:.1%}" for kind, n in table.items())

    def _details(self, zeros: bool) -> str:
        """A line per kind with its count (kinds without findings only with `zeros`), each followed by up to five findings."""
        lines = []
        for kind, n in self.counts().items():
            lines += [f"{SEVERITY[kind]:<7}  {kind:<28}  {n:>5}"] if n or zeros else []
            lines += [f"    {finding}" for finding in self.findings if finding.kind == kind][:_SHOWN]
            lines += [f"    … and {n - _SHOWN} more"] if n > _SHOWN else []
        return "\n".join(lines)


def audit(splits: Mapping[str, Sequence[Example]], toolset: Toolset | None = None, near: float = 0.6) -> AuditReport:
    """The report on `splits` (name -> rows, training first; `train` is the training set) for `toolset` (default: the support desk's).

    Alike means a Jaccard similarity of at least `near` between the sets of character 5-grams. The order of rows does not matter.
    Raises ValueError when there is no split, or an empty one, or when `near` is no similarity.
    """
    if not splits or not all(splits.values()):
        sizes = {split: len(rows) for split, rows in splits.items()}
        raise ValueError(f"an audit needs splits with rows in each, {{name: rows}}; it got splits of these sizes: {sizes}")
    if not 0 < near <= 1:
        raise ValueError(f"near is a similarity above 0 and at most 1, got {near}")
    placed = [(split, row) for split, rows in splits.items() for row in sorted(rows, key=repr)]
    found = [*_duplicates(placed), *_near_duplicates(placed, near), *_conflicts(placed, near)]
    found += _bad_targets(placed, toolset or support_desk())
    for split in splits:
        rows = [item for item in placed if item[0] == split]
        found += [*_shares(split, rows), *_lengths(rows)]
    findings = sorted(found, key=lambda one: (list(SEVERITY).index(one.kind), one.rows, one.splits, one.text))
    return AuditReport(tuple(findings), {split: share_table(rows) for split, rows in splits.items()})


def _finding(kind: str, placed: Sequence[Placed], sentence: str, *words: str) -> Finding:
    """A finding on `placed` rows; `words` fill the gaps of `sentence`, the longest ones cut until they fit."""
    lines, room = [" ".join(word.split()) for word in words], _LONGEST - len(sentence.format(*[""] * len(words)))
    most = next(n for n in range(room, 0, -1) if sum(min(len(line), n) for line in lines) <= room)
    cut = [line if len(line) <= most else line[: most - 1] + "…" for line in lines]
    return Finding(kind, tuple(dict.fromkeys(split for split, _ in placed)), tuple(row.id for _, row in placed), sentence.format(*cut))


def _duplicates(placed: Sequence[Placed]) -> Iterator[Finding]:
    same = defaultdict(lambda: defaultdict(list))
    for split, row in placed:
        same[_plain(row)][split].append((split, row))
    for request, by_split in same.items():
        everywhere = [item for items in by_split.values() for item in items]
        if len(by_split) > 1:
            yield _finding("duplicate across splits", everywhere, f"{len(everywhere)} rows of {len(by_split)} splits say '{{}}'", request)
        for items in (items for items in by_split.values() if len(items) > 1):
            yield _finding("duplicate within a split", items, f"{len(items)} rows say '{{}}'", request)


def _near_duplicates(placed: Sequence[Placed], near: float) -> Iterator[Finding]:
    """One finding for each row that is alike, arguments blanked, to rows before it: of an earlier split, or of train as it is."""
    before, plain = defaultdict(list), [_plain(row) for _, row in placed]
    for a, b, likeness in _alike([blanked(row) for _, row in placed], near):
        across = placed[a][0] != placed[b][0]
        if (across or placed[a][0] == "train") and plain[a] != plain[b]:  # exact duplicates are counted already
            before["near duplicate across splits" if across else "near duplicate in train", b].append((-likeness, a))
    for (kind, b), others in before.items():
        most, a = min(others)
        rows = [placed[number] for number in [*sorted(number for _, number in others), b]]
        yield _finding(kind, rows, f"alike by {-most:.2f}: '{{}}', '{{}}'", placed[a][1].request, placed[b][1].request)


def _conflicts(placed: Sequence[Placed], near: float) -> Iterator[Finding]:
    """The same words with two targets are an error; alike ones may be a contrast on purpose (`refund A-1`, `don't refund A-1`)."""
    words = [" ".join(re.findall(r"\w+", row.request.lower())) or row.request for _, row in placed]  # a request may have no word
    answers = [_answers(row) for _, row in placed]
    for a, b, likeness in _alike(words, near):
        pair, (left, right) = [placed[a], placed[b]], (placed[a][1], placed[b][1])
        if (answers[a][0] in answers[b] and answers[b][0] in answers[a]) or _explained(left, right) or _explained(right, left):
            continue
        if words[a] == words[b]:
            yield _finding("label conflict", pair, "'{}' is labelled {} and {}", left.request, _label(left, right), _label(right, left))
        else:
            said = f"targets differ, alike by {likeness:.2f}: '{{}}', '{{}}'"
            yield _finding("possible label conflict", pair, said, left.request, right.request)


def _answers(row: Example) -> list[str]:
    """The right answers in lower case, the gold one first; the words of a refusal are free."""
    forms = (NO_TOOL if isinstance(a, NoTool) else json.dumps([a.tool, a.arguments], sort_keys=True) for a in row.answers)
    return [form.lower() for form in forms]


def _label(row: Example, other: Example) -> str:
    """What sets the target apart from another: the tool, or else the arguments that differ."""
    if row.target.tool != other.target.tool:
        return row.target.tool
    theirs = other.target.arguments.items()
    return json.dumps(dict(pair for pair in row.target.arguments.items() if pair not in theirs), ensure_ascii=False)


def _explained(row: Example, other: Example) -> bool:
    """Whether an argument stands in its own request alone: the targets of `where is A-1` and `where is A-2` rightly differ."""
    values = [value.lower() for value in getattr(row.target, "arguments", {}).values() if isinstance(value, str)]
    return any(value in row.request.lower() and value not in other.request.lower() for value in values)


def _bad_targets(placed: Sequence[Placed], toolset: Toolset) -> Iterator[Finding]:
    for item in placed:
        row = item[1]
        for detail in dict.fromkeys(found.detail for found in audit_labels([row])):
            yield _finding("argument not in request", [item], "{} is not in '{}'", detail, row.request)
        for answer in row.answers:
            decision = parse_tool_call(answer.to_json(), toolset)
            if isinstance(decision, InvalidOutput) and decision.problem == "unknown_tool":
                yield _finding("unknown tool", [item], "no tool is called {}: '{}'", answer.tool, row.request)
            elif isinstance(decision, InvalidOutput):
                yield _finding("target breaks schema", [item], "{}: '{}'", decision.detail, row.request)


def _shares(split: str, placed: Sequence[Placed]) -> Iterator[Finding]:
    negatives = [item for item in placed if not item[1].is_call]
    share, (low, high) = no_tool_share([row for _, row in placed]), RECOMMENDED_SHARE
    if split == "train" and not low <= share <= high:
        text, ids = f"{share:.1%} of the rows are no_tool, not {low:.0%} to {high:.0%}", tuple(row.id for _, row in negatives)
        yield Finding("no_tool share", (split,), ids, text)
    for kind, n in share_table([row for _, row in negatives]).items():
        if n == 0 and kind in KINDS:
            yield Finding("missing kind", (split,), (), f"no row is of the kind {kind}")
        elif 0 < n < RARE * len(negatives):
            rare = [item for item in negatives if item[1].kind == kind]
            yield _finding("rare kind", rare, f"{n} of {len(negatives)} negatives are of the kind {{}}", kind)


def _lengths(placed: Sequence[Placed]) -> Iterator[Finding]:
    """Tukey's fences (J. W. Tukey, Exploratory Data Analysis, 1977): 1.5 interquartile ranges beyond the quartiles, of log lengths."""
    yield from (_finding("empty request", [item], "the request holds only white space") for item in placed if not _plain(item[1]))
    filled = [item for item in placed if _plain(item[1])]
    logs = np.log([len(row.request) for _, row in filled])
    first, third = np.percentile(logs, [25, 75]) if filled else (0, 0)
    low, high = first - 1.5 * (third - first), third + 1.5 * (third - first)
    fences = "{:.0f} to {:.0f}".format(*np.exp([low, high]))
    for item in (item for item, log in zip(filled, logs, strict=True) if not low <= log <= high):
        yield _finding("length outlier", [item], f"{len(item[1].request)} characters, not {fences}: '{{}}'", item[1].request)


def _plain(row: Example) -> str:
    return " ".join(row.request.lower().split())


def _alike(texts: Sequence[str], least: float) -> Iterator[tuple[int, int, float]]:
    """Pairs of places in `texts`, the lower first, whose 5-grams have a Jaccard similarity of at least `least`, and that similarity.

    Exact: a sparse product counts the grams that a block of texts shares with all others. 5,000 requests take seconds.
    """
    pieces = [grams(text) for text in texts]
    column: dict[str, int] = {}
    cells = [column.setdefault(piece, len(column)) for own in pieces for piece in own]
    sizes = np.array([len(own) for own in pieces])
    holds = csr_array((np.ones(len(cells), np.int32), cells, [0, *np.cumsum(sizes)]), shape=(len(texts), len(column)))
    held_by = holds.T.tocsr()
    for start in range(0, len(texts), _BLOCK):
        shared = (holds[start : start + _BLOCK] @ held_by).tocoo()
        i, j = shared.row + start, shared.col
        likeness = shared.data / (sizes[i] + sizes[j] - shared.data)
        keep = (i < j) & (likeness >= least)
        yield from zip(i[keep].tolist(), j[keep].tolist(), likeness[keep].tolist(), strict=True)
