"""How much faster than the stock path: every figure is a ratio of times taken side by side, after both paths gave the same results."""

import argparse
import dataclasses
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from trl import SFTTrainer

from helpers.examples import Example, load_examples
from helpers.models import base_label, default_base, load_base, load_tokenizer
from helpers.packing import MAX_PACKED
from helpers.paths import OUTPUTS, TINY_BASE
from helpers.routing import MAX_NEW_TOKENS, Completion, Router
from helpers.tools import Toolset, support_desk
from helpers.training import Recipe, lora_config, make_trainer, recipe_for, run_record, sft_config, to_dataset

OURS, GENERATE = "ours", "model.generate, one by one"
TOLERANCE = 1e-5  # of loss and gradients, relative, in float32
ROWS, ROUTED, WARM_UP = 64, 40, 2
LONG_PROMPT, LONG_ROWS = 1500, 2048  # tokens: the system prompt of 33 tools, and room for a row under it


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


# --- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What every path trains: the same base, rows, catalogue and recipe."""

    base: str
    examples: Sequence[Example]
    toolset: Toolset
    recipe: Recipe

    def trainer(self, options: dict[str, Any] | None, four_bit: bool = True) -> SFTTrainer:
        """Ours, or with `options` TRL's trainer as it comes, over a base loaded afresh (in float32 when it is not in 4 bits)."""
        tokenizer, model = load_tokenizer(self.base), load_base(self.base, four_bit)
        model = model if four_bit else model.float()
        dataset, output = to_dataset(self.examples, self.toolset, tokenizer, self.recipe.max_length), OUTPUTS / "bench"
        if options is None:
            trainer = make_trainer(model, tokenizer, dataset, self.recipe, output)
        else:
            config, lora = sft_config(self.recipe, output, **options), lora_config(self.recipe)
            trainer = SFTTrainer(model=model, args=config, train_dataset=dataset, processing_class=tokenizer, peft_config=lora)
        trainer.args.train_sampling_strategy = "sequential"  # a step has the same rows on every path
        if trainer.args.activation_checkpointing:
            trainer.model.activation_checkpointing_enable()  # train() would do this first
        return trainer


