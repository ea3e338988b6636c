"""Build the tiny base from nothing: tokenizer, copying, then routing over catalogues from many domains.

    python data/tiny_base/build.py --clinc PATH_TO_JSONL            # 85 minutes on 2 cores
    python data/tiny_base/build.py --clinc PATH_TO_JSONL --minutes 150   # as long as the shipped weights took (see README.md)
    python data/tiny_base/build.py --clinc hub --minutes 20         # CLINC150 from the Hugging Face Hub, shorter
    python data/tiny_base/build.py --clinc PATH_TO_JSONL --resume   # go on from the last checkpoint

Deterministic up to hardware: every batch is drawn from the seed and the step's number. The run ends after `--steps` steps or
`--minutes` minutes, whichever comes first, and the learning rate follows whichever is nearer; only a run that is cut by the
clock depends on the machine's speed. The result is written to `--output` (this folder), with `build.json` saying how it was made.
"""

import argparse
import datetime
import hashlib
import json
import math
import platform
import random
import time
from pathlib import Path

import torch
import transformers
from measure import abilities
from scenes import BATCH, TURNS, fitting_scene, letter_pieces, pack
from synthesis import HELD_OUT_INTENTS, Synthesis, read_clinc
from tqdm.auto import tqdm
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from vocabulary import MEANING, build_tokenizer, common_words, meaning_columns, meanings, neighbours

from helpers.packing import SHARED_PREFIX

HERE = Path(__file__).resolve().parent
WIDTH = 256
POSITIONS = 4096  # that may be used: rotary ones have no end, though sequences of 512 are all that is trained on
KNOWN_WORDS = 10_000  # whose meaning is known
LOOKING, SHARPNESS = 2, 2.5  # the layer that begins by looking up words, and how sharply
STILL = 20  # the first pair of places in a head that turns by less than half a radian in 150 tokens
OTHERS = 1000  # tokens by chance among the rivals of the right one
COPY_STEPS = 300  # the first stage: nothing but copying, until induction has formed
COPY_SHARE = 0.15  # and this much of it afterwards, so that it is not unlearned
PEAK_ADAMW, PEAK_MUON, WARM_UP = 2e-3, 3e-3, 100  # learning rates while copying, steps
ROUTING = 0.65  # of those rates at the start of routing, from where they fall to zero; --rate says otherwise for a resumed go


def scene_texts(synthesis: Synthesis) -> list[str]:
    """What the prompts and answers look like."""
    scenes = [synthesis.scene(4) for _ in range(3000)]
    return [s.system for s in scenes] + [text for s in scenes for turn in s.turns for text in (turn.request, turn.request, turn.answer)]


