"""Teach a small base to read: more words, what they mean, and attention that finds the tool whose words mean what is asked.

    python data/tiny_base/build.py --clinc PATH_OR_hub --output outputs/small_base          # first the small base
    python data/tiny_base/grow.py --base outputs/small_base --clinc PATH_OR_hub             # then this, 100 minutes on 2 cores
    python data/tiny_base/grow.py --base outputs/small_base --clinc PATH_OR_hub --resume    # go on from the last checkpoint

The stream between the layers gets MEANING more places, which hold how much a word says and what it means, and each layer HEADS more
attention heads. What is new adds next to nothing at first, so the grown model answers as the small one does. Then four of the new heads
are shown what to look at (`reading.py`): a word's owner, which is the name of its tool or the mark that opens its request; the words of one
owner; and, where an answer names its tool, the tool whose words mean what those of the request do (two heads). First the new numbers are
trained nearly alone, then all.

Rotary positions turn most places of a head with the distance; what is compared from afar stands in those that hardly turn (`still`).
"""

import argparse
import datetime
import json
import math
import platform
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from build import COPY_SHARE, save, sources_digest
from measure import abilities
from reading import Looks, looks, tools_of
from scenes import BATCH, TURNS, fitting_scene, layout, letter_pieces, pack
from synthesis import HELD_OUT_INTENTS, Scene, Synthesis, read_clinc
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from vocabulary import ENCODER, TOKENS, Words, extend, neighbours, read_words, spaced_pairs

from helpers.packing import SHARED_PREFIX

HERE = Path(__file__).resolve().parent
MEANING, HEADS = 80, 2  # new places of the stream, and new heads in each layer
LENGTH = 0.3  # of a meaning in the embeddings, where all else of a token is about 1.1 long
LOUDER = 4.0  # the new places are this much larger in what a layer reads
CODE = 64  # numbers that tell one owner from another
NAMES, RIDGE = 120, 0.05  # scenes whose names are looked at to find them, and how far they are trusted
LOUD_ANSWER = 20.0  # how far the pointing heads carry the name of what they look at
STILL = 20  # the first pair of places in a head that turns by less than half a radian in 150 tokens
OWNER, GATHER, POINT = 1, 2, 3  # the layers of the heads that are shown what to look at
OTHERS = 1000  # tokens by chance among the rivals of the right one
ALONE, OLD_RATE = 1200, 0.15  # steps in which the small base's numbers move at a fraction of the rate
PEAK_ALONE, PEAK_MUON, PEAK_ADAMW, WARM_UP = 1e-3, 5e-4, 4e-4, 50  # learning rates of the two stages, steps
WEIGHTS = {"answer": 1.0, "name": 0.2, "owner": 0.3, "words": 0.3, "tool": 0.5}  # of the losses


# --- the grown model ------------------------------------------------------------------------------------------------


def embeddings(small: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, pieces: PreTrainedTokenizerFast, words: Words) -> torch.Tensor:
    """The grown model's embeddings, of shape (tokens, width): the small base's, then how much a word says and what it means.

    A new token begins as the mean of its `pieces` (the small base's tokenizer) and chance in equal parts, and nearly the same
    with a space before it as without: in catalogues there is one before a tool's name, and in answers there is none.
    """
    old = small.model.embed_tokens.weight.detach()
    unit = torch.nn.functional.normalize
    table = torch.zeros(len(tokenizer), old.shape[1] + MEANING)
    table[: len(old), : old.shape[1]] = old
    spread = torch.linalg.cholesky(torch.cov(old.T) + 1e-6 * torch.eye(old.shape[1]))
    for token in range(len(old), len(tokenizer)):
        made = old[pieces(tokenizer.decode([token]), add_special_tokens=False)["input_ids"]].mean(0)
        mixed = unit(made, dim=0) + unit(spread @ torch.randn(old.shape[1]), dim=0)
        table[token, : old.shape[1]] = unit(mixed, dim=0) * old.norm(dim=1).median()
    pairs = torch.tensor([pair for pair in spaced_pairs(tokenizer) if min(pair) >= len(old)]).T
    one, other = (table[token, : old.shape[1]] for token in pairs)
    for tokens, own in zip(pairs, (one, other), strict=True):
        table[tokens, : old.shape[1]] = unit(unit(one + other, dim=1) + unit(own, dim=1) / 3, dim=1) * old.norm(dim=1).median()
    for token, place in words.places(tokenizer).items():
        table[token, old.shape[1]] = LENGTH * (1 + math.log(words.telling[place]) / 6)  # from about 0 to 1 times that
        table[token, old.shape[1] + 1 :] = LENGTH * words.meanings[place]
    return table


