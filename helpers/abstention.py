"""When to hold back: how sure a call is, and the confidence below which the router asks instead of acting."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import beta, mannwhitneyu

from helpers.evaluation import FourNumberReport, Rate, ScoredRow
from helpers.parsing import NoTool, ToolCall, parse_tool_call
from helpers.tools import Toolset

if TYPE_CHECKING:  # figures and audits need no model, and loading its libraries takes seven seconds
    from helpers.decoding import Completion
    from helpers.routing import Router

HELD_BACK = "not sure enough to act"  # the reason of a call that was held back
_TOOL = re.compile(r'"tool"\s*:\s*"((?:[^"\\]|\\.)*)"')

Confidence = Callable[["Completion"], float]


def whole_output(completion: Completion) -> float:
    """Probability of the completion, its end included: the product over its tokens, in [0, 1]."""
    return math.exp(sum(completion.logprobs))


def tool_name(completion: Completion) -> float:
    """Probability of the tool's name: the product over the tokens that spell it; of the whole output where no tool is named."""
    return math.exp(sum(chosen)) if (chosen := _inside(completion, *_name_span(completion.text))) else whole_output(completion)


def weakest_argument_token(completion: Completion) -> float:
    """Probability of the least likely token after the tool's name, where the arguments are; of all tokens where no tool is named."""
    _, end = _name_span(completion.text)
    return math.exp(min(_inside(completion, end, len(completion.text) + 1), default=0.0))


MEASURES: dict[str, Confidence] = {
    "whole output": whole_output,
    "tool name": tool_name,
    "weakest argument token": weakest_argument_token,
}


def _name_span(text: str) -> tuple[int, int]:
    """Where the tool's name stands in an output; (0, 0) when none is named."""
    found = _TOOL.search(text)
    return found.span(1) if found else (0, 0)


def _inside(completion: Completion, start: int, end: int) -> list[float]:
    """Log-probabilities of the tokens that share a character with text[start:end], and of the end token when `end` is past the text.

    An empty piece belongs to the character that follows it, of which it is the first part, or to the end.
    """
    chosen, at = [], 0
    for piece, logprob in zip(completion.pieces, completion.logprobs, strict=True):
        if at < end and at + max(len(piece), 1) > start:
            chosen.append(logprob)
        at += len(piece)
    return chosen


def auroc(confidence: Sequence[float], right: Sequence[bool]) -> float:
    """Chance that a right decision is more confident than a wrong one, ties counting half: 0.5 knows nothing, 1.0 tells all apart.

    The Mann-Whitney statistic over its maximum (Hanley and McNeil, 1982). nan when all are right or all are wrong.
    """
    sure, correct = np.asarray(confidence, dtype=float), np.asarray(right, dtype=bool)
    if not correct.any() or correct.all():
        return math.nan
    return float(mannwhitneyu(sure[correct], sure[~correct]).statistic / (correct.sum() * (~correct).sum()))


@dataclass(frozen=True)
class RiskCoverage:
    """What is left of the calls as the threshold rises: `coverage[k]` of them are made at `threshold[k]`, `errors[k]` of `made[k]` wrongly.

    From the strictest threshold to the mildest (El-Yaniv and Wiener, 2010).
    """

    threshold: tuple[float, ...]
    made: tuple[int, ...]
    errors: tuple[int, ...]

    @property
    def coverage(self) -> tuple[float, ...]:
        return tuple(n / self.made[-1] for n in self.made)

    @property
    def risk(self) -> tuple[Rate, ...]:
        return tuple(Rate(wrong, n) for wrong, n in zip(self.errors, self.made, strict=True))

    @property
    def area(self) -> float:
        """Mean risk over all coverages: lower is better, and an order by chance gives the risk at full coverage.

        Each call counts once, at the threshold that just admits it, so ties weigh what they hold (AURC; Geifman et al., 2019).
        """
        return float(np.average([rate.value for rate in self.risk], weights=np.diff(self.made, prepend=0)))


def risk_coverage(report: FourNumberReport, confidence: Sequence[float]) -> RiskCoverage:
    """The curve over the calls of `report`; `confidence` has one value for each of its rows.

    Raises ValueError when the lengths differ or the router never called.
    """
    calls = _calls(report, confidence)
    if not calls:
        raise ValueError(f"{report.name} made no call, so there is nothing to hold back")
    levels = sorted({sure for sure, _ in calls}, reverse=True)
    kept = [[row for sure, row in calls if sure >= level] for level in levels]
    return RiskCoverage(tuple(levels), tuple(map(len, kept)), tuple(sum(not row.right for row in rows) for rows in kept))


