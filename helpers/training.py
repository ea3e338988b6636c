"""The recipe: QLoRA by TRL's SFTTrainer on prompt/completion rows, with the catalogue computed once per batch instead of once per row."""

import dataclasses
import datetime
import hashlib
import inspect
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import peft
import torch
import transformers
import trl
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, ProgressCallback, TrainerCallback
from transformers.utils.notebook import NotebookProgressCallback
from trl import SFTTrainer

from helpers.examples import Example, to_prompt_completion
from helpers.models import absolute, accepts_system_role, base_label, default_base, load_base, load_tokenizer, sliding_window
from helpers.packing import IGNORED, SHARED_PREFIX, SharedPrefixCollator
from helpers.recipes import Recipe, lora_config, recipe_for, sft_config
from helpers.tools import Toolset, support_desk

TEMPLATE_OPTIONS = {"enable_thinking": False, "date_string": "22 Nov 2026"}  # Qwen3's empty thought, Llama 3's "today"
RECIPE_FILE = "recipe.json"

datasets.disable_progress_bars()  # five bars of a tenth of a second each; the training itself shows its own


def to_dataset(
    examples: Sequence[Example], toolset: Toolset | Sequence[Toolset], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> datasets.Dataset:
    """The rows as TRL reads them, under one catalogue or each under its own.

    Raises ValueError naming rows that are too long, which TRL would cut or drop in silence, and on catalogues for another number of rows.
    """
    system_role = accepts_system_role(tokenizer)
    rows = [to_prompt_completion(e, tools, system_role) for e, tools in zip(examples, _catalogues(toolset, examples), strict=True)]
    if not rows:
        raise ValueError("there are no rows to train on")
    lengths = [len(token_ids(tokenizer, row["prompt"] + row["completion"], answering=False)) for row in rows]
    if long := [f"{e.id} ({n} tokens)" for e, n in zip(examples, lengths, strict=True) if n > max_length]:
        named = ", ".join(long[:5])
        raise ValueError(f"{len(long)} of {len(rows)} rows are longer than max_length={max_length}: {named}; raise it or shorten them")
    return datasets.Dataset.from_list([row | {"chat_template_kwargs": TEMPLATE_OPTIONS} for row in rows])


def _catalogues(toolset: Toolset | Sequence[Toolset], examples: Sequence[Example]) -> Sequence[Toolset]:
    if isinstance(toolset, Toolset):
        return [toolset] * len(examples)
    if len(toolset) != len(examples):
        raise ValueError(f"there are {len(toolset)} catalogues for {len(examples)} rows; give one for all, or one for each")
    return toolset


def token_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], answering: bool = True) -> list[int]:
    """The conversation as the model reads it; `answering` ends it where the model's turn begins."""
    encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=answering, return_dict=True, **TEMPLATE_OPTIONS)
    return list(encoded["input_ids"])


