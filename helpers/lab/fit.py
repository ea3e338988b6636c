"""Which base fits which GPU: memory and speed of QLoRA, measured with random weights; without a GPU, what can be computed."""

import dataclasses
import gc
import itertools
import json
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from transformers import LlamaConfig, PreTrainedConfig, PreTrainedModel, Qwen2Config, Qwen3Config, TrainerCallback

from helpers.models import device, load_tokenizer, nf4, precision
from helpers.packing import IGNORED
from helpers.paths import DATA, OUTPUTS, ROOT, TINY_BASE
from helpers.recipes import LESSON
from helpers.training import make_trainer, run_record

RECORD = DATA / "gpu" / "fit.json"
LENGTHS = (512, 1024)  # tokens in every row
ANSWER = 32  # tokens of a row that the loss falls on: a call with its arguments
WARM_UP, TIMED = 3, 5  # optimiser steps
GB = 10**9
CARDS = (8, 12, 16, 24)  # GB
MARGIN = 1 * GB  # for what PyTorch does not count: CUDA context, the libraries' kernels, error correction, a desktop on the same card
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)  # 4, and 0.127 for the constants of blocks of 64 in double quantisation (Dettmers et al., 2023)

LOWER = """What to lower when a base does not fit, in this order:
1. batch (`Recipe.batch`), and raise `Recipe.accumulation` by the same factor: 4 x 4, 2 x 8 or 1 x 16 in place of 8 x 2. Activations
   and logits shrink with it, and each update still averages the same 16 rows: it costs time alone.
2. max_length (`Recipe.max_length`), for activations shrink with the longest row. Longer rows are refused by name and never cut, so
   it costs a shorter catalogue or those rows.
3. the base, last: a smaller one holds fewer weights and narrower activations, and it is the one step that costs quality."""


def _shape(family: type[PreTrainedConfig], *numbers: int, tied: bool = True) -> PreTrainedConfig:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "head_dim", "vocab_size")  # fmt: skip
    return family(**dict(zip(names, numbers, strict=True)), tie_word_embeddings=tied)


SHAPES = {  # each as in the config.json that is published with the model on the Hugging Face Hub
    "Qwen2.5-0.5B-Instruct": _shape(Qwen2Config, 896, 4864, 24, 14, 2, 64, 151_936),
    "Llama-3.2-1B-Instruct": _shape(LlamaConfig, 2048, 8192, 16, 32, 8, 64, 128_256),
    "Qwen2.5-1.5B-Instruct": _shape(Qwen2Config, 1536, 8960, 28, 12, 2, 128, 151_936),
    "Qwen2.5-3B-Instruct": _shape(Qwen2Config, 2048, 11_008, 36, 16, 2, 128, 151_936),
    "Qwen3-4B": _shape(Qwen3Config, 2560, 9728, 36, 32, 8, 128, 151_936),
    "Qwen3-8B": _shape(Qwen3Config, 4096, 12_288, 36, 32, 8, 128, 151_936, tied=False),
}


@dataclass(frozen=True)
class Held:
    """What training a base holds all the time: its parameters, and bytes."""

    parameters: int
    four_bit: float  # weights of the linear layers but the head
    half: int  # embeddings, norms, biases and head, in 16 bits
    adapter: int  # fp32: the adapter, its gradient, and Adam's two moments


class _Random:
    """Stands for a tensor of a checkpoint: random values that come to be on the device when the loader asks for them."""

    def __init__(self, shape: torch.Size):
        self.shape = shape

    def __getitem__(self, _: Any) -> torch.Tensor:
        values = torch.empty(self.shape, device=device(), dtype=precision().dtype)
        return values.fill_(1) if values.ndim == 1 else values.normal_(std=0.02)  # of one dimension are norms, which start at 1


