"""The bench without its clock: what is timed in which order, what must agree first, and the record it leaves."""

import argparse
import json
import shutil
import statistics
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig

from helpers import models, routing, training
from helpers.examples import SPLITS, check_target, load_examples
from helpers.lab import bench
from helpers.lab.bench import OURS, Job, Ratio, Result, Timing, evenly, measure, optimiser_steps, ratio, stock_paths, thirty_tools
from helpers.models import load_tokenizer
from helpers.packing import SharedPrefixCollator
from helpers.paths import TINY_BASE
from helpers.routing import Router
from helpers.tools import support_desk
from helpers.training import LESSON, TINY, Recipe

PADDED = ["TRL, padded 16 x 1", "TRL, padded 8 x 2"]
SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 16, "pad_token_id": 0, "attn_implementation": "sdpa",
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    """A folder with a random model of a few thousand parameters and the tiny base's tokenizer."""
    folder, tokenizer = tmp_path_factory.mktemp("base"), load_tokenizer(str(TINY_BASE))
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **SMALL)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY_BASE / name, folder)
    return str(folder)


@pytest.fixture(scope="module")
def job(base) -> Job:
    return Job(base, load_examples("train")[:16], support_desk(), TINY)


@pytest.fixture
def short_outputs(monkeypatch):
    """A random model never ends: eight tokens of it are enough."""
    for module in (bench, routing):
        monkeypatch.setattr(module, "MAX_NEW_TOKENS", 8)


# --- times and ratios -------------------------------------------------------------------------------------------------


def test_paths_take_turns_and_the_warm_up_does_not_count(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def path(name, seconds):
        def call():
            calls.append(name)
            now[0] += seconds * (10 if len(calls) <= 4 else 1)  # the two calls of each that warm up are slow

        return call

    found = measure({"stock": path("stock", 3.0), OURS: path(OURS, 1.0)}, repeats=3, warm_up=2)
    assert calls == ["stock", OURS] * 5
    assert found == {"stock": Timing((3.0, 3.0, 3.0)), OURS: Timing((1.0, 1.0, 1.0))}


def test_nothing_to_repeat_is_an_error():
    with pytest.raises(ValueError, match="at least one repeat, got 0"):
        measure({OURS: lambda: None}, repeats=0, warm_up=1)


def test_a_timing_has_median_quartiles_and_one_figure_for_so_many_runs():
    timing = Timing((5.0, 1.0, 4.0, 2.0, 3.0, 9.0))
    assert timing.median == 3.5
    assert Timing((1.0, 2.0, 3.0, 4.0, 5.0)).spread == (2.0, 4.0)
    assert timing.per(3, sum) == Timing((10.0, 14.0))
    assert timing.per(3, statistics.median) == Timing((4.0, 3.0))
    assert str(Timing((1.0, 2.0, 3.0, 4.0, 5.0))) == "3 (2 to 4)"


def test_a_ratio_is_stock_over_ours_repeat_by_repeat():
    found = ratio(Timing((6.0, 10.0, 3.0)), Timing((2.0, 2.0, 3.0)))
    assert found == Ratio((3.0, 5.0, 1.0))
    assert found.median == 3.0
    assert str(found) == "3.00 (1.00 to 5.00)"


@pytest.mark.parametrize(("stock", "ours"), [((1.0, 2.0), (1.0,)), ((), ())])
def test_times_that_do_not_pair_have_no_ratio(stock, ours):
    with pytest.raises(ValueError, match=f"at least one; got {len(stock)} and {len(ours)}"):
        ratio(Timing(stock), Timing(ours))


def test_ours_is_held_against_the_fastest_of_the_stock_paths():
    result = Result("x", {OURS: Timing((1.0, 1.0)), "slow": Timing((8.0, 8.0)), "fast": Timing((2.0, 4.0))}, {"rows": 3})
    assert result.stock == "fast"
    assert result.ratio == Ratio((2.0, 4.0))
    assert result.to_dict()["paths"]["slow"] == {"seconds": (8.0, 8.0), "median": 8.0, "quartiles": (8.0, 8.0)}
    assert (result.to_dict()["stock"], result.to_dict()["ratios"], result.to_dict()["rows"]) == ("fast", (2.0, 4.0), 3)


def test_the_report_shows_both_times_the_ratio_and_what_was_left_out():
    timings = {OURS: Timing((2.0,)), "padded": Timing((5.0,)), "packed": Timing((6.0,))}
    text = bench.report([Result("training", timings, {"rows": 64, "left_out": {"flat": "ValueError: needs flash attention"}})])
    assert [line.rstrip() for line in text.splitlines()] == [
        "          stock, s    ours, s     stock / ours (range)  stock path",
        "training  5 (5 to 5)  2 (2 to 2)  2.50 (2.50 to 2.50)   padded",
        "",
        "training",
        "  rows 64",
        "  packed: 6 (6 to 6) s",
        "  flat is left out: ValueError: needs flash attention",
    ]


@pytest.mark.parametrize(("n", "expected"), [(1, [0]), (2, [0, 3]), (3, [0, 2, 4]), (6, [0, 1, 2, 3, 4, 5]), (9, [0, 1, 2, 3, 4, 5])])
def test_rows_are_taken_at_even_distances(n, expected):
    assert evenly(range(6), n) == expected


@given(st.integers(1, 60), st.integers(1, 60))
def test_rows_at_even_distances_keep_their_order_and_none_comes_twice(size, n):
    rows = evenly(range(size), n)
    assert len(rows) == min(size, n)
    assert all(a < b for a, b in pairwise(rows))


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("recipe", "flat"), [(TINY, 4), (LESSON, 4), (Recipe(max_length=2048), 2), (Recipe(max_length=9000), 1)])
def test_the_stock_paths_have_the_same_rows_to_a_step_whatever_the_recipe(recipe, flat):
    assert stock_paths(recipe) == {
        "TRL, padded 16 x 1": {"per_device_train_batch_size": 16},
        "TRL, padded 8 x 2": {"per_device_train_batch_size": 8},
        "TRL, packing": {"packing": True, "per_device_train_batch_size": 1},
        "TRL, padding-free": {"padding_free": True, "max_length": None, "per_device_train_batch_size": flat},
    }