class RouterTrainer(SFTTrainer):
    """TRL's trainer with logits only where a label is, without TRL's running entropy and accuracy (together a third of a step at the
    tiny base's width), and with tokens counted from the labelled batch: TRL sums the mask, which if 4-D counts pairs of tokens.

    With `row_mean`, the loss is the mean over rows of each row's mean over its answer, instead of the mean over all answer tokens.
    """

    def __init__(self, *args: Any, row_mean: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._row_mean = row_mean
        self._takes_columns = "logits_to_keep" in inspect.signature(self.model.get_base_model().forward).parameters

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        mask = inputs["attention_mask"]
        real = mask.diagonal(dim1=-2, dim2=-1) if mask.ndim == 4 else mask  # real tokens see themselves
        if self.model.training:
            self._total_train_tokens += int(real.sum())
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        every = inputs["labels"][:, 1:]  # each is predicted one position earlier
        columns = (every != IGNORED).any(dim=0).nonzero().squeeze(1)
        labels = every[:, columns]
        if self._takes_columns:
            inputs = inputs | {"labels": labels, "shift_labels": labels, "logits_to_keep": columns}
        if not self._row_mean:
            return super(SFTTrainer, self).compute_loss(model, inputs, return_outputs, num_items_in_batch)
        outputs = model(**{key: value for key, value in inputs.items() if key not in ("labels", "shift_labels")})
        logits = outputs.logits if self._takes_columns else outputs.logits[:, columns]
        losses = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        weights = _row_weights(every)[:, columns]
        loss = (losses * weights).sum() / (self.current_gradient_accumulation_steps if self.model.training else 1)
        return (loss, outputs) if return_outputs else loss


def _row_weights(labels: torch.Tensor) -> torch.Tensor:
    """The weight of each token in the mean over rows of the mean over a row's answer; each unbroken run of labels is an answer."""
    learned = labels != IGNORED
    starts = learned & ~torch.nn.functional.pad(learned[:, :-1], (1, 0))
    rows = (starts.flatten().cumsum(0).view_as(labels) - 1).clamp(min=0)
    lengths = torch.zeros(labels.numel(), device=labels.device).index_add_(
        0, rows[learned], torch.ones_like(rows[learned], dtype=torch.float)
    )
    return learned / lengths.clamp(min=1)[rows] / starts.sum().clamp(min=1)


class _Bar(ProgressCallback):
    """Progress as one bar with the loss beside it; TRL's way prints a line for every few steps."""

    def on_log(self, args, state, control, logs=None, **_):
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix_str(f"loss {float(logs['loss']):.3f}")


class _MustLearn(TrainerCallback):
    """Stops a run whose adapter has no gradient at the first step: it would go through every step and learn next to nothing."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        adapter = [p for name, p in model.named_parameters() if "lora_" in name]  # embeddings have one even above a layer that gives none
        if state.global_step == 0 and not any(p.grad is not None and bool((p.grad != 0).any()) for p in adapter):
            raise RuntimeError(
                "the gradient is zero at the first step, so this run cannot learn. A 4-bit model that has been evaluated on a CPU "
                "gives no gradients any more: load the base afresh for training."
            )


def train(
    examples: Sequence[Example],
    output: Path | str,
    base: str | None = None,
    recipe: Recipe | None = None,
    toolset: Toolset | Sequence[Toolset] | None = None,
    seed: int = 0,
) -> Path:
    """Fine-tune `base` on `examples` and leave adapter, tokenizer and `recipe.json` (with the loss curve) in `output`.

    `toolset` is the catalogue of all rows, or one for each. Without a `recipe` the one that fits the base (`recipe_for`), with `seed`.

    Raises ValueError on rows that are too long or hold no loss token, and RuntimeError when the run cannot or did not learn.
    """
    output, base, toolset = Path(output), absolute(base or default_base()), toolset or support_desk()
    tokenizer, model = load_tokenizer(base), load_base(base)
    recipe = recipe or dataclasses.replace(recipe_for(base), seed=seed)
    trainer = make_trainer(model, tokenizer, to_dataset(examples, toolset, tokenizer, recipe.max_length), recipe, output)
    check_rows(trainer.train_dataset, examples, tokenizer)
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    if not any(p.abs().sum() > 0 for name, p in trainer.model.named_parameters() if "lora_B" in name):
        raise RuntimeError("the adapter is where it began: no step changed it; check the learning rate and the number of steps")
    (output / RECIPE_FILE).unlink(missing_ok=True)  # an old record must not vouch for new weights
    trainer.save_model(str(output))
    tokenizer.save_pretrained(output)
    loss = [[entry["step"], entry["loss"]] for entry in trainer.state.log_history if "loss" in entry]
    result = {"rows": len(examples), "seconds": round(seconds, 1), "loss": loss}
    record = fingerprint(examples, base, recipe, toolset) | result | run_record()
    (output / RECIPE_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return output


def make_trainer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: datasets.Dataset, recipe: Recipe, output: Path | str
) -> RouterTrainer:
    """TRL's trainer over `dataset`, with the shared-prefix collator and its attention, and with adapters in fp32."""
    trainer = RouterTrainer(
        model=model,
        args=sft_config(recipe, output),
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=lora_config(recipe),
        callbacks=[_MustLearn()],
        row_mean=recipe.row_mean,
    )
    if why_not := _why_not_packed(model, longest=max(map(len, trainer.train_dataset["input_ids"]), default=0)):
        print(f"{model.config.model_type} attention {why_not}: rows are padded, and each computes the catalogue for itself")
    else:
        width = model.config.get_text_config().hidden_size
        trainer.data_collator = SharedPrefixCollator(tokenizer.pad_token_id, recipe.max_packed, attention_width=6 * width)
        model.set_attn_implementation(SHARED_PREFIX)
    for shown in (ProgressCallback, PrinterCallback, NotebookProgressCallback):
        trainer.remove_callback(shown)
    trainer.add_callback(_Bar())
    for parameter in trainer.model.parameters():  # TRL casts adapters to bf16, in which small updates vanish and fp16 scaling fails
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainer


def _why_not_packed(model: PreTrainedModel, longest: int) -> str | None:
    """Why the attention of `model` cannot take the mask of packed rows of up to `longest` tokens; None when it can."""
    if model.config._attn_implementation not in ("sdpa", SHARED_PREFIX):
        return "takes no 4-D mask"
    if (window := sliding_window(model)) and longest > window:  # the one mask would stand for that of every layer
        return f"looks back {window} tokens in some layers, and rows have up to {longest}"
    return None


def check_rows(dataset: datasets.Dataset, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> None:
    """That the trainer kept every row, and that the loss falls on exactly the answer. Raises ValueError naming the row."""
    if len(dataset) != len(examples):
        raise ValueError(f"the trainer kept {len(dataset)} of {len(examples)} rows; the others fill max_length with their prompt")
    for example, labels in zip(examples, dataset["labels"], strict=True):
        learned, gold = [label for label in labels if label != IGNORED], example.answers[0].to_json()
        text = tokenizer.decode(learned, skip_special_tokens=True).replace("<think>\n\n</think>", "").strip()
        if text != gold:
            raise ValueError(f"row {example.id!r}: the loss should fall on {gold!r}, but falls on {text!r}")
        if not set(learned) & set(tokenizer.all_special_ids):
            raise ValueError(f"row {example.id!r}: the chat template does not end the answer, so the model would not learn to stop")


def fingerprint(examples: Sequence[Example], base: str, recipe: Recipe, toolset: Toolset | Sequence[Toolset]) -> dict[str, Any]:
    """What an adapter depends on: the base (with a digest of embedded weights), the data, the catalogues and the recipe."""
    prompts = [tools.system_prompt() for tools in _catalogues(toolset, examples)]
    data = "\n".join(example.model_dump_json() for example in examples) + "\n".join(dict.fromkeys(prompts))
    return {
        "base": base_label(base),
        "base_sha256": weights_digest(base),
        "data_sha256": _digest(data.encode()),
        "recipe": json.loads(json.dumps(dataclasses.asdict(recipe))),
    }


def weights_digest(base: str) -> str | None:
    """SHA-256 of the weights of a base that lies in a folder, in one file; None for one from the Hub."""
    weights = Path(base) / "model.safetensors"
    return _digest(weights.read_bytes()) if weights.is_file() else None


def run_record() -> dict[str, Any]:
    """Where and with what a result was made."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    versions = {module.__name__: module.__version__ for module in (torch, transformers, trl, peft)}
    return {"machine": where, "versions": versions | {"python": platform.python_version()}, "date": datetime.date.today().isoformat()}


def trained_adapter(
    examples: Sequence[Example],
    output: Path | str,
    base: str | None = None,
    recipe: Recipe | None = None,
    toolset: Toolset | Sequence[Toolset] | None = None,
) -> Path:
    """The adapter in `output` when it was made from the same base, data, catalogue and recipe; else a new one."""
    output, base, toolset = Path(output), base or default_base(), toolset or support_desk()
    recipe = recipe or recipe_for(base)
    if (output / RECIPE_FILE).is_file():
        found = json.loads((output / RECIPE_FILE).read_text(encoding="utf-8"))
        expected = fingerprint(examples, base, recipe, toolset)
        if all(found.get(key) == value for key, value in expected.items()):
            print(f"using the adapter in {output.name}, trained on {found['date']} in {found['seconds']:.0f} s ({found['machine']})")
            return output
    return train(examples, output, base, recipe, toolset)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
