"""How much faster than the stock path: every figure is a ratio of times taken side by side, after both paths gave the same results."""

import argparse
import hashlib
import itertools
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from helpers.decoding import Completion
from helpers.examples import load_examples
from helpers.lab.stock import (
    BATCH,
    Job,
    check_outputs,
    longest,
    make_job,
    optimiser_steps,
    plain_output,
    prompt_tokens,
    room_for,
    rounded_router,
    stock_paths,
    stock_router,
    thirty_tools,
    unusable_paths,
    with_desk,
    written_tools,
)
from helpers.lab.timing import OURS, Result, Timing, evenly, measure
from helpers.models import base_label, default_base, load_base, load_tokenizer
from helpers.paths import DATA, ROOT
from helpers.routing import Router
from helpers.tools import Toolset, support_desk
from helpers.training import run_record

RECORD, GROWTH = DATA / "speed" / "bench.json", DATA / "speed" / "growth.json"
SOURCES = ("models", "packing", "recipes", "training", "drafting", "decoding", "routing")  # the modules whose speed is measured
GENERATE = "model.generate, one by one"
ROWS, ROUTED, LOOPED, WARM_UP = 64, 40, 16, 2
SIZES, REQUESTS = (3, 10, 30, 100), (100, 300, 1000, 3000, 10_000)  # of `growth`: tools in a catalogue, requests under the desk's


def time_training(name: str, job: Job, unusable: dict[str, str], repeats: int) -> Result:
    """Seconds for one pass over the job's rows, in 4 bits as the course trains."""
    steps = len(job.examples) // BATCH
    options = {OURS: None} | {path: options for path, options in stock_paths(job.recipe).items() if path not in unusable}
    trainers = {path: job.trainer(chosen) for path, chosen in options.items()}
    taken = measure({path: optimiser_steps(trainer, steps) for path, trainer in trainers.items()}, repeats * steps, WARM_UP)
    return Result(name, {path: timing.per(steps, sum) for path, timing in taken.items()}, {"rows": len(job.examples), "left_out": unusable})


def time_requests(
    router: Router, stock: Router, requests: Sequence[str], looped: Sequence[str], repeats: int
) -> tuple[dict[str, Timing], list[Completion], list[str]]:
    """Seconds of `Router.complete` for `requests` and of the loop over `stock` for `looped` (without any, it has no times), with what
    the one and the other wrote.
    """
    completions: list[Completion] = []
    outputs: list[str] = []

    def ours() -> None:
        completions[:] = router.complete(requests)

    def one_by_one() -> None:
        outputs[:] = [plain_output(stock, request) for request in looped]

    router.generate(requests[:2])
    plain_output(stock, requests[0])
    paths = {OURS: ours, GENERATE: one_by_one} if looped else {OURS: ours}
    taken = measure(paths, repeats, warm_up=0)  # warm by now, and a whole round more would take minutes
    return taken, completions, outputs


def time_evaluation(router: Router, stock: Router, requests: Sequence[str], repeats: int, rounded: Router | None = None) -> Result:
    """Seconds for the outputs of all requests. Facts are the share of outputs equal to those of `stock`, whose kernels for 4 bits round
    in their own way, and the share that a `rounded` router (the adapter merged into 4 bits) has in common with ours.
    """
    taken, completions, expected = time_requests(router, stock, requests, requests, repeats)
    outputs = [completion.text for completion in completions]
    speed = {f"rows_per_second_{'ours' if path == OURS else 'stock'}": round(len(requests) / t.median, 2) for path, t in taken.items()}
    facts = {"rows": len(requests), **speed, "equal_share": _equal_share(outputs, expected)}
    if rounded:
        facts["equal_share_merged_into_4_bits"] = _equal_share(outputs, rounded.generate(requests))
    return Result("evaluate", taken, facts)


def time_routing(router: Router, stock: Router, requests: Sequence[str], repeats: int) -> Result:
    """The median seconds of one request, each by itself."""
    completions: list[Completion] = []
    outputs: list[str] = []
    ours, theirs = itertools.cycle(requests), itertools.cycle(requests)
    paths = {
        OURS: lambda: completions.extend(router.complete([next(ours)])),
        GENERATE: lambda: outputs.append(plain_output(stock, next(theirs))),
    }
    n = len(requests)
    taken = measure(paths, repeats * n, WARM_UP)
    last = completions[-n:]
    facts = {
        "requests": n,
        **{f"p95_{'ours' if path == OURS else 'stock'}": float(np.quantile(t.seconds, 0.95)) for path, t in taken.items()},
        "tokens": sum(len(completion.logprobs) for completion in last),  # as many steps as model.generate takes
        "steps": sum(completion.steps for completion in last),
        "equal_share": _equal_share([completion.text for completion in last], outputs[-n:]),
    }
    return Result("route_p50", {path: timing.per(n, statistics.median) for path, timing in taken.items()}, facts)


