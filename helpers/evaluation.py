"""How good: the four numbers, the companions without which they can be gamed, and paired comparison of two routers."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from helpers.examples import Example
from helpers.outcomes import OUTCOMES, Rate, ScoredRow, read_rows, write_rows
from helpers.parsing import ToolCall, parse_tool_call
from helpers.tools import Toolset

FOUR = ("valid_tool_call_rate", "tool_name_accuracy", "argument_match_accuracy", "false_tool_call_rate")
COMPANIONS = ("false_calls_on_no_tool", "missed_calls", "exact_accuracy", "silent_error_rate", "detectable_error_rate")
LOWER_IS_BETTER = {"false_tool_call_rate", "false_calls_on_no_tool", "missed_calls", "silent_error_rate", "detectable_error_rate"}
LENGTHS = {"up to 12 words": 12, "13 to 30 words": 30, "over 30 words": math.inf}


@dataclass(frozen=True)
class FourNumberReport:
    """The scored rows of one router on one data set, and every rate that follows from them."""

    rows: tuple[ScoredRow, ...]
    name: str = "router"

    def _rate(self, hit: Callable[[ScoredRow], bool], of: Callable[[ScoredRow], bool] = lambda row: True) -> Rate:
        counted = [row for row in self.rows if of(row)]
        return Rate(sum(map(hit, counted)), len(counted))

    @cached_property
    def valid_tool_call_rate(self) -> Rate:
        """Outputs that parse to a call or a refusal, of all rows."""
        return self._rate(lambda row: row.outcome != "invalid")

    @cached_property
    def tool_name_accuracy(self) -> Rate:
        """Valid outputs that name the gold tool, no_tool included, of all rows."""
        return self._rate(lambda row: row.decision.tool in row.tools)

    @cached_property
    def argument_match_accuracy(self) -> Rate:
        """Calls equal to the gold call in tool and arguments, of all calls emitted."""
        return self._rate(lambda row: row.outcome == "right call", lambda row: isinstance(row.decision, ToolCall))

    @cached_property
    def false_tool_call_rate(self) -> Rate:
        """Calls where the gold is no_tool, of all rows."""
        return self._rate(lambda row: row.outcome == "false call")

    @cached_property
    def false_calls_on_no_tool(self) -> Rate:
        """Calls where the gold is no_tool, of those rows."""
        return self._rate(lambda row: row.outcome == "false call", lambda row: not row.example.is_call)

    @cached_property
    def missed_calls(self) -> Rate:
        """Refusals where the gold is a call, of those rows."""
        return self._rate(lambda row: row.outcome == "missed call", lambda row: row.example.is_call)

    @cached_property
    def exact_accuracy(self) -> Rate:
        """Decisions right as a whole, of all rows."""
        return self._rate(lambda row: row.right)

    @cached_property
    def silent_error_rate(self) -> Rate:
        """Valid but wrong, of all rows: nothing tells the caller."""
        return self._rate(lambda row: row.outcome != "invalid" and not row.right)

    @cached_property
    def detectable_error_rate(self) -> Rate:
        """Invalid, of all rows: the caller sees it and can ask again."""
        return self._rate(lambda row: row.outcome == "invalid")

    @cached_property
    def wrong_calls(self) -> Rate:
        """Calls that are no right answer, of all rows: the errors that act. Silent errors less the missed calls."""
        return self._rate(lambda row: isinstance(row.decision, ToolCall) and not row.right)

    @property
    def rates(self) -> dict[str, Rate]:
        return {name: getattr(self, name) for name in (*FOUR, *COMPANIONS)}

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """Rows per outcome; the counts add up to the number of rows."""
        counts = Counter(row.outcome for row in self.rows)
        return {outcome: counts[outcome] for outcome in OUTCOMES}

    def by(self, key: Callable[[Example], str]) -> dict[str, "FourNumberReport"]:
        """One report per value of `key`, in the order of first appearance in the sorted keys."""
        values = sorted({key(row.example) for row in self.rows})
        return {v: FourNumberReport(tuple(row for row in self.rows if key(row.example) == v), v) for v in values}

    def per_tool(self) -> dict[str, "FourNumberReport"]:
        return self.by(lambda example: example.target.tool)

    def per_kind(self) -> dict[str, "FourNumberReport"]:
        return self.by(lambda example: example.kind)

    def per_difficulty(self) -> dict[str, "FourNumberReport"]:
        """By length of the request: a measure of difficulty that needs no label, from LENGTHS, the shortest first."""

        def length(example: Example) -> str:
            return next(name for name, words in LENGTHS.items() if len(example.request.split()) <= words)

        found = self.by(length)
        return {name: found[name] for name in LENGTHS if name in found}

    @cached_property
    def details(self) -> dict[str, dict[str, int]]:
        """Rows per outcome and detail: which problem made outputs invalid, which tools were confused, which arguments were wrong."""
        counts: dict[str, Counter] = {outcome: Counter() for outcome in OUTCOMES}
        for row in self.rows:
            counts[row.outcome][row.detail] += 1
        return {outcome: dict(counter.most_common()) for outcome, counter in counts.items()}

    def confusion(self) -> dict[tuple[str, str], int]:
        """Rows per (gold tool, decided tool); an output that does not parse is decided `invalid`."""
        return dict(Counter((row.example.target.tool, row.decision.tool or "invalid") for row in self.rows))

    def check(self, **bounds: float) -> None:
        """Raises AssertionError naming the rate and the bound it breaks; a bound is a floor, or a ceiling where lower is better."""
        for name, bound in bounds.items():
            if name not in self.rates:
                raise ValueError(f"there is no rate {name!r}; the rates are {', '.join(self.rates)}")
            value = self.rates[name].value
            if not (value <= bound if name in LOWER_IS_BETTER else value >= bound):
                side = "at most" if name in LOWER_IS_BETTER else "at least"
                raise AssertionError(f"{self.name}: {name} is {self.rates[name]}, and should be {side} {bound}")

    def to_dict(self) -> dict:
        """Counts, values and intervals, ready for JSON."""
        return {
            "name": self.name,
            "n": len(self.rows),
            "rates": {name: rate.to_dict() for name, rate in self.rates.items()},
            "outcomes": self.outcomes,
            "details": self.details,
        }

    def write_rows(self, path: Path | str) -> None:
        """Every row with its output and how it ended, as .csv or .jsonl; `read_report` loads it again."""
        write_rows(self.rows, path)

    def __str__(self) -> str:
        return table([self])

    def _repr_markdown_(self) -> str:
        return table([self], markdown=True)


def score(outputs: Sequence[str], examples: Sequence[Example], toolset: Toolset, name: str = "router") -> FourNumberReport:
    """The report on `outputs`, one for each of `examples` in the same order. Needs no model.

    Raises ValueError when the lists differ in length or are empty.
    """
    if len(outputs) != len(examples) or not examples:
        raise ValueError(f"one output is needed for each example and at least one of both; got {len(outputs)} and {len(examples)}")
    rows = [ScoredRow(e, text, parse_tool_call(text, toolset)) for e, text in zip(examples, outputs, strict=True)]
    return FourNumberReport(tuple(rows), name)


def read_report(path: Path | str, toolset: Toolset, name: str = "router") -> FourNumberReport:
    """The report on rows that `FourNumberReport.write_rows` left, judged afresh. Raises ValueError when there are none."""
    rows = read_rows(path, toolset)
    if not rows:
        raise ValueError(f"{path} holds no rows")
    return FourNumberReport(tuple(rows), name)


def table(reports: Iterable[FourNumberReport], markdown: bool = False, rates: Sequence[str] = (*FOUR, *COMPANIONS)) -> str:
    """Reports side by side, one rate a line: value, 95% Wilson interval, counts. `markdown` for notebooks and READMEs."""
    reports = list(reports)
    lines = [["rate", *(report.name for report in reports)]]
    lines += [
        [name.replace("_", " ") + (" ↓" if name in LOWER_IS_BETTER else ""), *(str(r.rates[name]) for r in reports)] for name in rates
    ]
    if markdown:
        lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def breakdown(reports: dict[str, FourNumberReport]) -> str:
    """A table with a line per tool or kind: rows, exact accuracy, and the outcomes counted."""
    header = ["", "rows", "exact accuracy", *OUTCOMES]
    lines = [header]
    lines += [[name, str(len(r.rows)), str(r.exact_accuracy), *(str(n or "·") for n in r.outcomes.values())] for name, r in reports.items()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


@dataclass(frozen=True)
class Difference:
    """What changed from one router to another on the same rows, for one yes/no question a row."""

    name: str
    change: float
    interval: tuple[float, float]
    gained: int
    lost: int
    p: float

    @property
    def is_noise(self) -> bool:
        """True when McNemar's exact test cannot tell the change from chance at 5%."""
        return not self.p < 0.05

    def __str__(self) -> str:
        verdict = "noise" if self.is_noise else "a real change"
        low, high = self.interval
        counts = f"{self.gained} gained, {self.lost} lost, p = {self.p:.2g}"
        return f"{self.name}: {self.change:+.3f} [{low:+.3f}, {high:+.3f}], {counts}: {verdict}"