class FakeTrainer:
    """Counts what a trainer is asked for: thirteen batches, of which each is its number."""

    def __init__(self):
        self.args, self.model, self.seen, self.steps = SimpleNamespace(device="cpu"), "model", [[]], 0
        self.accelerator = SimpleNamespace(prepare=lambda model, optimizer: ("prepared", self))

    def create_optimizer(self):
        self.optimizer = "optimizer"

    def get_train_dataloader(self):
        return range(13)

    def get_batch_samples(self, batches, n, device):
        return [next(batches) for _ in range(n)], n

    def training_step(self, model, batch, count):
        assert model == "prepared"
        self.seen[-1].append(batch)

    def step(self):
        self.steps += 1

    def zero_grad(self):
        self.seen.append([])


def test_a_round_of_steps_takes_every_batch_once_and_then_begins_again():
    trainer = FakeTrainer()
    step = optimiser_steps(trainer, steps=4)
    for _ in range(6):
        step()
    assert trainer.steps == 6
    assert trainer.seen == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11, 12], [0, 1, 2], [3, 4, 5], []]


def test_padded_rows_agree_with_ours_and_what_is_unusable_says_why(job):
    unusable = bench.unusable_paths(job)
    assert not set(PADDED) & unusable.keys()
    assert all(unusable.values())


def test_a_collator_whose_rows_see_each_other_stops_the_bench(job, monkeypatch):
    class Leaky(SharedPrefixCollator):
        def __call__(self, features):
            batch = super().__call__(features)
            return batch | {"attention_mask": torch.ones_like(batch["attention_mask"]).tril()}

    monkeypatch.setattr(training, "SharedPrefixCollator", Leaky)
    with pytest.raises(RuntimeError, match=r"TRL, padded 16 x 1: loss or gradients are .* off ours"):
        bench.unusable_paths(job)


def test_a_stock_path_that_raises_is_left_out_with_its_first_line(job, monkeypatch):
    build = Job.trainer

    def trainer(self, options, four_bit=True):
        if options and "packing" in options:
            raise ImportError("flash attention is not installed\nand more about it")
        return build(self, options, four_bit)

    monkeypatch.setattr(Job, "trainer", trainer)
    assert bench.unusable_paths(job)["TRL, packing"] == "ImportError: flash attention is not installed"


# --- the long catalogue -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def catalogue():
    return thirty_tools()


def test_the_long_catalogue_has_33_tools_and_a_prompt_of_about_1500_tokens(catalogue):
    assert len(catalogue) == 33
    assert catalogue.names[:3] == ["track_order", "request_refund", "escalate"]
    tokens = load_tokenizer(str(TINY_BASE))(catalogue.system_prompt())["input_ids"]
    assert 1400 <= len(tokens) <= 1700


