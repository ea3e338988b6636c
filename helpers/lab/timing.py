"""What a measurement is: the seconds of paths that take turns, and how many times as long the stock path takes as ours."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

OURS = "ours"


@dataclass(frozen=True)
class Timing:
    """Seconds of one path, run by run."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles."""
        low, high = np.quantile(self.seconds, [0.25, 0.75])
        return float(low), float(high)

    def per(self, runs: int, summary: Callable[[Sequence[float]], float]) -> "Timing":
        """One figure for every `runs` of the runs, such as their sum."""
        return Timing(tuple(summary(self.seconds[n : n + runs]) for n in range(0, len(self.seconds), runs)))

    def __str__(self) -> str:
        return "{:.3g} ({:.3g} to {:.3g})".format(self.median, *self.spread)


@dataclass(frozen=True)
class Ratio:
    """Seconds of the stock path over ours, one value for each repeat."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({min(self.values):.2f} to {max(self.values):.2f})"


@dataclass(frozen=True)
class Result:
    """One comparison: the seconds of every path, repeat by repeat, and what else was seen."""

    name: str
    timings: dict[str, Timing]
    facts: dict[str, Any]

    @property
    def stock(self) -> str:
        """The fastest of the stock paths: the one that ours has to beat."""
        return min((path for path in self.timings if path != OURS), key=lambda path: self.timings[path].median)

    @property
    def ratio(self) -> Ratio:
        return ratio(self.timings[self.stock], self.timings[OURS])

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        seconds = {path: {"seconds": t.seconds, "median": t.median, "quartiles": t.spread} for path, t in self.timings.items()}
        return {"stock": self.stock, "ratios": self.ratio.values, "paths": seconds, **self.facts}


def measure(paths: dict[str, Callable[[], None]], repeats: int, warm_up: int) -> dict[str, Timing]:
    """The seconds of `repeats` calls of each path, after `warm_up` that do not count; the paths take turns, so that noise hits all alike.

    Raises ValueError when there is nothing to repeat.
    """
    if repeats < 1:
        raise ValueError(f"a time needs at least one repeat, got {repeats}")
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    for turn in range(-warm_up, repeats):
        for name, path in paths.items():
            started = time.perf_counter()
            path()
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # a GPU goes on working after the call has returned
            if turn >= 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: Timing(tuple(taken)) for name, taken in seconds.items()}


def ratio(stock: Timing, ours: Timing) -> Ratio:
    """Stock over ours, paired by repeat. Raises ValueError unless both have the same number of repeats, and at least one."""
    if len(stock.seconds) != len(ours.seconds) or not ours.seconds:
        raise ValueError(f"a ratio needs as many stock times as ours and at least one; got {len(stock.seconds)} and {len(ours.seconds)}")
    return Ratio(tuple(a / b for a, b in zip(stock.seconds, ours.seconds, strict=True)))


def evenly(items: Sequence[Any], n: int) -> list[Any]:
    """`n` items (all, when there are fewer) at even distances, in order."""
    n = min(n, len(items))
    return [items[k * len(items) // n] for k in range(n)]
