"""Build the tiny base from nothing: tokenizer, copying, then routing over catalogues from many domains.

    python data/tiny_base/build.py --clinc PATH_TO_JSONL            # 85 minutes on 2 cores
    python data/tiny_base/build.py --clinc hub --minutes 20         # CLINC150 from the Hugging Face Hub, shorter
    python data/tiny_base/build.py --clinc PATH_TO_JSONL --resume   # go on from the last checkpoint
    python data/tiny_base/build.py --clinc PATH_TO_JSONL --start FOLDER --minutes 40   # give finished weights another go

How the shipped weights were made stands in README.md. Deterministic up to hardware: every batch is drawn from the seed and the step's
number. The run ends after `--steps` steps or `--minutes` minutes, whichever comes first, and the learning rate follows whichever is
nearer; only a run that is cut by the clock depends on the machine's speed. The result is written to `--output` (this folder), with
`build.json` saying how it was made.
"""

import argparse
import datetime
import hashlib
import json
import math
import platform
import random
import shutil
import time
from pathlib import Path

import torch
import transformers
from measure import abilities
from scenes import BATCH, END, START, TURNS, fitting_scene, letter_pieces, pack
from synthesis import HELD_OUT_INTENTS, Synthesis, read_clinc
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
PAD = "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}" + START + "{{ message['role'] }}\n{{ message['content'] }}" + END + "\n{% endfor %}"
    "{% if add_generation_prompt %}" + START + "assistant\n{% endif %}"
)
VOCABULARY = 4096
POSITIONS = 4096  # that may be used: rotary ones have no end, though sequences of 512 are all that is trained on
COPY_STEPS = 300  # the first stage: nothing but copying, until induction has formed
COPY_SHARE = 0.15  # and this much of it afterwards, so that it is not unlearned
PEAK_ADAMW, PEAK_MUON, WARM_UP = 2e-3, 3e-3, 100  # learning rates while copying, steps
ROUTING = 0.65  # of those rates at the start of routing, from where they fall to zero
REHEATED = 0.3  # of those rates when finished weights get another go, likewise


def build_tokenizer(synthesis: Synthesis) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every digit and every capital letter is a token of its own, so that ids are copied sign by sign."""
    tokenizer = Tokenizer(models.BPE())
    single = pre_tokenizers.Split(Regex("[0-9A-Z]"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([single, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    scenes = [synthesis.scene(4) for _ in range(3000)]
    texts = [s.system for s in scenes] + [t for s in scenes for turn in s.turns for t in (turn.request, turn.request, turn.answer)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[PAD, START, END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def build_model() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=POSITIONS, tie_word_embeddings=True, pad_token_id=0,
        bos_token_id=None, eos_token_id=2, attn_implementation="sdpa",
    )  # fmt: skip
    return LlamaForCausalLM(config)


def batch_at(step: int, synthesis: Synthesis, tokenizer: PreTrainedTokenizerFast, seed: int) -> dict[str, torch.Tensor]:
    """The batch of this step, whatever came before it."""
    synthesis.rng = random.Random(f"{seed}/{step}")
    copying = [step < COPY_STEPS or synthesis.rng.random() < COPY_SHARE for _ in range(BATCH)]
    return pack([synthesis.copy_scene(TURNS) if copy else fitting_scene(synthesis, tokenizer) for copy in copying], tokenizer)


def answer_loss(model: LlamaForCausalLM, body: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy over the answers' tokens, and the share of them that greedy decoding gets right."""
    hidden = body(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).last_hidden_state
    wanted = batch["labels"][:, 1:]
    logits = model.lm_head(hidden[:, :-1][wanted != -100]).float()
    wanted = wanted[wanted != -100]
    return torch.nn.functional.cross_entropy(logits, wanted), (logits.argmax(-1) == wanted).float().mean()