def still(head: int) -> torch.Tensor:
    """The places of a head of this size that hardly turn with the distance."""
    return torch.cat([torch.arange(STILL, head // 2), torch.arange(head // 2 + STILL, head)])


@dataclass
class Owners:
    """How a word's owner is written into the stream: `quiet`, CODE directions, (width, CODE), in which the stream before the last layers
    hardly varies; `code`, (CODE, width), which makes of what layer OWNER reads of a name numbers that tell it from others, together about 1
    long; and `answer`, (width, CODE), which makes of those the embedding of the token with which an answer begins that name.
    """

    quiet: torch.Tensor
    code: torch.Tensor
    answer: torch.Tensor


@torch.no_grad()
def owners(small: LlamaForCausalLM, scenes: list[Scene], tokenizer: PreTrainedTokenizerFast) -> Owners:
    """What `small` makes of the names in these scenes."""
    late, names, first = [], [], []
    for start in tqdm(range(0, len(scenes), BATCH), desc="names", mininterval=5):
        part = scenes[start : start + BATCH]
        batch = pack(part, tokenizer)
        inputs = {name: batch[name] for name in ("input_ids", "position_ids", "attention_mask")}
        states = small(**inputs, output_hidden_states=True, use_cache=False).hidden_states
        late += [states[layer][batch["input_ids"] > 0] for layer in (GATHER, POINT)]
        read = small.model.layers[OWNER].input_layernorm(states[OWNER])
        for row, scene in enumerate(part):
            for name, position, _ in tools_of(layout(scene, tokenizer)[0]):
                names.append(read[row, position])
                first.append(tokenizer(name, add_special_tokens=False)["input_ids"][0])
    quiet = torch.linalg.eigh(sum(x.T @ x / (x**2).sum() for x in late))[1][:, :CODE]
    names, wanted = torch.stack(names), small.model.embed_tokens.weight[first]
    variances, directions = torch.linalg.eigh(torch.cov(names.T))
    mean = torch.nn.functional.normalize(names.mean(0), dim=0)
    code = (directions[:, -CODE:] / (CODE * variances[-CODE:]).sqrt()).T
    code = code - torch.outer(code @ mean, mean)  # what all names have in common tells nothing
    codes, wanted = names @ code.T, wanted - wanted.mean(0)
    answer = torch.linalg.lstsq(codes.T @ codes + RIDGE * len(codes) / CODE * torch.eye(CODE), codes.T @ wanted).solution.T
    return Owners(quiet, code, answer)


@torch.no_grad()
def grow(small: LlamaForCausalLM, table: torch.Tensor, owners: Owners) -> tuple[LlamaForCausalLM, dict[str, torch.Tensor]]:
    """A model with the embeddings `table` that answers nearly as `small` does, and for each weight which of its numbers are new."""
    width, wide, head = small.config.hidden_size, table.shape[1], small.config.head_dim
    heads, inner = small.config.num_attention_heads + HEADS, small.config.num_attention_heads * head
    shape = {"vocab_size": len(table), "hidden_size": wide, "num_attention_heads": heads, "num_key_value_heads": heads}
    large = LlamaForCausalLM(LlamaConfig(**(small.config.to_dict() | shape | {"dtype": "float32"})))
    new = {name: torch.ones_like(parameter, dtype=torch.bool) for name, parameter in large.named_parameters()}
    for name, old in small.named_parameters():
        parameter = large.get_parameter(name)
        kept = tuple(slice(size) for size in old.shape)
        new[name][kept] = False
        if "embed" in name:
            parameter.copy_(table)
        elif "norm" in name:  # a norm divides by all places, of which the new ones are small
            parameter.fill_(0.0 if name == "model.norm.weight" else LOUDER)
            parameter[kept] = old * (width / wide) ** 0.5
        else:
            parameter.zero_()
            if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
                parameter[inner:].normal_(std=0.02)
            parameter[kept] = old
    first, second = (slice(inner + n * head, inner + (n + 1) * head) for n in range(HEADS))
    owner, gather, point = (large.model.layers[n].self_attn for n in (OWNER, GATHER, POINT))
    owner.v_proj.weight[first] = 0
    owner.v_proj.weight[first, :width] = owners.code
    owner.o_proj.weight[:width, first] = 3.0 * owners.quiet
    same = torch.linalg.qr(torch.randn(CODE, len(still(head))))[0].T
    for matrix in (gather.q_proj.weight, gather.k_proj.weight):
        matrix[inner + still(head), :width] = 4.0 * same @ owners.quiet.T
    gather.v_proj.weight[first] = 0
    gather.v_proj.weight[first, width : width + head] = 2.5 * torch.eye(head)
    gather.o_proj.weight[width : width + head, first] = 1.5 * torch.eye(head)
    for n, rows in enumerate((first, second)):
        for matrix in (point.q_proj.weight, point.k_proj.weight):
            matrix[rows.start + still(head), width + 1 + n + HEADS * torch.arange(len(still(head)))] = 5.0
        point.v_proj.weight[rows] = 0
        point.v_proj.weight[rows, :width] = owners.quiet.T
        point.o_proj.weight[:width, rows] = LOUD_ANSWER / HEADS * owners.answer
    return large, new


# --- what it is trained on ------------------------------------------------------------------------------------------


class Watch:
    """What the heads that are shown look at, as losses: cross-entropies between their attention in the last forward pass and `Looks`."""

    def __init__(self, model: LlamaForCausalLM):
        self.model, self.read = model, {}
        for number in (OWNER, GATHER, POINT):
            model.model.layers[number].input_layernorm.register_forward_hook(
                lambda _, __, output, number=number: self.read.__setitem__(number, output)
            )

    def attention(self, layer: int, head: int, rows: torch.Tensor, queries: torch.Tensor, batch: dict, free: int = 0) -> torch.Tensor:
        """Log-attention of the new `head` at the queries (row, position), of shape (queries, length).

        What is learned from it changes the head, and what was written to the last `free` places of the stream; all else has other work.
        """
        attention, x = self.model.model.layers[layer].self_attn, self.read[layer]
        x = torch.cat([x[..., : x.shape[-1] - free].detach(), x[..., x.shape[-1] - free :]], dim=-1)
        size, begin = attention.head_dim, attention.q_proj.out_features + (head - HEADS) * attention.head_dim
        matrices = (projection.weight[begin : begin + size] for projection in (attention.q_proj, attention.k_proj))
        q, k = (torch.nn.functional.linear(x, matrix)[:, None] for matrix in matrices)
        q, k = apply_rotary_pos_emb(q, k, *self.model.model.rotary_emb(q, batch["position_ids"]))
        found = []
        for row in range(len(x)):
            of_row = queries[rows == row]
            scores = q[row, 0, of_row] @ k[row, 0].T / size**0.5
            found.append(scores.masked_fill(~batch["attention_mask"][row, 0, of_row], -1e4).log_softmax(-1))
        return torch.cat(found)

    def losses(self, batch: dict[str, torch.Tensor], looks: Looks) -> dict[str, torch.Tensor]:
        """The losses by name, as in WEIGHTS, and as `found` the share of answers whose tool the two pointing heads find."""
        owner = self.attention(OWNER, 0, looks.owned_row, looks.owned, batch).gather(1, looks.owner[:, None])
        words = self.attention(GATHER, 0, looks.gather_row, looks.gathers, batch)
        points = torch.stack([self.attention(POINT, n, looks.asked_row, looks.asked, batch, free=MEANING) for n in range(HEADS)])
        right = points.gather(2, looks.target.expand(HEADS, -1)[..., None])
        found = points.exp().sum(0).argmax(1) == looks.target
        return {"owner": -owner.mean(), "words": -(looks.share * words).sum(1).mean(), "tool": -right.mean(), "found": found.float().mean()}


def answer_losses(model: LlamaForCausalLM, batch: dict[str, torch.Tensor], naming: torch.Tensor) -> dict[str, torch.Tensor]:
    """`answer`: mean over answers of the mean cross-entropy of their tokens; `name`: mean of the tokens that follow `naming` ones.

    Each answer counts alike, or the tokens of long reasons drown those that choose the tool. The rivals of a right token are those that
    stand in the batch, which hold all that could be copied wrongly, and OTHERS by chance: all of them would take half of the time.
    """
    hidden = model.model(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).last_hidden_state
    wanted = batch["labels"][:, 1:]
    answered = wanted != -100
    others = torch.randint(model.config.vocab_size, (OTHERS,), device=wanted.device)
    rivals = torch.cat([batch["input_ids"].flatten(), others]).unique()
    logits = (hidden[:, :-1][answered] @ model.lm_head.weight[rivals].T).float()
    losses = torch.nn.functional.cross_entropy(logits, torch.searchsorted(rivals, wanted[answered]), reduction="none")
    number = (answered & ~torch.nn.functional.pad(answered[:, :-1], (1, 0))).flatten().cumsum(0).view_as(wanted)[answered] - 1
    lengths = torch.bincount(number)
    named = losses[naming[:, :-1][answered]]
    return {"answer": (losses / lengths[number]).sum() / len(lengths), "name": named.sum() / max(1, len(named))}


# --- training -------------------------------------------------------------------------------------------------------


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are orthogonalised (Jordan, 2024), as large as AdamW's (Liu et al., 2025, arXiv:2502.16982).

    PyTorch's own iterates in bfloat16, which a CPU without it emulates at a fiftieth of the speed; this one takes all matrices of one
    shape together, in float32.
    """

    NEWTON_SCHULZ, STEPS, MOMENTUM = (3.4445, -4.7750, 2.0315), 4, 0.95

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float):
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for matrix in self.param_groups[0]["params"]:
            shapes.setdefault(matrix.shape, []).append(matrix)
        for shape, matrices in shapes.items():
            steps = []
            for matrix in matrices:
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - self.MOMENTUM)
                steps.append(matrix.grad.lerp(momentum, self.MOMENTUM))
            for matrix, step in zip(matrices, self._orthogonal(torch.stack(steps)), strict=True):
                matrix.sub_(step, alpha=self.param_groups[0]["lr"] * 0.2 * max(shape) ** 0.5)

    def _orthogonal(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c = self.NEWTON_SCHULZ
        tall = x.shape[1] > x.shape[2]
        x = x.mT if tall else x
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        for _ in range(self.STEPS):
            square = x @ x.mT
            x = torch.baddbmm(a * x, torch.baddbmm(b * square, square, square, alpha=c), x)
        return x.mT if tall else x


class Alone:
    """AdamW for all numbers, of which the small base's move at OLD_RATE of the rate."""

    def __init__(self, model: LlamaForCausalLM, new: dict[str, torch.Tensor]):
        self.parameters = dict(model.named_parameters())
        self.rates = {name: torch.where(mask, 1.0, OLD_RATE) for name, mask in new.items()}
        self.adamw = torch.optim.AdamW(self.parameters.values(), betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, factor: float) -> None:
        before = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.adamw.param_groups[0]["lr"] = PEAK_ALONE * factor
        self.adamw.step()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(torch.lerp(before[name], parameter, self.rates[name]))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.adamw]


class Together:
    """Muon for the layers' matrices, AdamW for embeddings and norms."""

    def __init__(self, model: LlamaForCausalLM):
        named = list(model.named_parameters())
        self.muon = Muon([p for name, p in named if p.ndim == 2 and "embed" not in name], lr=PEAK_MUON)
        others = [p for name, p in named if p.ndim != 2 or "embed" in name]
        self.adamw = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, factor: float) -> None:
        for optimizer, peak in ((self.muon, PEAK_MUON), (self.adamw, PEAK_ADAMW)):
            optimizer.param_groups[0]["lr"] = peak * factor
            optimizer.step()

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.muon, self.adamw]


