"""What fits on which GPU: the shapes, the random 4-bit base and its training in small, the record, and both tables to the letter."""

import dataclasses
import json
import weakref
from types import SimpleNamespace

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from transformers import LlamaConfig, Qwen2Config, Qwen2ForCausalLM, Qwen3Config

from helpers import models
from helpers.lab import fit
from helpers.packing import IGNORED
from helpers.paths import DATA
from helpers.recipes import LESSON

SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 16, "vocab_size": 64,
}  # fmt: skip
TINY = Qwen2Config(**SMALL, tie_word_embeddings=True)
FAMILIES = {
    "qwen2, tied": TINY,
    "llama, tied": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "qwen3, untied": Qwen3Config(**SMALL, tie_word_embeddings=False),
}
LOWER = """What to lower when a base does not fit, in this order:
1. batch (`Recipe.batch`), and raise `Recipe.accumulation` by the same factor: 4 x 4, 2 x 8 or 1 x 16 in place of 8 x 2. Activations
   and logits shrink with it, and each update still averages the same 16 rows: it costs time alone.
2. max_length (`Recipe.max_length`), for activations shrink with the longest row. Longer rows are refused by name and never cut, so
   it costs a shorter catalogue or those rows.
3. the base, last: a smaller one holds fewer weights and narrower activations, and it is the one step that costs quality."""


# --- shapes, and what is counted from them ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("Qwen2.5-0.5B-Instruct", 0.494e9),
        ("Llama-3.2-1B-Instruct", 1.236e9),
        ("Qwen2.5-1.5B-Instruct", 1.544e9),
        ("Qwen2.5-3B-Instruct", 3.086e9),
        ("Qwen3-4B", 4.022e9),
        ("Qwen3-8B", 8.191e9),
    ],
)
def test_every_shape_has_the_published_number_of_parameters(name, published):
    assert fit.skeleton(fit.SHAPES[name]).num_parameters() == pytest.approx(published, rel=0.02)


def test_the_shapes_run_from_half_a_billion_to_eight():
    assert len(fit.SHAPES) == 6
    assert fit.LENGTHS == (512, 1024)


@pytest.mark.parametrize(
    ("family", "parameters", "half"),
    [  # in each of 2 layers 9,216 linear weights; tied or twice 2,048 embeddings; norms of 32, of heads of 16; biases of q, k and v
        ("qwen2, tied", 18_432 + 2_048 + 5 * 32 + 2 * 64, 2 * (2_048 + 160 + 128)),
        ("llama, tied", 18_432 + 2_048 + 5 * 32, 2 * (2_048 + 160)),
        ("qwen3, untied", 18_432 + 4_096 + 5 * 32 + 4 * 16, 2 * (4_096 + 160 + 64)),
    ],
)
def test_what_training_holds_is_counted_by_hand(family, parameters, half):
    known = fit.held(FAMILIES[family])
    assert dataclasses.asdict(known) == {
        "parameters": parameters,
        "four_bit": 9508.5,  # 18,432 half bytes, 288 for blocks of 64, 4.5 for blocks of 256 of those
        "half": half,
        "adapter": 57_344,  # 2 layers x 16 x (32 + 32 and 32 + 16) x 4 numbers of 4 bytes
    }


def test_logits_and_their_gradient_are_counted_by_hand():
    assert fit.logits_bytes(TINY, 32) == 2 * 4 * 8 * 32 * 64 == 131_072


# --- a random base in 4 bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_base_is_in_nf4_but_for_head_embeddings_and_norms(family):
    model = fit.random_base(FAMILIES[family])
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    head = linear.pop("lm_head")
    assert type(head) is torch.nn.Linear and len(linear) == 2 * 7
    for layer in linear.values():
        state = layer.weight.quant_state
        assert isinstance(layer, Linear4bit) and (state.quant_type, state.nested, state.blocksize) == ("nf4", True, 64)
        assert layer.weight.nbytes == layer.in_features * layer.out_features / 2
    assert (head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()) == ("untied" not in family)
    assert model.is_loaded_in_4bit and model.config._attn_implementation == "sdpa"
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {models.device().type}


