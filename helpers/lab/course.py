"""The course in one command: measure the base, fine-tune it, measure it again, on the hand-written test split."""

import argparse
import time

from helpers.baselines import always_no_tool, keyword_router
from helpers.evaluation import breakdown, compare, score, table
from helpers.examples import load_examples
from helpers.models import base_label, default_base
from helpers.negatives import no_tool_share
from helpers.paths import OUTPUTS
from helpers.routing import Router
from helpers.tools import support_desk
from helpers.training import run_record, train


def run(args: argparse.Namespace) -> None:
    """Prints what it does as it goes, and ends with the four numbers before and after."""
    started = time.monotonic()
    base, toolset = default_base(), support_desk()
    training, test = load_examples("train"), load_examples("test")
    requests = [example.request for example in test]
    print(f"base {base_label(base)} on {run_record()['machine']}")
    print(f"{len(training)} training rows, {no_tool_share(training):.0%} of them no_tool")
    reports = [score(router(requests), test, toolset, router.__name__) for router in (always_no_tool, keyword_router)]

    print(f"\n1/3  the base as it comes, on {len(test)} test rows")
    router = Router.from_pretrained(base)
    reports.append(score(router.generate(requests, progress=True), test, toolset, "base"))
    del router  # a 4-bit model that has been evaluated may not train any more: the next step loads it afresh

    print("\n2/3  QLoRA fine-tuning")
    adapter = train(training, OUTPUTS / "course", base, seed=args.seed)

    print("\n3/3  the same rows after it")
    router = Router.from_pretrained(adapter=adapter)
    reports.append(score(router.generate(requests, progress=True), test, toolset, "fine-tuned"))

    print("\n" + table(reports) + "\n\nfine-tuned, by kind of request\n" + breakdown(reports[-1].per_kind()) + "\n")
    for against in (reports[2], reports[1]):
        for difference in compare(against, reports[-1]).values():
            print(f"{against.name} -> fine-tuned  {difference}")
    print(f"\nadapter in {adapter.relative_to(OUTPUTS.parent)}; {time.monotonic() - started:.0f} s in all")