def stock_paths(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """TRL's own ways through the rows of a step, as options for `sft_config`.

    Without flash attention, packed and padding-free rows pay for a dense mask over their sequence: those sequences are kept short.
    """
    rows, flat = recipe.batch * recipe.accumulation, max(1, MAX_PACKED // recipe.max_length)
    return {
        f"TRL, padded {rows} x 1": {"per_device_train_batch_size": rows},
        f"TRL, padded {rows // 2} x 2": {"per_device_train_batch_size": rows // 2},
        "TRL, packing": {"packing": True, "per_device_train_batch_size": 1},
        "TRL, padding-free": {"padding_free": True, "max_length": None, "per_device_train_batch_size": flat},
    }


def unusable_paths(job: Job) -> dict[str, str]:
    """The stock paths that do not work here, each with the reason; one step of the others has our loss and gradients, in float32.

    Raises RuntimeError when padded rows have another loss or other gradients than ours: then there is nothing to compare.
    """
    rows, still = job.recipe.batch * job.recipe.accumulation, dataclasses.replace(job.recipe, dropout=0.0)
    job = dataclasses.replace(job, examples=job.examples[:rows], recipe=still)
    loss, gradients = loss_and_gradients(job.trainer(None, four_bit=False))
    unusable = {}
    for path, options in stock_paths(job.recipe).items():
        padded = not options.keys() & {"packing", "padding_free"}
        try:
            stock_loss, expected = loss_and_gradients(job.trainer(options, four_bit=False))
        except Exception as error:  # TRL, the attention and the device each raise their own
            if padded:
                raise
            first, *_ = str(error).strip().split("\n")
            unusable[path] = f"{type(error).__name__}: {first}"
            continue
        off = max(abs(loss - stock_loss) / abs(stock_loss), float((gradients - expected).norm() / expected.norm()))
        if off <= TOLERANCE:
            continue
        if padded:
            raise RuntimeError(f"{path}: loss or gradients are {off:.1g} off ours, so the times cannot be compared; see helpers/packing.py")
        unusable[path] = f"loss or gradients are {off:.1g} off ours"
    return unusable


def loss_and_gradients(trainer: SFTTrainer) -> tuple[float, torch.Tensor]:
    """Loss and adapter gradients of all the trainer's rows as one step, without mixed precision."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:  # begins at zero, which would hide every gradient of A
            parameter.data.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    trainer.model.train()
    loader, total = trainer.get_train_dataloader(), 0.0
    batches, count = trainer.get_batch_samples(iter(loader), len(loader), trainer.args.device)
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=count)
        loss.backward()
        total += loss.item()
    return total, torch.cat([parameter.grad.flatten() for parameter in trainer.model.parameters() if parameter.requires_grad])


def optimiser_steps(trainer: SFTTrainer, steps: int) -> Callable[[], None]:
    """A function that takes the next optimiser step, round after round through the trainer's rows, `steps` to a round."""
    trainer.create_optimizer()
    model, optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
    loader = trainer.get_train_dataloader()
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    sizes = itertools.cycle([(n + 1) * len(loader) // steps - n * len(loader) // steps for n in range(steps)])

    def step() -> None:
        inputs, count = trainer.get_batch_samples(batches, next(sizes), trainer.args.device)
        for batch in inputs:
            trainer.training_step(model, batch, count)
        optimizer.step()
        optimizer.zero_grad()

    return step


def time_training(name: str, job: Job, unusable: dict[str, str], repeats: int) -> Result:
    """Seconds for one pass over the job's rows, in 4 bits as the course trains."""
    steps = len(job.examples) // (job.recipe.batch * job.recipe.accumulation)
    options = {OURS: None} | {path: options for path, options in stock_paths(job.recipe).items() if path not in unusable}
    trainers = {path: job.trainer(chosen) for path, chosen in options.items()}
    taken = measure({path: optimiser_steps(trainer, steps) for path, trainer in trainers.items()}, repeats * steps, WARM_UP)
    return Result(name, {path: timing.per(steps, sum) for path, timing in taken.items()}, {"rows": len(job.examples), "left_out": unusable})


def thirty_tools() -> Toolset:
    """The support desk's three tools and 30 of as many other domains, under a system prompt of about 1,500 tokens of the tiny tokenizer.

    The tools are those the tiny base has met; one by one they get all their descriptions at once, until the prompt is long enough.
    """
    written: dict[str, dict] = {}
    for line in (TINY_BASE / "tools.jsonl").read_text(encoding="utf-8").splitlines():
        tool = json.loads(line)
        if tool["domain"] not in {other["domain"] for other in written.values()}:
            written.setdefault(tool["names"][0], tool)  # where the name is taken, the domain's next tool gets its turn
    tools, tokenizer, desk = list(written.values())[:30], load_tokenizer(str(TINY_BASE)), support_desk()
    others = Toolset.from_mcp(_as_mcp(tool) for tool in tools)
    specs = {name: catalogue[name] for catalogue in (desk, others) for name in catalogue.names}
    for name, tool in zip(others.names, tools, strict=True):
        if len(tokenizer(Toolset.from_specs(specs.values()).system_prompt())["input_ids"]) >= LONG_PROMPT:
            break
        specs[name] = dataclasses.replace(specs[name], description="; ".join(tool["descriptions"]))
    return Toolset.from_specs(specs.values())


def _as_mcp(tool: dict[str, Any]) -> dict[str, Any]:
    """A line of `tools.jsonl` under its first name, description and argument names."""
    named = {argument["names"][0]: argument for argument in tool["arguments"]}
    kinds = {"code": "string", "text": "string", "enum": "string"}
    properties = {name: {"type": kinds.get(argument["type"], argument["type"])} for name, argument in named.items()}
    for name, argument in named.items():
        if argument["type"] == "enum":
            properties[name]["enum"] = argument["values"]
    required = [name for name, argument in named.items() if not argument.get("optional")]
    schema = {"type": "object", "properties": properties, "required": required}
    return {"name": tool["names"][0], "description": tool["descriptions"][0], "inputSchema": schema}


# --- generation -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def plain_output(router: Router, request: str) -> str:
    """The lesson's loop, one turn: the whole prompt through `model.generate`, greedy, with its own cache."""
    ids = torch.tensor([router._prompt(request)], device=router.model.device)
    out = router.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
        repetition_penalty=1.0,  # Qwen2.5 brings another one, which is not greedy decoding
        use_cache=True,
        pad_token_id=router.tokenizer.pad_token_id,
        eos_token_id=sorted(router._ends),
    )
    return router.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def check_outputs(router: Router, requests: Sequence[str]) -> None:
    """Raises RuntimeError, naming the request, where `Router.generate` or `Router.complete_one` departs from `model.generate`."""
    expected = [plain_output(router, request) for request in requests]
    found = {"generate": router.generate(requests), "complete_one": [router.complete_one(request).text for request in requests]}
    for method, outputs in found.items():
        for request, output, stock in zip(requests, outputs, expected, strict=True):
            if output != stock:
                raise RuntimeError(f"Router.{method} answers {request!r} with {output!r}, where model.generate gives {stock!r}")


def time_evaluation(router: Router, requests: Sequence[str], repeats: int) -> Result:
    """Seconds for the outputs of all requests; the share of outputs that are equal is a fact, since 4 bits round differently in batches."""
    found: dict[str, list[str]] = {}

    def ours() -> None:
        found[OURS] = router.generate(requests)

    def one_by_one() -> None:
        found[GENERATE] = [plain_output(router, request) for request in requests]

    router.generate(requests[:2])
    plain_output(router, requests[0])
    taken = measure({OURS: ours, GENERATE: one_by_one}, repeats, warm_up=0)  # warm by now, and a whole round more would take minutes
    speed = {f"rows_per_second_{'ours' if path == OURS else 'stock'}": round(len(requests) / t.median, 2) for path, t in taken.items()}
    return Result("evaluate", taken, {"rows": len(requests), **speed, "equal_share": _equal_share(found[OURS], found[GENERATE])})


def time_routing(router: Router, requests: Sequence[str], repeats: int) -> Result:
    """The median seconds of one request, each by itself."""
    completions: list[Completion] = []
    outputs: list[str] = []
    ours, stock = itertools.cycle(requests), itertools.cycle(requests)
    paths = {
        OURS: lambda: completions.append(router.complete_one(next(ours))),
        GENERATE: lambda: outputs.append(plain_output(router, next(stock))),
    }
    n = len(requests)
    taken = measure(paths, repeats * n, WARM_UP)
    last = completions[-n:]
    facts = {
        "requests": n,
        **{f"p95_{'ours' if path == OURS else 'stock'}": float(np.quantile(t.seconds, 0.95)) for path, t in taken.items()},
        "tokens": sum(len(completion.logprobs) for completion in last),  # as many steps as model.generate takes
        "steps": sum(completion.steps or len(completion.logprobs) for completion in last),  # uncounted: a step for each token
        "equal_share": _equal_share([completion.text for completion in last], outputs[-n:]),
    }
    return Result("route_p50", {path: timing.per(n, statistics.median) for path, timing in taken.items()}, facts)


def _equal_share(left: Sequence[str], right: Sequence[str]) -> float:
    return statistics.fmean(a == b for a, b in zip(left, right, strict=True))


# --- the command ------------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> None:
    """Checks that the paths agree, times them, and prints each ratio with what it was measured on; `--json` keeps it all.

    `args` has `rows` (None: 64 training rows and the whole test split), `repeats`, and `json`: a path, `-` for the last line of the
    output, or None. Raises ValueError on rows that make no whole steps, and RuntimeError when the paths disagree.
    """
    base, rows = default_base(), ROWS if args.rows is None else args.rows
    recipe, record = recipe_for(base), run_record()
    step = recipe.batch * recipe.accumulation
    if rows < step or rows % step:
        raise ValueError(f"training is timed in steps of {step} rows: --rows must be a multiple of {step}, got {rows}")
    training, test = evenly(load_examples("train"), rows), load_examples("test")
    requests = [example.request for example in evenly(test, args.rows or len(test))]
    long = dataclasses.replace(recipe, max_length=LONG_ROWS, max_packed=MAX_PACKED)  # short sequences would repeat the long catalogue
    jobs = {
        "train_support_desk": Job(base, training, support_desk(), recipe),
        "train_30_tools": Job(base, training, thirty_tools(), long),
    }
    print(f"base {base_label(base)} without adapter; equality is checked in float32, times are taken in 4 bits", flush=True)
    unusable = {name: unusable_paths(job) for name, job in jobs.items()}
    check_outputs(Router(load_base(base, four_bit=False).float(), load_tokenizer(base)), requests)
    print("every path agrees with ours, except those left out below; timing", flush=True)
    results = [time_training(name, job, unusable[name], args.repeats) for name, job in jobs.items()]
    router = Router.from_pretrained(base)
    results += [time_evaluation(router, requests, args.repeats), time_routing(router, evenly(requests, ROUTED), args.repeats)]
    print(report(results))
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    print(f"\n{record['machine']}; {versions}; {record['date']}")
    if args.json is not None:
        command = f"python -m helpers bench --repeats {args.repeats}" + ("" if args.rows is None else f" --rows {args.rows}")
        ratios = {result.name: round(result.ratio.median, 3) for result in results}
        kept = {**ratios, "command": command, "base": base_label(base), **record, "details": {r.name: r.to_dict() for r in results}}
        if str(args.json) == "-":
            print(json.dumps(kept))
        else:
            args.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


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