def batch_at(
    step: int, synthesis: Synthesis, tokenizer: PreTrainedTokenizerFast, telling: torch.Tensor, seed: int
) -> tuple[dict[str, torch.Tensor], Looks]:
    """The batch of this step and what is to be looked at in it, whatever came before."""
    synthesis.rng = random.Random(f"{seed}/{step}")
    copying = [synthesis.rng.random() < COPY_SHARE for _ in range(BATCH)]
    scenes = [synthesis.copy_scene(TURNS) if copy else fitting_scene(synthesis, tokenizer) for copy in copying]
    return pack(scenes, tokenizer), looks(scenes, tokenizer, telling)


def train(
    args: argparse.Namespace, model: LlamaForCausalLM, new: dict[str, torch.Tensor], synthesis: Synthesis,
    tokenizer: PreTrainedTokenizerFast, telling: torch.Tensor,
) -> dict:  # fmt: skip
    """Both stages; returns the record of the run. Writes a checkpoint every `--checkpoint-minutes`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train().set_attn_implementation(SHARED_PREFIX)
    meaning = torch.arange(model.config.hidden_size, device=device) >= model.config.hidden_size - MEANING
    model.model.embed_tokens.weight.register_hook(lambda gradient: gradient.masked_fill(meaning, 0.0))  # as it is for words never met
    watch, alone, together = Watch(model), Alone(model, new), Together(model)
    step, spent, cpu, checkpoint = 0, 0.0, 0.0, args.work / "grown.pt"
    if args.resume:
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip([*alone.optimizers(), *together.optimizers()], saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step, spent, cpu = saved["step"], saved["spent"], saved["cpu"]
    started, cpu_started = time.monotonic() - spent, time.process_time() - cpu

    def keep() -> None:
        optimizers = [*alone.optimizers(), *together.optimizers()]
        state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step}
        state |= {"spent": time.monotonic() - started, "cpu": time.process_time() - cpu_started}
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)

    written, smooth = time.monotonic(), {}
    bar = tqdm(total=args.steps, initial=step, desc="reading", mininterval=10)
    while (progress := max(step / args.steps, (time.monotonic() - started) / (60 * args.minutes))) < 1:
        batch, seen = batch_at(step, synthesis, tokenizer, telling, args.seed)
        batch, seen = {k: v.to(device) for k, v in batch.items()}, Looks(*(tensor.to(device) for tensor in vars(seen).values()))
        losses = answer_losses(model, batch, seen.naming) | watch.losses(batch, seen)
        sum(weight * losses[name] for name, weight in WEIGHTS.items()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        since = step if step < ALONE else step - ALONE
        (alone if step < ALONE else together).step(min(1.0, (since + 1) / WARM_UP) * (1 - (step / ALONE if step < ALONE else progress)))
        model.zero_grad(set_to_none=True)
        step += 1
        bar.update()
        for name, value in losses.items():
            smooth[name] = value.item() if name not in smooth else 0.98 * smooth[name] + 0.02 * value.item()
        if step % 20 == 0:
            bar.set_postfix_str(" ".join(f"{name} {value:.3f}" for name, value in smooth.items()) + f" progress {progress:.2f}")
        if not math.isfinite(smooth["answer"]):
            raise RuntimeError(f"the loss is {losses['answer'].item()} at step {step}; start again with another --seed")
        if time.monotonic() - written > 60 * args.checkpoint_minutes:
            written = time.monotonic()
            keep()
    bar.close()
    if not smooth:
        raise ValueError(f"nothing is left to do: the checkpoint is at step {step} of {args.steps}; raise --steps or --minutes")
    keep()
    return {
        "steps": step,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "cpu_minutes": round((time.process_time() - cpu_started) / 60, 1),
        "stopped_by": "steps" if step >= args.steps else "minutes",
        **{name: round(value, 4) for name, value in smooth.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="folder of the small base that `build.py` made")
    parser.add_argument("--clinc", required=True, help="CLINC150's training rows as JSONL ({request, intent}), or `hub` to download them")
    parser.add_argument("--encoder", default=ENCODER, help="folder or Hub name of the encoder that says what words mean")
    parser.add_argument("--minutes", type=float, default=100, help="stop after this long (default 100)")
    parser.add_argument("--steps", type=int, default=30000, help="stop after this many steps (default 30000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --work")
    parser.add_argument("--checkpoint-minutes", type=float, default=5)
    parser.add_argument("--work", type=Path, default=HERE.parent.parent / "outputs" / "tiny_base_build", help="where checkpoints go")
    parser.add_argument("--output", type=Path, default=HERE)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.resume and not (args.work / "grown.pt").is_file():
        raise FileNotFoundError(f"{args.work / 'grown.pt'} is missing: there is nothing to resume; run without --resume")

    torch.manual_seed(args.seed)
    pieces = AutoTokenizer.from_pretrained(args.base)
    small = AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32)
    words = read_words(args.encoder, MEANING - 1)
    tokenizer = extend(pieces, words.words[:TOKENS])
    clinc = read_clinc(args.clinc)
    synthesis = Synthesis(clinc, seed=args.seed)
    synthesis.learn_words(letter_pieces(pieces), neighbours(words))
    named = owners(small, [fitting_scene(synthesis, pieces) for _ in range(NAMES)], pieces)
    model, new = grow(small, embeddings(small, tokenizer, pieces, words), named)
    record = {"small_base": json.loads((args.base / "build.json").read_text(encoding="utf-8"))}
    record = train(args, model, new, synthesis, tokenizer, words.token_telling(tokenizer)) | record
    model.eval().set_attn_implementation("sdpa")
    record |= {
        "abilities": abilities(model, tokenizer, clinc),
        "held_out_intents": HELD_OUT_INTENTS,
        "parameters": model.num_parameters(),
        "seed": args.seed,
        "sources_sha256": sources_digest(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {'CUDA' if torch.cuda.is_available() else 'CPU'}",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version()},
        "date": datetime.date.today().isoformat(),
    }
    save(model, tokenizer, args.output, record)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
