"""The support desk under other names: does a router read its catalogue, or does it know one catalogue by heart?"""

import dataclasses
import random
import re
from dataclasses import dataclass

from helpers.examples import CallAnswer, Example, NoToolAnswer
from helpers.tools import Toolset, ToolSpec

# What the desk's tools and arguments may also be called: names to train with, and names that are kept for measuring.
TAUGHT = {
    "track_order": ("find_delivery", "shipment_status", "order_progress", "where_is_order", "trace_purchase"),
    "request_refund": ("money_back", "reimburse_buyer", "open_refund_case", "give_money_back", "file_reimbursement"),
    "escalate": ("call_a_colleague", "to_human", "pass_to_person", "get_supervisor", "transfer_chat"),
    "order_id": ("order_number", "purchase_id", "order_code", "number", "order"),
    "reason": ("why", "cause", "details", "problem", "explanation"),
}
KEPT_BACK = {
    "track_order": ("parcel_lookup", "locate_shipment", "check_order_state"),
    "request_refund": ("repay_customer", "start_chargeback", "compensate"),
    "escalate": ("human_handover", "raise_to_staff", "ask_manager"),
    "order_id": ("reference", "purchase_number", "id"),
    "reason": ("grounds", "complaint", "note"),
}
MISSES = 1000  # draws in a row that are there already: no new ones are left


@dataclass(frozen=True)
class Renaming:
    """Other names for the tools and arguments of a catalogue; the tools stand in the order of `names`. What it does not name stays."""

    names: dict[str, str]

    def catalogue(self, toolset: Toolset) -> Toolset:
        """The same tools under these names, with the descriptions that they had."""
        order = [*(name for name in self.names if name in toolset), *(name for name in toolset.names if name not in self.names)]
        return Toolset.from_specs(self._spec(toolset[name]) for name in order)

    def example(self, example: Example) -> Example:
        """The same row, with its answers as the renamed catalogue wants them. The request, the customer's words, is left alone."""

        def answer(target: CallAnswer | NoToolAnswer) -> CallAnswer | NoToolAnswer:
            if isinstance(target, CallAnswer):
                arguments = {self.names.get(name, name): value for name, value in target.arguments.items()}
                return target.model_copy(update={"tool": self.names.get(target.tool, target.tool), "arguments": arguments})
            return target.model_copy(update={"reason": re.sub(r"\w+", lambda m: self.names.get(m[0], m[0]), target.reason)})

        target = answer(example.target)
        target = target.model_copy(update={"accept": [answer(other) for other in example.target.accept]})
        return example.model_copy(update={"target": target})

    def _spec(self, spec: ToolSpec) -> ToolSpec:
        properties = {self.names.get(name, name): schema for name, schema in spec.parameters["properties"].items()}
        required = [self.names.get(name, name) for name in spec.parameters.get("required", [])]
        parameters = spec.parameters | {"properties": properties, "required": required}
        return dataclasses.replace(spec, name=self.names.get(spec.name, spec.name), parameters=parameters, model=None)


def draw_renamings(n: int, seed: int = 0, kept_back: bool = False) -> list[Renaming]:
    """`n` different renamings of the support desk, drawn from the names to train with or from those `kept_back` for measuring.

    Raises ValueError when there are not `n` different ones.
    """
    pool, rng = KEPT_BACK if kept_back else TAUGHT, random.Random(seed)
    drawn: list[Renaming] = []
    misses = 0
    while len(drawn) < n:
        renaming = Renaming({name: rng.choice(pool[name]) for name in rng.sample(sorted(pool), len(pool))})
        misses = misses + 1 if renaming in drawn else 0
        if misses == MISSES:
            raise ValueError(f"there are not {n} different renamings to draw; found {len(drawn)}")
        if not misses:
            drawn.append(renaming)
    return drawn
