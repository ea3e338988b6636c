"""Figures: one function per figure, from reports or data to a matplotlib Figure whose title is the question that it answers.

Every rate that is measured on rows has its 95% Wilson interval. A notebook shows a figure that is the last line of its cell.
"""

from helpers.plots.experiments import growth, left_out, share_sweep
from helpers.plots.routers import OUTCOME_COLOURS, confusion, four_numbers, outcomes, per_kind
from helpers.plots.rows import audit, loss, shares
from helpers.plots.safety import attacks, harm, latency, risk_coverage
from helpers.plots.style import SERIES

__all__ = [
    "OUTCOME_COLOURS", "SERIES", "attacks", "audit", "confusion", "four_numbers", "growth", "harm", "latency", "left_out", "loss",
    "outcomes", "per_kind", "risk_coverage", "share_sweep", "shares",
]  # fmt: skip
