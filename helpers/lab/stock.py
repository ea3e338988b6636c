"""What ours is compared with: TRL's own trainer and `model.generate`, on the same rows, and whether both give the same results."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase
from trl import SFTTrainer

from helpers import decoding
from helpers.examples import Example, to_messages
from helpers.models import accepts_system_role, load_base, load_tokenizer
from helpers.packing import MAX_PACKED
from helpers.paths import OUTPUTS, TINY_BASE
from helpers.recipes import Recipe, lora_config, recipe_for, sft_config
from helpers.routing import Router
from helpers.tools import Toolset, support_desk
from helpers.training import make_trainer, to_dataset, token_ids

BATCH = 16  # rows to an optimiser step on every path, whatever the recipe of the base
TOLERANCE = 1e-5  # of loss and gradients, relative, in float32
LONG_PROMPT = 1500  # tokens of the system prompt of `thirty_tools`


@dataclass(frozen=True)
class Job:
    """What every path trains: the same base, rows, catalogue and recipe (see `make_job`)."""

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


def make_job(base: str, examples: Sequence[Example], toolset: Toolset) -> Job:
    """A job at BATCH rows a step, with TRL's loss and no dropout (so that losses can agree), and with room for the longest of the rows."""
    recipe = dataclasses.replace(recipe_for(base), batch=BATCH, accumulation=1, dropout=0.0, row_mean=False)
    tokenizer = load_tokenizer(base)
    room = room_for(longest([example.request for example in examples], tokenizer), toolset, tokenizer)
    return Job(base, examples, toolset, dataclasses.replace(recipe, max_length=max(recipe.max_length, room)))


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
    job = dataclasses.replace(job, examples=job.examples[:BATCH])
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
    """Loss and adapter gradients of all the trainer's rows as one step, by its own `compute_loss`, without mixed precision."""
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


def thirty_tools() -> Toolset:
    """The support desk's three tools and 30 of as many other domains, under a system prompt of about 1,500 tokens of the tiny tokenizer.

    One by one, the other tools get all their descriptions at once, until the prompt is long enough.
    """
    of_domain: dict[str, dict] = {}
    for tool in written_tools():
        of_domain.setdefault(tool["domain"], tool)
    tools, tokenizer = list(of_domain.values())[:30], load_tokenizer(str(TINY_BASE))
    for n, tool in enumerate(tools):
        if prompt_tokens(with_desk(tools), tokenizer) >= LONG_PROMPT:
            break
        tools[n] = tool | {"descriptions": ["; ".join(tool["descriptions"])]}
    return with_desk(tools)


def written_tools() -> list[dict[str, Any]]:
    """The tools that the tiny base has met, line by line of its `tools.jsonl`, without those whose first name is taken by then."""
    named: dict[str, dict] = {}
    for line in (TINY_BASE / "tools.jsonl").read_text(encoding="utf-8").splitlines():
        tool = json.loads(line)
        named.setdefault(tool["names"][0], tool)
    return list(named.values())


def with_desk(tools: Iterable[dict[str, Any]]) -> Toolset:
    """The support desk's catalogue and then `tools` (at least one), each under its first name, description and argument names."""
    kinds, others = {"code": "string", "text": "string", "enum": "string"}, []
    for tool in tools:
        properties = {
            argument["names"][0]: {"type": kinds.get(argument["type"], argument["type"])}
            | ({"enum": argument["values"]} if argument["type"] == "enum" else {})
            for argument in tool["arguments"]
        }
        required = [argument["names"][0] for argument in tool["arguments"] if not argument.get("optional")]
        schema = {"type": "object", "properties": properties, "required": required}
        others.append({"name": tool["names"][0], "description": tool["descriptions"][0], "inputSchema": schema})
    return Toolset.from_specs(catalogue[name] for catalogue in (support_desk(), Toolset.from_mcp(others)) for name in catalogue.names)


def prompt_tokens(toolset: Toolset, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the system prompt."""
    return len(tokenizer(toolset.system_prompt())["input_ids"])


def longest(requests: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> str:
    """The request of the most tokens."""
    return max(requests, key=lambda request: len(tokenizer(request)["input_ids"]))


def room_for(request: str, toolset: Toolset, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that a request takes under the catalogue, with MAX_NEW_TOKENS for the output."""
    return len(token_ids(tokenizer, to_messages(request, toolset, accepts_system_role(tokenizer)))) + decoding.MAX_NEW_TOKENS


def stock_router(base: str, adapter: Path | None, four_bit: bool = True) -> Router:
    """The same model as the libraries load it, to be asked by `plain_output`: 4-bit weights stay so, and an adapter stays beside them."""
    model = load_base(base, four_bit)
    return Router(model if adapter is None else PeftModel.from_pretrained(model, str(adapter)), load_tokenizer(base))


def rounded_router(base: str, adapter: Path) -> Router:
    """The adapter added to the 4-bit weights and the sum rounded to 4 bits again, as PEFT merges it: less memory, and another model."""
    return Router(PeftModel.from_pretrained(load_base(base), str(adapter)).merge_and_unload(), load_tokenizer(base))


@torch.inference_mode()
def plain_output(router: Router, request: str) -> str:
    """The lesson's loop, one turn: the whole prompt through `model.generate`, greedy, with its own cache."""
    ids = torch.tensor([router.prompt(request)], device=router.model.device)
    out = router.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=decoding.MAX_NEW_TOKENS,
        do_sample=False,
        repetition_penalty=1.0,  # Qwen2.5 brings another one, which is not greedy decoding
        use_cache=True,
        pad_token_id=router.tokenizer.pad_token_id,
        eos_token_id=sorted(router.decoder.ends),
    )
    return router.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def check_outputs(router: Router, stock: Router, requests: Sequence[str]) -> None:
    """Raises RuntimeError, naming the request, where `Router.generate`, in batches or one by one, departs from `model.generate`."""
    expected = [plain_output(stock, request) for request in requests]
    found = {"generate": router.generate(requests), "generate, one by one": router.generate(requests, batch_size=1)}
    for method, outputs in found.items():
        for request, output, wanted in zip(requests, outputs, expected, strict=True):
            if output != wanted:
                raise RuntimeError(f"Router.{method} answers {request!r} with {output!r}, where model.generate gives {wanted!r}")