def build_model(columns: torch.Tensor) -> LlamaForCausalLM:
    """A model whose embeddings begin with these `columns` of meaning, which stay as they are."""
    config = LlamaConfig(
        vocab_size=len(columns), hidden_size=WIDTH, intermediate_size=704, num_hidden_layers=5, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=POSITIONS, tie_word_embeddings=True, pad_token_id=0,
        bos_token_id=None, eos_token_id=2, attn_implementation=SHARED_PREFIX,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    trained = (torch.arange(WIDTH) >= columns.shape[1]).float()
    embeddings = model.model.embed_tokens.weight
    embeddings.data.normal_(std=WIDTH**-0.5)
    embeddings.data[:, : columns.shape[1]] = columns
    embeddings.register_hook(lambda gradient: gradient * trained.to(gradient.device))
    look_up(model.model.layers[LOOKING].self_attn)
    return model


@torch.no_grad()
def look_up(attention: torch.nn.Module) -> None:
    """Lets the heads begin by attending to words that mean the same, wherever they stand.

    Queries and keys of a head are the same projection of the meaning, at those places of the head that hardly turn with the distance.
    """
    head = attention.head_dim
    places = torch.cat([torch.arange(STILL, head // 2), torch.arange(head // 2 + STILL, head)])
    for first in range(0, WIDTH, head):
        projection = torch.linalg.qr(torch.randn(MEANING, len(places)))[0].T
        for matrix in (attention.q_proj.weight, attention.k_proj.weight):
            matrix[first : first + head] = 0
            matrix[first + places, :MEANING] = SHARPNESS * projection


def batch_at(step: int, synthesis: Synthesis, tokenizer: PreTrainedTokenizerFast, seed: int) -> dict[str, torch.Tensor]:
    """The batch of this step, whatever came before it."""
    synthesis.rng = random.Random(f"{seed}/{step}")
    copying = [step < COPY_STEPS or synthesis.rng.random() < COPY_SHARE for _ in range(BATCH)]
    return pack([synthesis.copy_scene(TURNS) if copy else fitting_scene(synthesis, tokenizer) for copy in copying], tokenizer)


def answer_loss(model: LlamaForCausalLM, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over answers of the mean cross-entropy of their tokens, and the share of all tokens that greedy decoding gets right.

    Each answer counts alike, or the tokens of long reasons drown those that choose the tool. The rivals of a right token are those that stand
    in the batch, which hold all that could be copied wrongly, and OTHERS by chance: all of the vocabulary would take half of the time.
    """
    hidden = model.model(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).last_hidden_state
    wanted = batch["labels"][:, 1:]
    answered = wanted != -100
    others = torch.randint(model.config.vocab_size, (OTHERS,), device=wanted.device)
    rivals = torch.cat([batch["input_ids"].flatten(), others]).unique()
    logits = (hidden[:, :-1][answered] @ model.lm_head.weight[rivals].T).float()
    right = torch.searchsorted(rivals, wanted[answered])
    losses = torch.nn.functional.cross_entropy(logits, right, reduction="none")
    number = (answered & ~torch.nn.functional.pad(answered[:, :-1], (1, 0))).flatten().cumsum(0).view_as(wanted)[answered] - 1
    lengths = torch.bincount(number)
    loss = (losses / lengths[number]).sum() / len(lengths)
    return loss, (logits.argmax(-1) == right).float().mean()


def schedule(step: int, since: int, progress: float, rate: float) -> float:
    """Learning-rate factor `since` steps after the start of this go: warm-up, constant while copying, then linear to zero from `rate`."""
    return min(1.0, (since + 1) / WARM_UP) * (1.0 if step < COPY_STEPS else rate * max(0.0, 1 - progress))


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are orthogonalised (Jordan, 2024), as large as AdamW's (Liu et al., 2025, arXiv:2502.16982).

    PyTorch's own iterates in bfloat16, which a CPU without it emulates at a fiftieth of the speed; this one takes all matrices of one
    shape together, in float32.
    """

    NEWTON_SCHULZ, STEPS, MOMENTUM = (3.4445, -4.7750, 2.0315), 4, 0.95

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float, weight_decay: float):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        group = self.param_groups[0]
        shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for matrix in group["params"]:
            shapes.setdefault(matrix.shape, []).append(matrix)
        for shape, matrices in shapes.items():
            steps = []
            for matrix in matrices:
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - self.MOMENTUM)
                steps.append(matrix.grad.lerp(momentum, self.MOMENTUM))
            scale = group["lr"] * 0.2 * max(shape) ** 0.5
            for matrix, step in zip(matrices, self._orthogonal(torch.stack(steps)), strict=True):
                matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=scale)

    def _orthogonal(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c = self.NEWTON_SCHULZ
        tall = x.shape[1] > x.shape[2]
        x = x.mT if tall else x
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        for _ in range(self.STEPS):
            square = x @ x.mT
            x = torch.baddbmm(a * x, torch.baddbmm(b * square, square, square, alpha=c), x)
        return x.mT if tall else x


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices (fewer steps to the same loss, arXiv:2502.16982), AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        Muon(matrices, lr=PEAK_MUON, weight_decay=0.05),
        torch.optim.AdamW(others, lr=PEAK_ADAMW, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(
    args: argparse.Namespace, synthesis: Synthesis, tokenizer: PreTrainedTokenizerFast, columns: torch.Tensor
) -> tuple[LlamaForCausalLM, dict]:
    """Both stages; returns the model and the record of the run. Writes a checkpoint every `--checkpoint-minutes`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fast_bf16 = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    torch.manual_seed(args.seed)
    model = build_model(columns).to(device)
    peaks, opts = (PEAK_MUON, PEAK_ADAMW), optimizers(model)
    step, spent, cpu, checkpoint = 0, 0.0, 0.0, args.work / "checkpoint.pt"
    if args.resume:
        if not checkpoint.is_file():
            raise FileNotFoundError(f"{checkpoint} is missing: there is nothing to resume; run without --resume")
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        for opt, state in zip(opts, saved["optimizers"], strict=True):
            opt.load_state_dict(state)
        step, spent, cpu = saved["step"], saved["spent"], saved["cpu"]
    started, cpu_started = time.monotonic() - spent, time.process_time() - cpu
    began = (step, spent) if args.resume else (0, 0.0)

    def progress() -> float:
        """How much of this go is over, in [0, 1]."""
        by_steps = (step - began[0]) / max(1, args.steps - began[0])
        return max(by_steps, (time.monotonic() - started - began[1]) / max(1.0, 60 * args.minutes - began[1]))

    def keep() -> None:
        state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in opts], "step": step}
        state |= {"spent": time.monotonic() - started, "cpu": time.process_time() - cpu_started}
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)

    written, smooth = time.monotonic(), None
    bar = tqdm(total=args.steps, initial=step, desc="tiny base", mininterval=10)
    model.train()
    while (done := progress()) < 1:
        batch = {k: v.to(device) for k, v in batch_at(step, synthesis, tokenizer, args.seed).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16):
            loss, right = answer_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt, peak in zip(opts, peaks, strict=True):
            opt.param_groups[0]["lr"] = peak * schedule(step, step - began[0], done, args.rate)
            opt.step()
            opt.zero_grad(set_to_none=True)
        step += 1
        bar.update()
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 20 == 0:
            stage = "copy" if step <= COPY_STEPS else "route"
            bar.set_postfix_str(f"{stage} loss {smooth:.3f} token accuracy {right.item():.2f} progress {done:.2f}")
        if not math.isfinite(smooth):
            raise RuntimeError(f"the loss is {loss.item()} at step {step}; start again with another --seed")
        if time.monotonic() - written > 60 * args.checkpoint_minutes:
            written = time.monotonic()
            keep()
    bar.close()
    if smooth is None:
        raise ValueError(f"nothing is left to do: the checkpoint is at step {step} of {args.steps}; raise --steps or --minutes")
    keep()
    record = {
        "steps": step,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "cpu_minutes": round((time.process_time() - cpu_started) / 60, 1),  # of this process only, whatever else the machine did
        "stopped_by": "steps" if step >= args.steps else "minutes",
        "loss": round(smooth, 4),
    }
    return model.eval(), record


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, output: Path, record: dict) -> None:
    """Weights in bfloat16 (half the size; the fine-tune quantises them to 4 bits anyway), tokenizer, and the record of the run."""
    output.mkdir(parents=True, exist_ok=True)
    model.to("cpu", torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    record["sha256"] = hashlib.sha256((output / "model.safetensors").read_bytes()).hexdigest()
    (output / "build.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def sources_digest() -> str:
    """One digest of what draws the scenes, CLINC150 and the encoder of words apart: three scripts of this folder and its data."""
    names = ("synthesis.py", "composed.py", "vocabulary.py", "tools.jsonl", "words.jsonl", "frames.jsonl", "phrases.jsonl", "intents.jsonl")
    return hashlib.sha256(b"\0".join((HERE / name).read_bytes() for name in names)).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clinc", required=True, help="CLINC150's training rows as JSONL ({request, intent}), or `hub` to download them")
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="folder or Hub name of the words' encoder")
    parser.add_argument("--minutes", type=float, default=85, help="stop after this long (default 85)")
    parser.add_argument("--steps", type=int, default=30000, help="stop after this many steps (default 30000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --work")
    parser.add_argument("--rate", type=float, default=ROUTING, help=f"share of the peak rates from which they fall (default {ROUTING})")
    parser.add_argument("--checkpoint-minutes", type=float, default=5)
    parser.add_argument("--work", type=Path, default=HERE.parent.parent / "outputs" / "tiny_base_build", help="where checkpoints go")
    parser.add_argument("--output", type=Path, default=HERE)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    clinc = read_clinc(args.clinc)
    synthesis = Synthesis(clinc, seed=args.seed)
    saved = args.work / "tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(saved) if args.resume else build_tokenizer(scene_texts(synthesis), POSITIONS)
    tokenizer.save_pretrained(saved)  # a resumed run goes on with the tokens it began with
    meaning = meanings(common_words(KNOWN_WORDS), args.encoder)
    synthesis.learn_words(letter_pieces(tokenizer), neighbours(meaning))
    model, record = train(args, synthesis, tokenizer, meaning_columns(tokenizer, meaning))
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
