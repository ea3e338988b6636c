"""What a tiny base can do before any fine-tuning, on scenes that it was not trained on.

python data/tiny_base/measure.py --clinc PATH_OR_hub    # the weights in this folder, into build.json
"""

import argparse
import json
import random
from collections import Counter
from pathlib import Path

import torch
from scenes import BATCH, fitting_scene, letter_pieces, pack
from synthesis import HELD_OUT_INTENTS, Scene, Synthesis, Turn, read_clinc
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.parsing import ToolCall
from helpers.tools import Toolset

HERE = Path(__file__).resolve().parent
CHOICES = 4  # tools in the catalogue from which a held-out intent is chosen


def abilities(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, clinc: list[dict]) -> dict[str, dict[str, float] | float]:
    """Turn accuracies on tools that were taught and on verbs and intents that were not, and the choice among held-out intents."""
    known, held_out = Synthesis(clinc, 0), Synthesis(clinc, 0, held_out=True)
    known.pieces = held_out.pieces = letter_pieces(tokenizer)
    taught = turn_accuracy(model, tokenizer, known, 40)
    held_out.composed = 1.0
    verbs = turn_accuracy(model, tokenizer, held_out, 40)
    chosen = choice_among_intents(model, tokenizer, held_out)
    return {"turn_accuracy": taught, "turn_accuracy_held_out_verbs": verbs, "choice_among_4_held_out_intents": chosen}


@torch.no_grad()
def turn_accuracy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, synthesis: Synthesis, batches: int) -> dict[str, float]:
    """Share of answers right to the last token (teacher-forced, which for exactness equals greedy decoding), by kind of turn."""
    device, hits, seen = next(model.parameters()).device, Counter(), Counter()
    synthesis.rng = random.Random("measure")
    for _ in tqdm(range(batches), desc="measuring", mininterval=5):
        scenes = [fitting_scene(synthesis, tokenizer) for _ in range(BATCH)]
        batch = {key: value.to(device) for key, value in pack(scenes, tokenizer).items()}
        labels = batch.pop("labels")
        answered = labels != -100
        wrong = (model(**batch, use_cache=False).logits[:, :-1].argmax(-1) != labels[:, 1:]) & answered[:, 1:]
        number = (answered[:, 1:] & ~answered[:, :-1]).cumsum(1)  # which answer of its row a token is in or after
        for row, scene in enumerate(scenes):
            for n, turn in enumerate(scene.turns[: int(number[row, -1])], 1):
                seen[turn.kind] += 1
                hits[turn.kind] += not wrong[row][number[row] == n].any().item()
    return {kind: round(hits[kind] / seen[kind], 3) for kind in sorted(seen)}


@torch.no_grad()
def choice_among_intents(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, held_out: Synthesis) -> float:
    """Share of the held-out intents' requests for which the right call is the likeliest of the calls of four such tools."""
    device, rng, right, asked = next(model.parameters()).device, random.Random("choice"), 0, []
    held_out.rng = rng
    for intent in HELD_OUT_INTENTS:
        for request in held_out.said[intent]:
            others = rng.sample([other for other in HELD_OUT_INTENTS if other != intent], CHOICES - 1)
            asked.append((request, [intent, *others]))
    for start in tqdm(range(0, len(asked), BATCH), desc="choosing", mininterval=5):
        scenes = []
        for request, intents in asked[start : start + BATCH]:
            entries = [held_out._intent_tool(intent) for intent in intents]
            specs = [entry["spec"] for entry in rng.sample(entries, len(entries))]
            turns = [Turn(request, ToolCall(entry["spec"]["name"], {}).to_json(), "call") for entry in entries]
            scenes.append(Scene(Toolset.from_mcp(specs).system_prompt(), turns))
        batch = {key: value.to(device) for key, value in pack(scenes, tokenizer).items()}
        labels = batch.pop("labels")[:, 1:]
        answered = labels != -100
        logprobs = model(**batch, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        token = logprobs.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * answered
        number = (answered & ~torch.nn.functional.pad(answered[:, :-1], (1, 0))).cumsum(1)
        likelihood = torch.stack([(token * (number == n)).sum(1) for n in range(1, CHOICES + 1)], dim=1)
        right += int((likelihood.argmax(1) == 0).sum())  # the right call stands first
    return round(right / len(asked), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clinc", required=True, help="CLINC150's training rows as JSONL ({request, intent}), or `hub` to download them")
    parser.add_argument("--base", type=Path, default=HERE, help="folder with weights and build.json")
    args = parser.parse_args()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32), AutoTokenizer.from_pretrained(args.base)
    found = abilities(model.eval(), tokenizer, read_clinc(args.clinc))
    record = json.loads((args.base / "build.json").read_text(encoding="utf-8"))
    (args.base / "build.json").write_text(json.dumps(record | {"abilities": found}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
