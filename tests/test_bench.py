"""The bench without its clock: what ours is held against, what must agree first, and the records it leaves."""

import argparse
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from helpers import decoding, models, plots, routing, training
from helpers.examples import SPLITS, check_target, load_examples
from helpers.lab import bench, stock
from helpers.lab.bench import catalogues
from helpers.lab.stock import (
    Job,
    check_outputs,
    make_job,
    optimiser_steps,
    prompt_tokens,
    room_for,
    stock_paths,
    thirty_tools,
    unusable_paths,
    with_desk,
    written_tools,
)
from helpers.lab.timing import OURS, Result, Timing
from helpers.models import load_tokenizer
from helpers.packing import SharedPrefixCollator
from helpers.paths import TINY_BASE
from helpers.recipes import TINY, Recipe
from helpers.routing import Router
from helpers.tools import Toolset, support_desk
from helpers.training import train

PADDED = ["TRL, padded 16 x 1", "TRL, padded 8 x 2"]
POSITIONS = 768
SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 16, "pad_token_id": 0, "max_position_embeddings": POSITIONS, "attn_implementation": "sdpa",
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(TINY_BASE))


@pytest.fixture(scope="module")
def base(tokenizer, tmp_path_factory) -> str:
    """A folder with a random model of a few thousand parameters and the tiny base's tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **SMALL)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY_BASE / name, folder)
    return str(folder)


@pytest.fixture(scope="module")
def job(base) -> Job:
    return make_job(base, load_examples("train")[:16], support_desk())


@pytest.fixture
def short_outputs(monkeypatch):
    """A random model never ends: eight tokens of it are enough."""
    monkeypatch.setattr(decoding, "MAX_NEW_TOKENS", 8)


def options(**given) -> argparse.Namespace:
    """The command's options, as the shell would give them."""
    return argparse.Namespace(**{"rows": None, "repeats": 1, "growth": False, "most_stock": 300, "adapter": None, "json": None} | given)


# --- training ---------------------------------------------------------------------------------------------------------


def test_a_job_takes_16_rows_a_step_without_dropout_and_has_room_for_its_longest_row(job, base, tokenizer):
    assert (job.recipe.batch, job.recipe.accumulation, job.recipe.dropout) == (16, 1, 0.0)
    assert (job.recipe.learning_rate, job.recipe.max_length) == (TINY.learning_rate, 1024)
    wide = make_job(base, job.examples, with_desk(written_tools()[:60]))
    assert wide.recipe.max_length > 1024
    assert len(training.to_dataset(wide.examples, wide.toolset, tokenizer, wide.recipe.max_length)) == 16  # not one is too long