def test_the_other_tools_are_of_thirty_domains(catalogue):
    lines = (TINY_BASE / "tools.jsonl").read_text(encoding="utf-8").splitlines()
    tools = [json.loads(line) for line in lines]
    domains = {name: {tool["domain"] for tool in tools if tool["names"][0] == name} for name in catalogue.names[3:]}
    assert all(domains.values())
    assert len(set().union(*domains.values())) >= 30


def test_a_tool_of_it_reads_like_any_other(catalogue):
    line = catalogue["report_device_fault"].signature()
    assert line.startswith("report_device_fault(device: str, problem: str): record that a smart device in the house is misbehaving; ")
    assert catalogue["book_seats"].signature().startswith('book_seats(show: str, seats: int, area?: "stalls"|"circle"|"balcony"|"box"): ')


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_of_the_support_desk_is_legal_under_it(catalogue, split):
    for example in load_examples(split):
        check_target(example, catalogue)


# --- generation and the command ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["generate", "complete_one"])
def test_outputs_that_differ_from_plain_generation_stop_the_bench(base, short_outputs, monkeypatch, method):
    router = Router(models.load_base(base, four_bit=False), load_tokenizer(base))
    requests = ["where is A-12?", "hello"]
    bench.check_outputs(router, requests)
    completion = SimpleNamespace(text="nonsense")
    wrong = {"generate": lambda requests: ["nonsense"] * len(requests), "complete_one": lambda request: completion}
    monkeypatch.setattr(router, method, wrong[method])
    with pytest.raises(RuntimeError, match=rf"Router\.{method} answers 'where is A-12\?' with 'nonsense', where model\.generate gives"):
        bench.check_outputs(router, requests)


@pytest.fixture
def quick(base, short_outputs, monkeypatch):
    """The whole command over the small base, in float32, with times that are made up: ours takes half of every other."""

    def made_up(paths, repeats, warm_up):
        for path in paths.values():
            path()
        return {name: Timing((0.5 if name == OURS else 1.0,) * repeats) for name in paths}

    monkeypatch.setenv("COURSE_BASE", base)
    monkeypatch.setattr(bench, "measure", made_up)
    monkeypatch.setattr(bench, "thirty_tools", support_desk)  # the long catalogue would take a minute
    for module in (bench, routing):
        monkeypatch.setattr(module, "load_base", lambda name, four_bit=True: models.load_base(name, four_bit=False).float())


def test_the_last_line_is_the_record_with_the_four_ratios(quick, capsys):
    bench.run(argparse.Namespace(rows=16, repeats=2, json=Path("-")))
    *shown, last = capsys.readouterr().out.splitlines()
    record = json.loads(last)
    four = ("train_support_desk", "train_30_tools", "evaluate", "route_p50")
    assert [record[name] for name in four] == [2.0, 2.0, 2.0, 2.0]
    assert list(record["details"]) == list(four)
    assert {"machine", "versions", "date", "base", "command"} <= record.keys()
    assert record["command"] == "python -m helpers bench --repeats 2 --rows 16"
    assert record["details"]["train_support_desk"]["rows"] == record["details"]["evaluate"]["rows"] == 16
    assert record["details"]["evaluate"]["equal_share"] == record["details"]["route_p50"]["equal_share"] == 1.0
    assert len(record["details"]["route_p50"]["paths"][OURS]["seconds"]) == 2
    starts = [line.split()[0] for line in shown if line.startswith(four)]
    assert starts == [*four, *four]  # the table, and then the facts of each


def test_the_record_goes_into_a_file_and_is_not_printed(quick, tmp_path, capsys):
    bench.run(argparse.Namespace(rows=16, repeats=1, json=tmp_path / "bench.json"))
    assert json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["evaluate"] == 2.0
    assert '"evaluate"' not in capsys.readouterr().out


@pytest.mark.parametrize("rows", [0, 8, 20])
def test_rows_that_make_no_whole_steps_are_refused_before_anything_is_loaded(base, monkeypatch, rows):
    monkeypatch.setenv("COURSE_BASE", base)
    monkeypatch.setattr(bench, "unusable_paths", None)
    with pytest.raises(ValueError, match=f"--rows must be a multiple of 16, got {rows}"):
        bench.run(argparse.Namespace(rows=rows, repeats=1, json=None))
