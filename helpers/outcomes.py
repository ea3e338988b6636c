"""How one row ended: the outcome, what exactly was wrong, and rows on disk that load again."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from scipy.stats import binomtest

from helpers.examples import Example
from helpers.parsing import Decision, InvalidOutput, NoTool, ToolCall, parse_tool_call, same_json
from helpers.tools import NO_TOOL, Toolset

OUTCOMES = ("right call", "right no_tool", "wrong arguments", "wrong tool", "false call", "missed call", "invalid")
_COLUMNS = ("id", "kind", "request", "output", "decision", "gold", "outcome", "detail")


@dataclass(frozen=True)
class Rate:
    """`hits` of `of`; `value` is in [0, 1], or nan when there was nothing to count."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        return self.hits / self.of if self.of else math.nan

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson's score interval (E. B. Wilson, 1927); (0, 1) when there was nothing to count."""
        if not self.of:
            return 0.0, 1.0
        found = binomtest(self.hits, self.of).proportion_ci(confidence, method="wilson")
        return float(found.low), float(found.high)

    def to_dict(self) -> dict:
        return {"hits": self.hits, "of": self.of, "value": self.value if self.of else None, "interval": list(self.interval())}

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.value:.3f} [{low:.2f}, {high:.2f}] {self.hits}/{self.of}" if self.of else "– (none)"


@dataclass(frozen=True)
class ScoredRow:
    """One row with what the router wrote, what that decides, and how it ended (one of `OUTCOMES`)."""

    example: Example
    output: str
    decision: Decision

    @cached_property
    def tools(self) -> set[str]:
        """Tools that are right for this row."""
        return {answer.tool for answer in self.example.answers}

    @cached_property
    def right(self) -> bool:
        """Whether the whole decision is right: tool and arguments for a call; for no_tool the reason is free."""
        return any(_same(self.decision, answer) for answer in self.example.answers)

    @cached_property
    def outcome(self) -> str:
        match self.decision:
            case InvalidOutput():
                return "invalid"
            case NoTool():
                return "right no_tool" if self.right else "missed call"
            case ToolCall(tool, _):
                if self.right:
                    return "right call"
                if not self.example.is_call:
                    return "false call"
                return "wrong arguments" if tool in self.tools else "wrong tool"

    @cached_property
    def detail(self) -> str:
        """What exactly was wrong: an invalid output's problem, the tools confused, or each argument that is missing, extra or wrong."""
        match self.outcome, self.decision:
            case "invalid", InvalidOutput(problem):
                return problem
            case "wrong tool", ToolCall(tool, _):
                return f"{tool} for {self.example.target.tool}"
            case (("false call" | "missed call"), _):
                return self.decision.tool if self.outcome == "false call" else self.example.target.tool
            case "wrong arguments", ToolCall(tool, arguments):
                gold = [answer.arguments for answer in self.example.answers if isinstance(answer, ToolCall) and answer.tool == tool]
                return min((_argument_errors(arguments, wanted) for wanted in gold), key=len)
        return ""

    def to_dict(self) -> dict[str, str]:
        """The row as plain strings; `gold` is the target as JSON, with everything it accepts."""
        decided = "" if isinstance(self.decision, InvalidOutput) else self.decision.to_json()
        gold = self.example.target.model_dump_json(exclude_defaults=True)
        values = (self.example.id, self.example.kind, self.example.request, self.output, decided, gold, self.outcome, self.detail)
        return dict(zip(_COLUMNS, values, strict=True))


def _argument_errors(found: dict, wanted: dict) -> str:
    wrong = [f"{name} missing" for name in wanted if name not in found]
    wrong += [f"{name} extra" for name in found if name not in wanted]
    wrong += [f"{name} wrong" for name in wanted if name in found and not same_json(found[name], wanted[name])]
    return ", ".join(wrong)


def _same(decision: Decision, answer: ToolCall | NoTool) -> bool:
    if isinstance(answer, NoTool):
        return decision.tool == NO_TOOL
    return isinstance(decision, ToolCall) and decision.tool == answer.tool and same_json(decision.arguments, answer.arguments)


def write_rows(rows: Sequence[ScoredRow], path: Path | str) -> None:
    """Every row with request, output, decision, gold, outcome and detail: as CSV for a spreadsheet, or as JSONL, by the file's suffix.

    Lone surrogates, which UTF-8 cannot hold, are escaped in CSV and kept in JSONL. Raises ValueError on another suffix.
    """
    path = Path(path)
    if _suffix(path) == ".jsonl":
        path.write_text("".join(json.dumps(row.to_dict()) + "\n" for row in rows), encoding="utf-8")
        return
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(row.to_dict() for row in rows)


def read_rows(path: Path | str, toolset: Toolset) -> list[ScoredRow]:
    """The rows that `write_rows` left, parsed and judged afresh under `toolset`. Raises ValueError naming the file and the line."""
    path = Path(path)
    if _suffix(path) == ".jsonl":
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        with path.open(newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file))
    rows = []
    for number, row in enumerate(found, 1):
        try:
            target = json.loads(row["gold"])
            example = Example.model_validate({"id": row["id"], "request": row["request"], "target": target, "kind": row["kind"]})
            rows.append(ScoredRow(example, row["output"], parse_tool_call(row["output"], toolset)))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, row {number}: not a row that write_rows left: {str(error).splitlines()[0]}") from None
    return rows


def _suffix(path: Path) -> str:
    if path.suffix not in (".csv", ".jsonl"):
        raise ValueError(f"rows are kept as .csv or .jsonl; got {path.name!r}")
    return path.suffix