class _Clock(TrainerCallback):
    """The time at the end of each optimiser step, when the GPU is done with it."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **_):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """The model of a configuration, without weights (on the meta device)."""
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


def held(config: PreTrainedConfig) -> Held:
    """Counted from the configuration, without a weight. The bits of 4-bit weights: Dettmers et al. (2023), section 3."""
    model = skeleton(config)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not model.get_output_embeddings()}
    linear, whole = sum(layer.weight.numel() for layer in layers.values()), model.num_parameters()
    adapted = [layer for name, layer in layers.items() if name.split(".")[-1] in LESSON.target_modules]
    adapter = sum(LESSON.r * (layer.in_features + layer.out_features) for layer in adapted)
    return Held(whole, linear * NF4_BITS / 8, 2 * (whole - linear), 4 * 4 * adapter)


def logits_bytes(config: PreTrainedConfig, tokens: int) -> int:
    """Bytes of the logits of `tokens` tokens of each row of a batch, in fp32, and of their gradient."""
    return 2 * 4 * LESSON.batch * tokens * config.vocab_size


def random_base(config: PreTrainedConfig) -> PreTrainedModel:
    """A base of this shape with random weights, loaded as `load_base` loads one from the Hub: the same loader, precision and NF4.

    The loader draws and quantises tensor by tensor, so the base is never there in 16 bits, and nothing is downloaded or saved.
    """
    model = skeleton(config)
    weights = {name: _Random(parameter.shape) for name, parameter in model.named_parameters()}
    options = {"dtype": precision().dtype, "device_map": {"": device()}, "quantization_config": nf4(), "attn_implementation": "sdpa"}
    transformers.utils.logging.disable_progress_bar()
    return type(model).from_pretrained(None, config=config, state_dict=weights, **options)


def random_rows(vocabulary: int, length: int, count: int) -> datasets.Dataset:
    """`count` rows of exactly `length` random tokens, with labels on the last ANSWER of them, as the trainer prepares rows."""
    ids = torch.randint(vocabulary, (count, length), generator=torch.Generator().manual_seed(0)).tolist()
    return datasets.Dataset.from_list([{"input_ids": row, "labels": [IGNORED] * (length - ANSWER) + row[-ANSWER:]} for row in ids])


def samples_per_second(config: PreTrainedConfig, length: int) -> float:
    """Rows a second of QLoRA on a random base of this shape, over TIMED optimiser steps after WARM_UP others."""
    recipe, update = dataclasses.replace(LESSON, epochs=1, max_length=length), LESSON.batch * LESSON.accumulation
    rows = random_rows(config.vocab_size, length, update * (WARM_UP + TIMED))
    tokenizer = load_tokenizer(str(TINY_BASE))  # any would do: the rows are token ids already, of one length
    trainer, clock = make_trainer(random_base(config), tokenizer, rows, recipe, OUTPUTS / "fit"), _Clock()
    trainer.add_callback(clock)
    trainer.train()
    return update * TIMED / (clock.ends[-1] - clock.ends[WARM_UP - 1])


def measure(name: str, length: int) -> dict[str, Any]:
    """A row of the record: speed, and peak bytes of loading and training; all None when the GPU's memory was not enough."""
    torch.cuda.reset_peak_memory_stats()
    try:
        speed = round(samples_per_second(SHAPES[name], length), 2)
        reserved, allocated = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    except torch.cuda.OutOfMemoryError:
        speed = reserved = allocated = None
    finally:
        gc.collect()  # model and trainer refer to each other
        torch.cuda.empty_cache()
    row = {"base": name, "parameters": skeleton(SHAPES[name]).num_parameters(), "length": length, "samples_per_second": speed}
    return row | {"peak_reserved": reserved, "peak_allocated": allocated}