def test_its_weights_are_random_and_its_norms_are_one():
    model = fit.random_base(TINY)
    embeddings = model.get_input_embeddings().weight
    assert embeddings.std().item() == pytest.approx(0.02, rel=0.1) and len(embeddings.unique()) > 500
    assert (model.model.norm.weight == 1).all()
    inner = model.model.layers
    assert not torch.equal(inner[0].mlp.up_proj.weight, inner[1].mlp.up_proj.weight)
    frequencies = model.model.rotary_emb.inv_freq.tolist()  # no weight, so the loader has to compute them
    assert len(frequencies) == 8 and frequencies[0] == 1.0 and frequencies == sorted(frequencies, reverse=True) and frequencies[-1] > 0


def test_no_two_layers_are_ever_whole_at_once(monkeypatch):
    drawn, alive, draw = [], [], fit._Random.__getitem__

    def watched(self, key):
        alive.append(sum(one() is not None for one in drawn))
        values = draw(self, key)
        if tuple(values.shape) in {(32, 32), (16, 32), (64, 32), (32, 64)}:  # not the embeddings and norms, which stay whole
            drawn.append(weakref.ref(values))
        return values

    monkeypatch.setattr(fit._Random, "__getitem__", watched)
    fit.random_base(Qwen2Config(**SMALL | {"vocab_size": 80}))
    assert len(drawn) == 14 and max(alive) <= 1


def test_it_is_loaded_with_the_options_of_a_base_from_the_hub(monkeypatch):
    monkeypatch.setattr(models, "_from_pretrained", lambda factory, name, **options: options)
    asked = {}
    monkeypatch.setattr(Qwen2ForCausalLM, "from_pretrained", lambda name, **options: asked.update(options, name=name))
    expected = models.load_base("any")
    fit.random_base(TINY)
    assert asked.pop("name") is None and asked.pop("config") is TINY and asked.pop("state_dict")
    quantization = asked.pop("quantization_config").to_dict()
    assert quantization == expected.pop("quantization_config").to_dict()
    assert asked == expected


# --- training it ------------------------------------------------------------------------------------------------------


def test_rows_have_exactly_the_length_and_labels_on_the_last_tokens():
    rows = fit.random_rows(64, 40, 3)
    assert len(rows) == 3 and len({tuple(ids) for ids in rows["input_ids"]}) == 3
    for row in rows:
        assert len(row["input_ids"]) == 40 and set(row["input_ids"]) <= set(range(64))
        assert row["labels"] == [IGNORED] * 8 + row["input_ids"][8:]


def test_the_lessons_recipe_trains_a_random_base_and_the_warm_up_is_not_timed(monkeypatch, tmp_path):
    made, make_trainer = [], fit.make_trainer
    monkeypatch.setattr(fit, "OUTPUTS", tmp_path)
    monkeypatch.setattr(fit, "make_trainer", lambda *given: made.append(make_trainer(*given)) or made[0])
    ends = iter([100.0, 110.0, 120.0, 121.0, 122.0, 123.0, 124.0, 125.0])
    monkeypatch.setattr(fit, "time", SimpleNamespace(perf_counter=lambda: next(ends)))
    assert fit.samples_per_second(TINY, 40) == 16.0
    [trainer] = made
    assert trainer.state.global_step == 8 and len(trainer.train_dataset) == 8 * 16
    args = trainer.args
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps, args.activation_checkpointing) == (8, 2, True)
    adapter = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in adapter.values()) == 3_584 and {p.dtype for p in adapter.values()} == {torch.float32}
    assert all(p.abs().sum() > 0 for p in adapter.values())
    batch = trainer.data_collator([trainer.train_dataset[n] for n in range(8)])
    assert batch["input_ids"].shape == (8, 40) and (batch["labels"] != IGNORED).sum(dim=1).tolist() == [32] * 8