def _equal_share(left: Sequence[str], right: Sequence[str]) -> float:
    return statistics.fmean(a == b for a, b in zip(left, right, strict=True))


def run(args: argparse.Namespace) -> None:
    """Checks that the paths agree, times them, and prints each ratio with what it was measured on; `--json` keeps it all.

    `args` has `rows` (None: 64 training rows and the whole test split), `repeats`, `adapter` (of the routers; None: the base alone), and
    `json`: a path, `-` for the last line of the output, or None.

    Raises ValueError on rows that make no whole steps, and RuntimeError when the paths disagree.
    """
    base, record, rows = default_base(), run_record(), ROWS if args.rows is None else args.rows
    if rows < BATCH or rows % BATCH:
        raise ValueError(f"training is timed in steps of {BATCH} rows: --rows must be a multiple of {BATCH}, got {rows}")
    training, test = evenly(load_examples("train"), rows), load_examples("test")
    requests = [example.request for example in evenly(test, args.rows or len(test))]
    jobs = {
        "train_support_desk": make_job(base, training, support_desk()),
        "train_30_tools": make_job(base, training, thirty_tools()),
    }
    whole, router = (Router.from_pretrained(base, args.adapter, four_bit=four_bit) for four_bit in (False, True))
    whole_stock, stock = (stock_router(base, args.adapter, four_bit) for four_bit in (False, True))
    whole.model.float()
    whole_stock.model.float()
    adapted = f"with the adapter in {args.adapter}" if args.adapter else "without adapter"
    print(f"base {base_label(base)}, routing {adapted}; equality is checked in float32, times are taken in 4 bits", flush=True)
    unusable = {name: unusable_paths(job) for name, job in jobs.items()}
    check_outputs(whole, whole_stock, requests)
    del whole, whole_stock  # their memory would be missed while times are taken
    print("every path agrees with ours, except those left out below; timing", flush=True)
    results = [time_training(name, job, unusable[name], args.repeats) for name, job in jobs.items()]
    rounded = rounded_router(base, args.adapter) if args.adapter else None
    results += [
        time_evaluation(router, stock, requests, args.repeats, rounded),
        time_routing(router, stock, evenly(requests, ROUTED), args.repeats),
    ]
    print(report(results))
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    print(f"\n{record['machine']}; {versions}; {record['date']}")
    ratios = {result.name: round(result.ratio.median, 3) for result in results}
    details = {result.name: result.to_dict() for result in results}
    _keep({**ratios, **_made(args, base), **record, "details": details}, args.json)


def report(results: Sequence[Result]) -> str:
    """The ratios as a table, the seconds as medians with quartiles, and a line of facts for each result."""
    lines = [["", "stock, s", "ours, s", "stock / ours (range)", "stock path"]]
    lines += [[r.name, str(r.timings[r.stock]), str(r.timings[OURS]), str(r.ratio), r.stock] for r in results]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    for r in results:
        others = [f"{path}: {timing} s" for path, timing in r.timings.items() if path not in (OURS, r.stock)]
        left_out = [f"{path} is left out: {why}" for path, why in r.facts.get("left_out", {}).items()]
        facts = [f"{key.replace('_', ' ')} {value:g}" for key, value in r.facts.items() if key != "left_out"]
        shown += ["", r.name, *(f"  {line}" for line in (", ".join(facts), *others, *left_out))]
    return "\n".join(shown)