def schedule(step: int, progress: float, first: int = 0) -> float:
    """Learning-rate factor: warm-up, constant while copying, then linear to zero; after a `first` step that is not 0, no copying."""
    if first:
        return REHEATED * min((step - first + 1) / WARM_UP, max(0.0, 1 - progress))
    return min(1.0, (step + 1) / WARM_UP) if step < COPY_STEPS else ROUTING * max(0.0, 1 - progress)


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are orthogonalised (Jordan, 2024), as large as AdamW's (Liu et al., 2025, arXiv:2502.16982).

    PyTorch's own iterates in bfloat16, which a CPU without it emulates at a fiftieth of the speed; this one takes all matrices of one
    shape together, in float32.
    """

    NEWTON_SCHULZ, STEPS, MOMENTUM, WEIGHT_DECAY = (3.4445, -4.7750, 2.0315), 5, 0.95, 0.05

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float):
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        rate, shapes = self.param_groups[0]["lr"], {}
        for matrix in self.param_groups[0]["params"]:
            shapes.setdefault(matrix.shape, []).append(matrix)
        for shape, matrices in shapes.items():
            steps = []
            for matrix in matrices:
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - self.MOMENTUM)
                steps.append(matrix.grad.lerp(momentum, self.MOMENTUM))
            for matrix, step in zip(matrices, self._orthogonal(torch.stack(steps)), strict=True):
                matrix.mul_(1 - rate * self.WEIGHT_DECAY).sub_(step, alpha=rate * 0.2 * max(shape) ** 0.5)

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
        Muon(matrices, lr=PEAK_MUON),
        torch.optim.AdamW(others, lr=PEAK_ADAMW, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def train(args: argparse.Namespace, synthesis: Synthesis, tokenizer: PreTrainedTokenizerFast) -> tuple[LlamaForCausalLM, dict]:
    """Both stages; returns the model and the record of the run. Writes a checkpoint every `--checkpoint-minutes`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fast_bf16 = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    torch.manual_seed(args.seed)
    model = (LlamaForCausalLM.from_pretrained(args.start, dtype=torch.float32) if args.start else build_model()).to(device)
    peaks, opts = (PEAK_MUON, PEAK_ADAMW), optimizers(model)
    before = json.loads((args.start / "build.json").read_text(encoding="utf-8")) if args.start else {}
    origin = {key: before[key] for key in ("steps", "minutes", "sha256")} if before else None  # the weights that this go began with
    first = step = before.get("steps", 0)
    spent, cpu, checkpoint = 0.0, 0.0, args.work / "checkpoint.pt"
    if args.resume:
        if not checkpoint.is_file():
            raise FileNotFoundError(f"{checkpoint} is missing: there is nothing to resume; run without --resume")
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        for opt, state in zip(opts, saved["optimizers"], strict=True):
            opt.load_state_dict(state)
        origin, step, spent, cpu = saved["origin"], saved["step"], saved["spent"], saved["cpu"]
        first = origin["steps"] if origin else 0
    compiler = device.type == "cuda" or shutil.which("g++")
    body = torch.compile(model.model) if compiler else model.model
    started, cpu_started = time.monotonic() - spent, time.process_time() - cpu

    def keep() -> None:
        state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in opts], "origin": origin, "step": step}
        state |= {"spent": time.monotonic() - started, "cpu": time.process_time() - cpu_started}
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)

    written, smooth = time.monotonic(), None
    bar = tqdm(total=first + args.steps, initial=step, desc="tiny base", mininterval=10)
    model.train()
    while (progress := max((step - first) / args.steps, (time.monotonic() - started) / (60 * args.minutes))) < 1:
        batch = {k: v.to(device) for k, v in batch_at(step, synthesis, tokenizer, args.seed).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16):
            loss, right = answer_loss(model, body, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt, peak in zip(opts, peaks, strict=True):
            opt.param_groups[0]["lr"] = peak * schedule(step, progress, first)
            opt.step()
            opt.zero_grad(set_to_none=True)
        step += 1
        bar.update()
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 20 == 0:
            stage = "copy" if step <= COPY_STEPS else "route"
            bar.set_postfix_str(f"{stage} loss {smooth:.3f} token accuracy {right.item():.2f} progress {progress:.2f}")
        if not math.isfinite(smooth):
            raise RuntimeError(f"the loss is {loss.item()} at step {step}; start again with another --seed")
        if time.monotonic() - written > 60 * args.checkpoint_minutes:
            written = time.monotonic()
            keep()
    bar.close()
    if smooth is None:
        raise ValueError(f"nothing is left to do: the checkpoint is at step {step - first} of {args.steps}; raise --steps or --minutes")
    keep()
    record = {
        "steps": step,
        "went_on_from": origin,
        "minutes": round((time.monotonic() - started) / 60, 1),  # of this go, as the CPU minutes
        "cpu_minutes": round((time.process_time() - cpu_started) / 60, 1),  # of this process only, whatever else the machine did
        "stopped_by": "steps" if step - first >= args.steps else "minutes",
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
    """One digest of what draws the scenes, CLINC150 apart: two scripts of this folder and its data."""
    names = ("synthesis.py", "composed.py", "tools.jsonl", "words.jsonl", "frames.jsonl", "phrases.jsonl", "intents.jsonl")
    return hashlib.sha256(b"\0".join((HERE / name).read_bytes() for name in names)).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clinc", required=True, help="CLINC150's training rows as JSONL ({request, intent}), or `hub` to download them")
    parser.add_argument("--minutes", type=float, default=85, help="stop after this long (default 85)")
    parser.add_argument("--steps", type=int, default=30000, help="stop after this many steps (default 30000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="a folder of finished weights and their build.json, to go on from instead of nothing")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --work")
    parser.add_argument("--checkpoint-minutes", type=float, default=5)
    parser.add_argument("--work", type=Path, default=HERE.parent.parent / "outputs" / "tiny_base_build", help="where checkpoints go")
    parser.add_argument("--output", type=Path, default=HERE)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    clinc = read_clinc(args.clinc)
    synthesis = Synthesis(clinc, seed=args.seed)
    saved = args.work / "tokenizer"
    known = saved if args.resume else args.start
    tokenizer = AutoTokenizer.from_pretrained(known) if known else build_tokenizer(synthesis)
    tokenizer.save_pretrained(saved)  # a resumed run goes on with the tokens it began with
    synthesis.pieces = letter_pieces(tokenizer)
    model, record = train(args, synthesis, tokenizer)
    record |= {
        "abilities": abilities(model, tokenizer, clinc),
        "held_out_intents": HELD_OUT_INTENTS,
        "parameters": model.num_parameters(),
        "seed": args.seed,
        "sources_sha256": sources_digest(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {'CUDA' if torch.cuda.is_available() else 'CPU'}",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version()},
        "date": (today := datetime.date.today().isoformat()),
        "measured": today,  # measure.py may do it again later
    }
    save(model, tokenizer, args.output, record)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