# --- the record -------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of 10 GB in name: it counts what is asked of it, and of three measurements the second does not fit."""
    calls, held = [], []

    def speed(config, length):
        calls.append(length)
        model = torch.nn.Linear(1, 1)
        held.append(weakref.ref(model))
        if len(held) == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return 12.3456

    def empty_cache():
        calls.append(["held" for one in held if one() is not None])

    monkeypatch.setattr(fit, "samples_per_second", speed)
    monkeypatch.setattr(fit, "SHAPES", {"tiny": TINY})
    monkeypatch.setattr(fit, "LENGTHS", (512, 768, 1024))
    answers = {
        "reset_peak_memory_stats": lambda: calls.append("reset"),
        "empty_cache": empty_cache,
        "max_memory_reserved": lambda: 7_400_000_000,
        "max_memory_allocated": lambda: 6_900_000_000,
        "memory_reserved": lambda: 0,
        "mem_get_info": lambda: (9_600_000_000, 10_000_000_000),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    return calls


FITS = {"samples_per_second": 12.35, "peak_reserved": 7_400_000_000, "peak_allocated": 6_900_000_000}
ROWS = [
    {"base": "tiny", "parameters": 20_768, "length": 512, **FITS},
    {"base": "tiny", "parameters": 20_768, "length": 768, **dict.fromkeys(FITS)},
    {"base": "tiny", "parameters": 20_768, "length": 1024, **FITS},
]


def test_a_shape_that_does_not_fit_is_a_row_and_the_next_goes_on_with_the_memory_free(gpu):
    assert fit.measure_all()["rows"] == ROWS
    assert gpu == ["reset", 512, [], "reset", 768, [], "reset", 1024, []]


def test_an_error_that_is_not_about_memory_is_not_hidden(gpu, monkeypatch):
    def fail(config, length):
        raise RuntimeError("the gradient is zero")

    monkeypatch.setattr(fit, "samples_per_second", fail)
    with pytest.raises(RuntimeError, match="the gradient is zero"):
        fit.measure_all()


def test_the_record_says_what_was_measured_with_what_and_is_kept_row_by_row(gpu, tmp_path, monkeypatch):
    path, kept, measure = tmp_path / "fit.json", [], fit.measure

    def watched(name, length):
        kept.append(len(json.loads(path.read_text())["rows"]) if path.is_file() else 0)
        return measure(name, length)

    monkeypatch.setattr(fit, "measure", watched)
    record = fit.measure_all(path)
    assert kept == [0, 1, 2]
    assert json.loads(path.read_text()) == json.loads(json.dumps(record))
    assert sorted(record) == sorted(
        ["command", "machine", "versions", "date", "recipe", "answer", "warm_up", "timed", "rows", "gpu", "outside_torch"]
    )
    assert sorted(record["versions"]) == ["bitsandbytes", "peft", "python", "torch", "transformers", "trl"]
    assert (record["command"], record["recipe"]["r"], record["answer"]) == ("python -m helpers fit", LESSON.r, 32)
    assert (record["warm_up"], record["timed"], record["gpu"], record["outside_torch"]) == (3, 5, 10_000_000_000, 400_000_000)


# --- the tables -------------------------------------------------------------------------------------------------------

RECORDED = {
    "machine": "Some GPU", "date": "2026-11-22", "versions": {"torch": "2.13.0"}, "gpu": 12_500_000_000, "outside_torch": 430_000_000,
    "recipe": {"r": 16, "target_modules": ["q_proj", "v_proj"], "batch": 8, "accumulation": 2}, "answer": 32, "warm_up": 3, "timed": 5,
    "rows": [
        {"base": "A", "parameters": 494_032_768, "length": 512, "samples_per_second": 31.26, "peak_reserved": 6_999_000_000},
        {"base": "A", "parameters": 494_032_768, "length": 1024, "samples_per_second": 14.0, "peak_reserved": 7_000_000_000},
        {"base": "B", "parameters": 8_190_735_360, "length": 1024, "samples_per_second": None, "peak_reserved": None},
    ],
}  # fmt: skip
MEASURED = f"""Measured on Some GPU (12.5 GB), 2026-11-22, torch 2.13.0.
QLoRA: r 16 on q_proj and v_proj, batch 8 x 2, NF4 with double quantisation; random weights;
rows of exactly that length that share no prompt, 32 answer tokens each; 3 optimiser steps of warm-up,
5 timed. What fits on 8, 12, 16, 24 GB:

| base | parameters | length | samples/s | peak reserved, GB | 8 GB | 12 GB | 16 GB | 24 GB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| A | 0.494 B | 512 | 31.3 | 7.0 | yes | yes | yes | yes |
| A | 0.494 B | 1,024 | 14.0 | 7.0 | no | yes | yes | yes |
| B | 8.191 B | 1,024 | does not fit | – | no | no | ? | ? |

"yes" when peak reserved memory and a margin of 1.0 GB together are below the card's size. The margin is for what PyTorch
does not count, the CUDA context above all: here 0.4 GB, other programs included. GB is 10^9 bytes.
"does not fit" is on this GPU; "?" is a card larger than this GPU, of which that says nothing.

{LOWER}"""

COMPUTED = f"""Computed, not measured: what training holds for certain, in GB (10^9 bytes). Activations, buffers and the CUDA context
come on top, so "at least" says which base cannot fit a card, never which one does.

| base | parameters | 4-bit weights | 16-bit weights | adapter, gradient, Adam | logits, 512 | logits, 1,024 | logits, 32 | at least |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| Qwen2.5-0.5B-Instruct | 0.494 B | 0.18 | 0.27 | 0.02 | 4.98 | 9.96 | 0.31 | 0.79 |
| Llama-3.2-1B-Instruct | 1.236 B | 0.50 | 0.53 | 0.03 | 4.20 | 8.41 | 0.26 | 1.32 |
| Qwen2.5-1.5B-Instruct | 1.544 B | 0.68 | 0.47 | 0.03 | 4.98 | 9.96 | 0.31 | 1.49 |
| Qwen2.5-3B-Instruct | 3.086 B | 1.43 | 0.62 | 0.06 | 4.98 | 9.96 | 0.31 | 2.42 |
| Qwen3-4B | 4.022 B | 1.87 | 0.78 | 0.09 | 4.98 | 9.96 | 0.31 | 3.06 |
| Qwen3-8B | 8.191 B | 3.58 | 2.49 | 0.12 | 4.98 | 9.96 | 0.31 | 6.51 |

4-bit: the linear layers but the head, NF4, 4.127 bits each with double quantisation (Dettmers et al., 2023). 16-bit:
embeddings, norms, biases, head. Adapter: r 16 on q_proj and v_proj, with gradient and Adam's moments, fp32.
Logits: 8 rows x tokens x vocabulary x 4 bytes, and as much for their gradient. A trainer that computes them all holds
those of the whole length. RouterTrainer computes them only where a label is: with 32 answer tokens in each row that is
16 times less at 512 tokens and 32 times less at 1,024 tokens. "at least" adds up weights, adapter and the logits of 32 tokens.

{LOWER}"""


def test_the_measured_table_says_what_fits_and_what_to_lower():
    assert fit.measured_report(RECORDED) == MEASURED


def test_the_computed_table_is_called_computed_and_says_what_to_lower():
    assert fit.computed_report() == COMPUTED


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(fit, "computed_report", lambda: "what is computed")


def test_without_gpu_and_record_it_says_that_nobody_measured(no_gpu, monkeypatch, capsys):
    monkeypatch.setattr(fit, "RECORD", DATA / "gpu" / "none.json")
    fit.fit()
    assert capsys.readouterr().out == (
        "No CUDA GPU here, and no data/gpu/none.json: nobody has measured these bases on a GPU yet.\n\nwhat is computed\n"
    )


def test_without_gpu_it_shows_the_recorded_measurement(no_gpu, monkeypatch, tmp_path, capsys):
    (tmp_path / "fit.json").write_text(json.dumps(RECORDED))
    monkeypatch.setattr(fit, "RECORD", tmp_path / "fit.json")
    fit.fit()
    assert capsys.readouterr().out == f"No CUDA GPU here, so this is the recorded measurement.\n\n{MEASURED}\n"


def test_a_record_cannot_be_made_without_gpu(no_gpu, tmp_path):
    with pytest.raises(RuntimeError, match=r"nothing to write into mine\.json: a measurement needs a CUDA GPU"):
        fit.fit(tmp_path / "mine.json")
    assert list(tmp_path.iterdir()) == []


def test_with_a_gpu_it_measures_prints_and_keeps_the_record(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(fit, "measure_all", lambda path: asked.append(path) or RECORDED)
    fit.fit(tmp_path / "mine.json")
    assert asked == [tmp_path / "mine.json"] and capsys.readouterr().out == MEASURED + "\n"