@dataclass(frozen=True)
class Threshold:
    """The confidence from which calls are made, and the promise that goes with it.

    `observed` is the risk on the rows it was chosen on, `bound` its upper confidence bound (at most alpha), `kept` the share of right
    calls that are still made there.
    """

    value: float
    risk: str
    alpha: float
    delta: float
    observed: Rate
    bound: float
    kept: Rate

    def __str__(self) -> str:
        promise = f"{self.risk} at most {100 * self.alpha:.4g}% with confidence {100 * (1 - self.delta):.4g}%"
        at = "never call" if math.isinf(self.value) else f"call from confidence {self.value:.3f}"
        return f"{at}: {promise} (observed {self.observed}, bound {self.bound:.3f}); right calls kept: {self.kept}"


RISKS: dict[str, Callable[[ScoredRow], bool]] = {  # the rows that each risk is a share of
    "wrong calls": lambda row: True,
    "false calls": lambda row: not row.example.is_call,
}


def choose_threshold(
    report: FourNumberReport, confidence: Sequence[float], alpha: float, delta: float = 0.05, risk: str = "wrong calls"
) -> Threshold:
    """The mildest threshold at which the risk is at most `alpha` with confidence 1 - `delta`, on rows drawn like those of `report`.

    The risk is the share of rows that end in a call that is wrong: of all rows (`wrong calls`) or of the no-tool rows (`false calls`).
    It can only fall as the threshold rises, and so can the exact binomial upper bound on it (Clopper and Pearson, 1934). A threshold whose
    risk exceeds alpha can therefore only be chosen when the bound of the strictest such one has failed as well, which has probability
    delta: the search through many needs no correction (Bates et al., "Distribution-Free, Risk-Controlling Prediction Sets", 2021).
    Rows must not be those that the router or the confidence measure was made with.

    Raises ValueError when alpha or delta is not between 0 and 1, on an unknown risk, when the lengths differ, or when the rows are too
    few to promise alpha even for a router that never calls.
    """
    if not (0 < alpha < 1 and 0 < delta < 1):
        raise ValueError(f"alpha and delta are shares between 0 and 1; got alpha={alpha}, delta={delta}")
    if risk not in RISKS:
        raise ValueError(f"there is no risk {risk!r}; the risks are {', '.join(RISKS)}")
    calls = _calls(report, confidence)
    of = sum(map(RISKS[risk], report.rows))
    needed = math.ceil(math.log(delta) / math.log(1 - alpha))
    if of < needed:
        raise ValueError(
            f"{of} rows that can end in {risk} are too few to promise at most {alpha} of them with confidence {1 - delta:.4g}: "
            f"at least {needed} are needed; add rows, or ask for less with a larger alpha or delta"
        )
    allowed = next(hits for hits in range(of) if upper_bound(Rate(hits + 1, of), delta) > alpha)
    wrong = sorted((sure for sure, row in calls if RISKS[risk](row) and not row.right), reverse=True)
    too_many = wrong[allowed] if len(wrong) > allowed else -math.inf  # the confidence of the first wrong call beyond those allowed
    chosen = min((sure for sure, _ in calls if sure > too_many), default=math.inf)
    observed = Rate(sum(sure >= chosen for sure in wrong), of)
    right = [sure for sure, row in calls if row.right]
    kept = Rate(sum(sure >= chosen for sure in right), len(right))
    return Threshold(chosen, risk, alpha, delta, observed, upper_bound(observed, delta), kept)


def upper_bound(rate: Rate, delta: float) -> float:
    """The largest share that `rate` does not contradict at level `delta`: Clopper and Pearson's one-sided exact bound."""
    return 1.0 if rate.hits >= rate.of else float(beta.ppf(1 - delta, rate.hits + 1, rate.of - rate.hits))


def hold_back(completions: Sequence[Completion], toolset: Toolset, measure: Confidence, threshold: float) -> list[str]:
    """The outputs, with every call that is less sure than `threshold` turned into a no_tool with the reason HELD_BACK."""
    return [
        NoTool(HELD_BACK).to_json()
        if isinstance(parse_tool_call(completion.text, toolset), ToolCall) and measure(completion) < threshold
        else completion.text
        for completion in completions
    ]


@dataclass(frozen=True)
class CautiousRouter:
    """A router that holds back what it is not sure of, with `Router.generate`'s shape."""

    router: Router
    measure: Confidence
    threshold: float

    def generate(self, requests: Sequence[str]) -> list[str]:
        return hold_back(self.router.complete(requests), self.router.toolset, self.measure, self.threshold)


def _calls(report: FourNumberReport, confidence: Sequence[float]) -> list[tuple[float, ScoredRow]]:
    if len(confidence) != len(report.rows):
        raise ValueError(f"one confidence is needed for each row; got {len(confidence)} for {len(report.rows)} rows")
    return [(sure, row) for sure, row in zip(confidence, report.rows, strict=True) if isinstance(row.decision, ToolCall)]
