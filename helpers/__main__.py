"""The shell's door: `python -m helpers course | train | evaluate | route | sweep | bench | fit`; each imports only what it needs."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Runs one command; an error that the user can mend is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers", description="Fine-tune a small language model to call tools, and measure it."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    course = commands.add_parser("course", help="measure the base, fine-tune it, measure it again")
    course.add_argument("--seeds", type=int, nargs="+", default=[0], help="one fine-tune for each (default: 0)")
    course.add_argument("--json", type=Path, help="keep the results here, with versions, machine and date")

    training = commands.add_parser("train", help="fine-tune the base and leave an adapter")
    training.add_argument("--output", type=Path, required=True, help="folder for the adapter")
    training.add_argument("--data", type=Path, help="training rows as JSONL (default: the support desk's)")
    training.add_argument("--base", help="model name or folder (default: COURSE_BASE, else the one that fits this machine)")
    training.add_argument("--seed", type=int, default=0)

    evaluation = commands.add_parser("evaluate", help="the four numbers of a base or an adapter on a file of rows")
    evaluation.add_argument("--adapter", type=Path, help="folder that `train` left; without it the base is measured")
    evaluation.add_argument("--base", help="model name or folder (default: the adapter's own, else as for `train`)")
    evaluation.add_argument("--data", type=Path, help="rows as JSONL (default: the support desk's test split)")
    evaluation.add_argument("--json", type=Path, help="write the report here as well")
    evaluation.add_argument("--rows", type=Path, help="write every row with its output and outcome here, as .csv or .jsonl")

    routing = commands.add_parser("route", help="the decision for each request given, or for each line of standard input")
    routing.add_argument("requests", nargs="*")
    routing.add_argument("--adapter", type=Path)
    routing.add_argument("--base")

    sweeping = commands.add_parser(
        "sweep", help="fine-tune at many shares of negatives, and without each kind: half an hour or more on a CPU"
    )
    sweeping.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    sweeping.add_argument("--size", type=int, help="rows of each run (default: as many as every run can be drawn with, at most 1000)")
    sweeping.add_argument(
        "--output", type=Path, help="JSONL with a row for each run; those it holds are skipped (default: the recorded one)"
    )

    benching = commands.add_parser("bench", help="how much faster than the stock path, and how both grow: minutes on a CPU")
    benching.add_argument("--rows", type=int, help="training rows and requests to time (default: 64 and the whole test split)")
    benching.add_argument("--repeats", type=int, default=3, help="how often each is timed; what is shown is the median (default: 3)")
    benching.add_argument("--adapter", type=Path, help="folder that `train` left, for the routers that are timed (default: the base alone)")
    benching.add_argument("--growth", action="store_true", help="time catalogues of 3 to 100 tools, and 100 to 10,000 requests, instead")
    benching.add_argument("--most-stock", type=int, default=300, help="requests up to which --growth times the stock loop (default: 300)")
    benching.add_argument("--json", type=Path, help="keep the results here; - prints them as the last line")

    fitting = commands.add_parser("fit", help="memory and speed of QLoRA on this GPU for bases of 0.5 to 8 B, and what fits which card")
    fitting.add_argument("--json", type=Path, help="keep the record here; it needs a GPU")

    args = parser.parse_args(argv)
    try:
        for path in (getattr(args, "json", None), getattr(args, "rows", None)):
            if isinstance(path, Path) and not path.parent.is_dir():  # now, not after the work is done
                raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into")
        run = {"course": _course, "train": _train, "evaluate": _evaluate, "route": _route, "sweep": _sweep, "bench": _bench, "fit": _fit}
        run[args.command](args)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _course(args: argparse.Namespace) -> None:
    from helpers.lab.course import run

    run(args)


def _train(args: argparse.Namespace) -> None:
    from helpers.examples import load_examples, read_examples
    from helpers.tools import support_desk

    examples = read_examples(args.data, support_desk()) if args.data else load_examples("train")  # before torch: bad rows fail at once
    from helpers.training import train

    print(f"adapter in {train(examples, args.output, args.base, seed=args.seed)}")


def _evaluate(args: argparse.Namespace) -> None:
    from helpers.evaluation import breakdown, score, table, write_json
    from helpers.examples import load_examples, read_examples
    from helpers.tools import support_desk

    toolset = support_desk()
    examples = read_examples(args.data, toolset) if args.data else load_examples("test")
    from helpers.routing import Router

    router = Router.from_pretrained(args.base, args.adapter, toolset)
    outputs = router.generate([example.request for example in examples], progress=True)
    report = score(outputs, examples, toolset, args.adapter.name if args.adapter else "base")
    print(table([report]) + "\n\n" + breakdown(report.per_kind()))
    if args.json:
        write_json(report, args.json)
    if args.rows:
        report.write_rows(args.rows)


def _route(args: argparse.Namespace) -> None:
    requests = args.requests or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not requests:
        raise ValueError("nothing to route: give requests as arguments, or one a line on standard input")
    from helpers.routing import Router

    router = Router.from_pretrained(args.base, args.adapter)
    for request in requests:
        print(router.route(request))


def _sweep(args: argparse.Namespace) -> None:
    from helpers.lab.sweep import RECORD, sweep

    sweep(args.output or RECORD, seeds=args.seeds, size=args.size)


def _bench(args: argparse.Namespace) -> None:
    from helpers.lab import bench

    (bench.growth if args.growth else bench.run)(args)


def _fit(args: argparse.Namespace) -> None:
    from helpers.lab.fit import fit

    fit(args.json)


if __name__ == "__main__":
    sys.exit(main())