@pytest.mark.parametrize(("max_length", "flat"), [(1024, 4), (2048, 2), (9000, 1)])
def test_the_stock_paths_have_the_same_rows_to_a_step_however_long_they_are(max_length, flat):
    assert stock_paths(Recipe(batch=16, accumulation=1, max_length=max_length)) == {
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
    unusable = unusable_paths(job)
    assert not set(PADDED) & unusable.keys()
    assert all(unusable.values())


def test_a_collator_whose_rows_see_each_other_stops_the_bench(job, monkeypatch):
    class Leaky(SharedPrefixCollator):
        def __call__(self, features):
            batch = super().__call__(features)
            return batch | {"attention_mask": torch.ones_like(batch["attention_mask"]).tril()}

    monkeypatch.setattr(training, "SharedPrefixCollator", Leaky)
    with pytest.raises(RuntimeError, match=r"TRL, padded 16 x 1: loss or gradients are .* off ours"):
        unusable_paths(job)


def test_a_stock_path_that_raises_is_left_out_with_its_first_line(job, monkeypatch):
    build = Job.trainer

    def trainer(self, options, four_bit=True):
        if options is not None:
            raise ImportError("flash attention is not installed\nand more about it")
        return build(self, options, four_bit)

    monkeypatch.setattr(Job, "trainer", trainer)
    monkeypatch.setattr(stock, "stock_paths", lambda recipe: {"TRL, packing": {"packing": True}})
    assert unusable_paths(job) == {"TRL, packing": "ImportError: flash attention is not installed"}


# --- long catalogues --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_catalogue():
    return thirty_tools()


def test_the_long_catalogue_has_33_tools_and_a_prompt_of_about_1500_tokens(long_catalogue, tokenizer):
    assert len(long_catalogue) == 33
    assert long_catalogue.names[:3] == ["track_order", "request_refund", "escalate"]
    assert 1400 <= prompt_tokens(long_catalogue, tokenizer) <= 1700


def test_the_other_tools_are_of_thirty_domains(long_catalogue):
    domains = {tool["names"][0]: tool["domain"] for tool in written_tools()}
    assert len({domains[name] for name in long_catalogue.names[3:]}) == 30


def test_a_tool_of_it_reads_like_any_other(long_catalogue):
    line = long_catalogue["report_device_fault"].signature()
    assert line.startswith("report_device_fault(device: str, problem: str): record that a smart device in the house is misbehaving; ")
    optional = long_catalogue["book_seats"].signature()
    assert optional.startswith('book_seats(show: str, seats: int, area?: "stalls"|"circle"|"balcony"|"box"): ')


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_of_the_support_desk_is_legal_under_it(long_catalogue, split):
    for example in load_examples(split):
        check_target(example, long_catalogue)


def test_catalogues_grow_from_the_support_desk(tokenizer, capsys):
    found = catalogues("where is A-12?", tokenizer, positions=1_000_000)
    assert [len(toolset) for toolset in found] == [3, 10, 30, 100]
    assert [toolset.names[:3] for toolset in found] == [support_desk().names] * 4
    assert found[3].names[:30] == found[2].names
    assert found[1]["report_device_fault"].description == "record that a smart device in the house is misbehaving"
    assert capsys.readouterr().out == ""


def test_a_catalogue_that_does_not_fit_gives_way_to_the_largest_that_does(tokenizer, capsys):
    *others, largest = catalogues("where is A-12?", tokenizer, positions=POSITIONS)
    assert [len(toolset) for toolset in others][:2] == [3, 10] and 10 < len(largest) < 100
    every = with_desk(written_tools())
    one_more = Toolset.from_specs(every[name] for name in every.names[: len(largest) + 1])
    assert room_for("where is A-12?", largest, tokenizer) <= POSITIONS < room_for("where is A-12?", one_more, tokenizer)
    said = f"100 tools do not fit into the base's 768 positions; the most that do are {len(largest)}"
    assert capsys.readouterr().out.splitlines()[-1] == said


# --- generation and the command ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "size"), [("generate", 32), ("generate, one by one", 1)])
def test_outputs_that_differ_from_plain_generation_stop_the_bench(base, tokenizer, short_outputs, monkeypatch, method, size):
    router = Router(models.load_base(base, four_bit=False).float(), tokenizer)
    requests, generate = ["where is A-12?", "hello"], router.generate
    check_outputs(router, router, requests)
    monkeypatch.setattr(
        router, "generate", lambda asked, batch_size=32: ["nonsense"] * len(asked) if batch_size == size else generate(asked, batch_size)
    )
    with pytest.raises(RuntimeError, match=rf"Router\.{method} answers 'where is A-12\?' with 'nonsense', where model\.generate gives"):
        check_outputs(router, router, requests)


def test_the_report_shows_both_times_the_ratio_and_what_was_left_out():
    timings = {OURS: Timing((2.0,)), "padded": Timing((5.0,)), "packed": Timing((6.0,))}
    text = bench.report([Result("training", timings, {"rows": 64, "left_out": {"flat": "ValueError: needs flash attention"}})])
    assert text.splitlines() == [
        "          stock, s    ours, s     stock / ours (range)  stock path",
        "training  5 (5 to 5)  2 (2 to 2)  2.50 (2.50 to 2.50)   padded",
        "",
        "training",
        "  rows 64",
        "  packed: 6 (6 to 6) s",
        "  flat is left out: ValueError: needs flash attention",
    ]


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
    monkeypatch.setattr(bench, "unusable_paths", lambda job: dict.fromkeys(("TRL, packing", "TRL, padding-free"), "too slow for a test"))
    for module in (bench, stock, routing):
        monkeypatch.setattr(module, "load_base", lambda name, four_bit=True: models.load_base(name, four_bit=False).float())


def test_the_last_line_is_the_record_with_the_four_ratios(quick, capsys):
    bench.run(options(rows=16, repeats=2, json=Path("-")))
    *shown, last = capsys.readouterr().out.splitlines()
    record = json.loads(last)
    four = ("train_support_desk", "train_30_tools", "evaluate", "route_p50")
    assert [record[name] for name in four] == [2.0, 2.0, 2.0, 2.0]
    assert list(record["details"]) == list(four)
    assert {"machine", "versions", "date", "base"} <= record.keys()
    assert record["command"] == "python -m helpers bench --repeats 2 --rows 16"
    assert record["details"]["train_support_desk"]["rows"] == record["details"]["evaluate"]["rows"] == 16
    assert list(record["details"]["train_30_tools"]["paths"]) == [OURS, *PADDED]
    assert record["details"]["train_30_tools"]["left_out"]["TRL, packing"] == "too slow for a test"
    assert record["details"]["evaluate"]["equal_share"] == record["details"]["route_p50"]["equal_share"] == 1.0
    assert len(record["details"]["route_p50"]["paths"][OURS]["seconds"]) == 2
    assert bench.ratio_table(record).splitlines()[2] == "| train support desk | TRL, padded 16 x 1 | **2.0** (2.0 to 2.0) |"
    assert record["sources_sha256"] == bench.sources_digest()
    starts = [line.split()[0] for line in shown if line.startswith(four)]
    assert starts == [*four, *four]  # the table, and then the facts of each


def test_with_an_adapter_the_share_that_merging_into_4_bits_keeps_is_a_fact(quick, base, tmp_path, capsys):
    adapter = train(load_examples("train")[:16], tmp_path, base)
    bench.run(options(rows=16, adapter=adapter, json=tmp_path / "bench.json"))
    evaluation = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["details"]["evaluate"]
    assert evaluation["equal_share"] == evaluation["equal_share_merged_into_4_bits"] == 1.0  # here nothing is in 4 bits
    assert "equal share merged into 4 bits 1" in capsys.readouterr().out


def test_growth_keeps_seconds_of_a_row_by_catalogue_and_of_all_rows_by_number(quick, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "load_examples", lambda split: load_examples(split)[:64])
    monkeypatch.setattr(bench, "SIZES", (3, 100))
    monkeypatch.setattr(bench, "REQUESTS", (4, 100))
    bench.growth(options(growth=True, rows=20, repeats=2, most_stock=4, json=tmp_path / "growth.json"))
    record = json.loads((tmp_path / "growth.json").read_text(encoding="utf-8"))
    assert record["command"] == "python -m helpers bench --growth --most-stock 4 --repeats 2 --rows 20"
    assert {"machine", "versions", "date", "base"} <= record.keys()
    assert (record["routed"], record["looped"]) == (20, 16)
    desk, largest = record["catalogue"]
    assert desk["tools"] == 3 < largest["tools"] < 100
    assert desk["prompt_tokens"] < largest["prompt_tokens"] < POSITIONS
    for point in (desk, largest):
        assert (point["train_ours"], point["train_stock"]) == (0.5 / 16, 1 / 16)
        assert (point["route_ours"], point["route_stock"]) == (0.5 / 20, 1 / 16)
        assert 1 < point["written_tokens"] <= decoding.MAX_NEW_TOKENS
        assert point["train_path"] in PADDED and "TRL, packing" in point["left_out"]
    assert record["rows"] == [{"rows": 4, "ours": 0.5, "stock": 1.0}, {"rows": 100, "ours": 0.5, "stock": None}]
    assert len(plots.growth(record).axes) == 2  # what one writes the other reads
    assert '"rows"' not in capsys.readouterr().out


def test_an_adapter_goes_into_the_command_and_not_with_growth():
    assert bench._command(options(adapter="outputs/router", repeats=3)) == "python -m helpers bench --adapter outputs/router --repeats 3"
    with pytest.raises(ValueError, match="leave out --adapter"):
        bench.growth(options(growth=True, adapter="outputs/router"))


@pytest.mark.parametrize("rows", [0, 8, 20])
def test_rows_that_make_no_whole_steps_are_refused_before_anything_is_loaded(base, monkeypatch, rows):
    monkeypatch.setenv("COURSE_BASE", base)
    monkeypatch.setattr(bench, "make_job", None)
    with pytest.raises(ValueError, match=f"--rows must be a multiple of 16, got {rows}"):
        bench.run(options(rows=rows))