def growth(args: argparse.Namespace) -> None:
    """How the time of a row grows with the catalogue, and that of all rows with their number; `--json` keeps it for `plots.growth`.

    `args` as for `run`, but `rows` are the requests under each catalogue (None: 64), and the loop over `model.generate` is timed for
    up to `most_stock` requests. Nothing is extrapolated: what was not measured is None. Raises ValueError without rows, and
    RuntimeError when the paths disagree.
    """
    base, record, rows = default_base(), run_record(), ROWS if args.rows is None else args.rows
    if args.adapter:
        raise ValueError("--growth times the base alone; leave out --adapter")
    if rows < 1:
        raise ValueError(f"there is no request to time: --rows must be at least 1, got {rows}")
    training, tokenizer, whole = load_examples("train"), load_tokenizer(base), load_base(base, four_bit=False).float()
    requests = [example.request for example in training]
    routed = evenly(requests, rows)
    looped = evenly(routed, LOOPED)
    fitting = catalogues(longest(requests, tokenizer), tokenizer, whole.config.get_text_config().max_position_embeddings)
    jobs, unusable = [make_job(base, evenly(training, BATCH), toolset) for toolset in fitting], []
    for job in jobs:
        router = Router(whole, tokenizer, job.toolset)
        check_outputs(router, router, looped)
        unusable.append(unusable_paths(job))
    print(f"base {base_label(base)} without adapter: in float32 the paths agree; times are taken in 4 bits", flush=True)
    models, by_catalogue, by_rows = (Router.from_pretrained(base).model, load_base(base)), [], []
    for job, left_out in zip(jobs, unusable, strict=True):
        trained = time_training(f"{len(job.toolset)} tools", job, left_out, args.repeats)
        taken, completions, _ = time_requests(*(Router(model, tokenizer, job.toolset) for model in models), routed, looped, args.repeats)
        per_row = {
            "train_ours": trained.timings[OURS].median / BATCH,
            "train_stock": trained.timings[trained.stock].median / BATCH,
            "route_ours": taken[OURS].median / len(routed),
            "route_stock": taken[GENERATE].median / len(looped),
        }
        size = {
            "tools": len(job.toolset),
            "prompt_tokens": prompt_tokens(job.toolset, tokenizer),
            "written_tokens": round(statistics.fmean(len(completion.logprobs) for completion in completions), 1),
        }
        by_catalogue.append({**size, **per_row, "train_path": trained.stock, "left_out": left_out})
        shown = ", ".join(f"{name.replace('_', ' ')} {seconds * 1000:.3g}" for name, seconds in per_row.items())
        print(f"{trained.name}, ms a row: {shown} ({trained.stock}); {size['written_tokens']} tokens written", flush=True)
    for n in REQUESTS:
        asked = evenly(requests * math.ceil(n / len(requests)), n)
        taken, *_ = time_requests(
            *(Router(model, tokenizer) for model in models), asked, asked if n <= args.most_stock else [], args.repeats
        )
        seconds = {"ours": taken[OURS].median, "stock": taken[GENERATE].median if GENERATE in taken else None}
        by_rows.append({"rows": n, **seconds})
        print(f"{n:,} requests, s: {', '.join(f'{name} {s:.3g}' for name, s in seconds.items() if s is not None)}", flush=True)
    kept = {**_made(args, base), **record, "routed": len(routed), "looped": len(looped)}
    _keep({**kept, "catalogue": by_catalogue, "rows": by_rows}, args.json)


def catalogues(request: str, tokenizer: PreTrainedTokenizerBase, positions: int) -> list[Toolset]:
    """Catalogues of SIZES tools, the support desk's first; where `request` exceeds the base's positions, of the most tools that fit."""
    every, found = with_desk(written_tools()), {}
    for size in SIZES:
        prefixes = (Toolset.from_specs(every[name] for name in every.names[:n]) for n in range(size, 0, -1))
        toolset = next(toolset for toolset in prefixes if room_for(request, toolset, tokenizer) <= positions)
        if len(toolset) < size:
            print(f"{size} tools do not fit into the base's {positions:,} positions; the most that do are {len(toolset)}", flush=True)
        found[len(toolset)] = toolset
    return list(found.values())


def ratio_table(record: dict[str, Any]) -> str:
    """Markdown: each ratio of a record with its range over the repeats, and the stock path that was the fastest."""
    lines = ["| what | stock path | stock / ours (range) |", "| --- | --- | --- |"]
    for name, detail in record["details"].items():
        low, high = min(detail["ratios"]), max(detail["ratios"])
        lines.append(f"| {name.replace('_', ' ')} | {detail['stock']} | **{record[name]:.1f}** ({low:.1f} to {high:.1f}) |")
    return "\n".join(lines)


def sources_digest() -> str:
    """SHA-256 of the modules that are measured: a record of others is stale."""
    return hashlib.sha256(b"\0".join((ROOT / "helpers" / f"{name}.py").read_bytes() for name in SOURCES)).hexdigest()


def _made(args: argparse.Namespace, base: str) -> dict[str, str]:
    return {"command": _command(args), "base": base_label(base), "sources_sha256": sources_digest()}


def _command(args: argparse.Namespace) -> str:
    command = "python -m helpers bench" + (f" --growth --most-stock {args.most_stock}" if args.growth else "")
    command += f" --adapter {args.adapter}" if args.adapter else ""
    return f"{command} --repeats {args.repeats}" + ("" if args.rows is None else f" --rows {args.rows}")


def _keep(record: dict[str, Any], path: Path | None) -> None:
    """The record in a file, as the last line of the output for `-`, or nowhere."""
    if str(path) == "-":
        print(json.dumps(record))
    elif path is not None:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