def compare(a: FourNumberReport, b: FourNumberReport, seed: int = 0, resamples: int = 2000) -> dict[str, Difference]:
    """Paired differences from `a` to `b` in validity, tool name, exactness, silent errors and false calls, as shares of all rows.

    Each with a bootstrap interval (95%) over rows and the exact p of McNemar's test (1947).

    Raises ValueError unless both scored the same rows in the same order.
    """
    if [row.example for row in a.rows] != [row.example for row in b.rows]:
        raise ValueError("the two reports are not about the same rows in the same order")
    questions: dict[str, Callable[[ScoredRow], bool]] = {
        "valid_tool_call_rate": lambda row: row.outcome != "invalid",
        "tool_name_accuracy": lambda row: row.decision.tool in row.tools,
        "exact_accuracy": lambda row: row.right,
        "silent_error_rate": lambda row: row.outcome != "invalid" and not row.right,
        "false_tool_call_rate": lambda row: row.outcome == "false call",
    }
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(a.rows), (resamples, len(a.rows)))
    found = {}
    for name, question in questions.items():
        change = np.array([question(y) - question(x) for x, y in zip(a.rows, b.rows, strict=True)])
        gained, lost = int((change > 0).sum()), int((change < 0).sum())
        p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
        low, high = np.quantile(change[picks].mean(axis=1), [0.025, 0.975])
        found[name] = Difference(name, float(change.mean()), (float(low), float(high)), gained, lost, p)
    return found


def write_json(report: FourNumberReport, path: Path | str) -> None:
    Path(path).write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
