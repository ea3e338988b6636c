"""The course in one command: measure the base, fine-tune it, measure it again, on the hand-written test split."""

import argparse
import json
import statistics
import time

from helpers.baselines import always_no_tool, keyword_router
from helpers.evaluation import COMPANIONS, FOUR, LOWER_IS_BETTER, FourNumberReport, breakdown, compare, score, table
from helpers.examples import load_examples, read_examples
from helpers.models import base_label, default_base
from helpers.negatives import no_tool_share
from helpers.outcomes import Rate
from helpers.paths import OUTPUTS, SUPPORT_DESK
from helpers.routing import Router
from helpers.tools import support_desk
from helpers.training import RECIPE_FILE, run_record, train


def run(args: argparse.Namespace) -> None:
    """Prints what it does as it goes, and ends with the four numbers before and after; `--json` keeps them."""
    started = time.monotonic()
    base, toolset = default_base(), support_desk()
    training, test = load_examples("train"), load_examples("test")
    requests = [example.request for example in test]

    def measure(router: Router, name: str) -> FourNumberReport:
        return score(router.generate(requests, progress=True), test, toolset, name)

    print(f"base {base_label(base)} on {run_record()['machine']}")
    print(f"{len(training)} training rows, {no_tool_share(training):.0%} of them no_tool; {len(test)} test rows")
    rules = [score(router(requests), test, toolset, router.__name__) for router in (always_no_tool, keyword_router)]
    print("\nthe base as it comes")
    before = measure(Router.from_pretrained(base), "base")  # its 4-bit weights may give no gradients any more: training loads its own

    after, copied, made = [], [], {}
    new_ids = read_examples(SUPPORT_DESK / "ids.jsonl", toolset)
    for seed in args.seeds:
        print(f"\nQLoRA fine-tuning, seed {seed}")
        adapter = train(training, OUTPUTS / f"course-{seed}", base, seed=seed)
        made = json.loads((adapter / RECIPE_FILE).read_text(encoding="utf-8"))
        router = Router.from_pretrained(adapter=adapter)
        after.append(measure(router, f"fine-tuned, seed {seed}"))
        copied.append(score(router.generate([example.request for example in new_ids], progress=True), new_ids, toolset).exact_accuracy)

    print("\n" + table([*rules, before, *after]))
    print(f"\nseed {args.seeds[0]} by kind of request\n{breakdown(after[0].per_kind())}\n")
    for rival in (before, rules[1]):
        for difference in compare(rival, after[0]).values():
            print(f"{rival.name} -> fine-tuned  {difference}")
    print("\n" + copied_line(copied))
    if len(after) > 1:
        for rival in (before, rules[1]):
            print(f"\n{rival.name} -> fine-tuned, over {len(after)} seeds\n" + "\n".join(seed_differences(rival, after)))
        print("\n" + spread_table([r.to_dict() for r in (*rules, before)], [r.to_dict() for r in after]))
    if args.json:
        made = {key: made[key] for key in ("base", "base_sha256", "data_sha256", "recipe", "rows", "seconds")}
        runs = {"seeds": args.seeds, "rivals": [r.to_dict() for r in (*rules, before)], "fine_tuned": [r.to_dict() for r in after]}
        runs["copied_ids"] = [{"hits": rate.hits, "of": rate.of} for rate in copied]
        command = "python -m helpers course --seeds " + " ".join(map(str, args.seeds))
        record = {"command": command, **run_record(), "trained": made, **runs}
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"\nadapter in {adapter.relative_to(OUTPUTS.parent)}; {time.monotonic() - started:.0f} s in all")


def copied_line(copied: list[Rate]) -> str:
    """What became of the ids in formats that no training row has, seed by seed."""
    values = ", ".join(f"{rate.hits} of {rate.of}" for rate in copied)
    return f"calls with an order id in one of 12 formats never seen in training, all right to the last character: {values}"


def seed_differences(rival: FourNumberReport, after: list[FourNumberReport]) -> list[str]:
    """Each rate's change from `rival`: the median over seeds with its range, and whether the change is larger than that range."""
    lines = []
    for name in (*FOUR, *COMPANIONS):
        start, values = getattr(rival, name).value, [getattr(report, name).value for report in after]
        if start is None or None in values:
            continue
        changes = [value - start for value in values]
        spread = max(changes) - min(changes)
        verdict = "noise: no more than seeds differ" if abs(statistics.median(changes)) <= spread else "more than seeds differ"
        lines.append(f"{name}: {statistics.median(changes):+.3f} ({min(changes):+.3f} to {max(changes):+.3f}), {verdict}")
    return lines


def spread_table(rivals: list[dict], fine_tuned: list[dict]) -> str:
    """Markdown: each rate for the rivals, and for the fine-tuned routers its median over seeds with the range."""
    lines = ["| rate | " + " | ".join(r["name"] for r in rivals) + f" | fine-tuned, median of {len(fine_tuned)} seeds (range) |"]
    lines.append("| --- " * (len(rivals) + 2) + "|")
    for name in (*FOUR, *COMPANIONS):
        values = [report["rates"][name]["value"] for report in fine_tuned]
        cells = [_cell(report["rates"][name]["value"]) for report in rivals]
        cells.append(f"**{statistics.median(values):.3f}** ({min(values):.3f} to {max(values):.3f})")
        lines.append(f"| {name.replace('_', ' ')}{' ↓' if name in LOWER_IS_BETTER else ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