def measure_all(path: Path | None = None) -> dict[str, Any]:
    """The record: every shape at every length on this GPU, in bytes, with recipe, machine and versions; kept in `path` row by row."""
    record = {"command": "python -m helpers fit", **run_record(), "recipe": dataclasses.asdict(LESSON), "answer": ANSWER}
    record["versions"]["bitsandbytes"] = version("bitsandbytes")
    record |= {"warm_up": WARM_UP, "timed": TIMED, "rows": []}
    for name, length in itertools.product(SHAPES, LENGTHS):
        record["rows"].append(measure(name, length))
        free, record["gpu"] = torch.cuda.mem_get_info()
        record["outside_torch"] = record["gpu"] - free - torch.cuda.memory_reserved()
        if path:
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def measured_report(record: dict[str, Any]) -> str:
    """The record as text: what was measured where, the table of what fits, and what to lower when a base does not."""
    recipe, gpu, lines = record["recipe"], record["gpu"], []
    for row in record["rows"]:
        if (peak := row["peak_reserved"]) is None:
            cells = ["does not fit", "–", *("no" if card * GB <= gpu else "?" for card in CARDS)]
        else:
            fits = ["yes" if peak + MARGIN < card * GB else "no" for card in CARDS]
            cells = [f"{row['samples_per_second']:.1f}", f"{peak / GB:.1f}", *fits]
        lines.append([row["base"], f"{row['parameters'] / GB:.3f} B", f"{row['length']:,}", *cells])
    how = f"r {recipe['r']} on {' and '.join(recipe['target_modules'])}, batch {recipe['batch']} x {recipe['accumulation']}"
    return f"""Measured on {record["machine"]} ({gpu / GB:.1f} GB), {record["date"]}, torch {record["versions"]["torch"]}.
QLoRA: {how}, NF4 with double quantisation; random weights;
rows of exactly that length that share no prompt, {record["answer"]} answer tokens each; {record["warm_up"]} optimiser steps of warm-up,
{record["timed"]} timed. What fits on {", ".join(map(str, CARDS))} GB:

{_table(["base", "parameters", "length", "samples/s", "peak reserved, GB", *(f"{card} GB" for card in CARDS)], lines)}

"yes" when peak reserved memory and a margin of {MARGIN / GB:.1f} GB together are below the card's size. The margin is for what PyTorch
does not count, the CUDA context above all: here {record["outside_torch"] / GB:.1f} GB, other programs included. GB is 10^9 bytes.
"does not fit" is on this GPU; "?" is a card larger than this GPU, of which that says nothing.

{LOWER}"""


def computed_report() -> str:
    """What can be said of every shape without a GPU: bytes that training holds for certain, a lower bound of what it needs."""
    lines = []
    for name, config in SHAPES.items():
        known, (*every, answer) = held(config), [logits_bytes(config, tokens) for tokens in (*LENGTHS, ANSWER)]
        weights = [known.four_bit, known.half, known.adapter]
        parts = (*weights, *every, answer, sum(weights) + answer)
        lines.append([name, f"{known.parameters / GB:.3f} B", *(f"{part / GB:.2f}" for part in parts)])
    logits = [f"logits, {tokens:,}" for tokens in (*LENGTHS, ANSWER)]
    less = " and ".join(f"{length // ANSWER} times less at {length:,} tokens" for length in LENGTHS)
    return f"""Computed, not measured: what training holds for certain, in GB (10^9 bytes). Activations, buffers and the CUDA context
come on top, so "at least" says which base cannot fit a card, never which one does.

{_table(["base", "parameters", "4-bit weights", "16-bit weights", "adapter, gradient, Adam", *logits, "at least"], lines)}

4-bit: the linear layers but the head, NF4, {NF4_BITS:.3f} bits each with double quantisation (Dettmers et al., 2023). 16-bit:
embeddings, norms, biases, head. Adapter: r {LESSON.r} on {" and ".join(LESSON.target_modules)}, with gradient and Adam's moments, fp32.
Logits: {LESSON.batch} rows x tokens x vocabulary x 4 bytes, and as much for their gradient. A trainer that computes them all holds
those of the whole length. RouterTrainer computes them only where a label is: with {ANSWER} answer tokens in each row that is
{less}. "at least" adds up weights, adapter and the logits of {ANSWER} tokens.

{LOWER}"""


def _table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))


def fit(path: Path | None = None) -> None:
    """Measure on this machine's GPU, keep the record in `path`, and print it; without a GPU, print what is recorded or computed.

    Raises RuntimeError when a record is asked for and there is no GPU.
    """
    if torch.cuda.is_available():
        print(measured_report(measure_all(path)))
    elif path:
        raise RuntimeError(f"nothing to write into {path.name}: a measurement needs a CUDA GPU, and this machine has none")
    elif RECORD.is_file():
        recorded = json.loads(RECORD.read_text(encoding="utf-8"))
        print(f"No CUDA GPU here, so this is the recorded measurement.\n\n{measured_report(recorded)}")
    else:
        there = RECORD.relative_to(ROOT).as_posix()
        print(f"No CUDA GPU here, and no {there}: nobody has measured these bases on a GPU yet.\n\n{computed_report()}")
