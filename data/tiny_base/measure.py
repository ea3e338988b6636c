"""What a tiny base can do before any fine-tuning, on scenes that it was not trained on.

python data/tiny_base/measure.py --clinc PATH_OR_hub    # the weights in this folder, into build.json
"""

import argparse
import datetime
import json
import random
import re
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
CHOICES = 4  # tools in the catalogues from which one is chosen
BY_WORDS = 200  # requests for each way of asking for a tool in its own words


def abilities(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, clinc: list[dict]) -> dict[str, dict[str, float] | float]:
    """Turn accuracies on tools that were taught and on verbs that were not; choices among held-out intents, and by words alone."""
    known, held_out = Synthesis(clinc, 0), Synthesis(clinc, 0, held_out=True)
    known.pieces = held_out.pieces = letter_pieces(tokenizer)
    taught = turn_accuracy(model, tokenizer, known, 40)
    held_out.composed = 1.0
    verbs = turn_accuracy(model, tokenizer, held_out, 40)
    choices = held_out_choices(held_out)
    return {
        "turn_accuracy": taught,
        "turn_accuracy_held_out_verbs": verbs,
        "choice_among_4_held_out_intents": round(_right(model, tokenizer, choices), 3),
        "choice_by_common_words_rule": round(common_words_rule(choices), 3),
        "choice_among_4_by_words": choice_by_words(model, tokenizer, known),
    }


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


def held_out_choices(held_out: Synthesis) -> list[Scene]:
    """Every request of the held-out intents under four such tools."""
    rng = held_out.rng = random.Random("choice")
    scenes = []
    for intent in HELD_OUT_INTENTS:
        for request in held_out.said[intent]:
            others = rng.sample([other for other in HELD_OUT_INTENTS if other != intent], CHOICES - 1)
            scenes.append(_choice(rng, request, [held_out._intent_tool(name)["spec"] for name in (intent, *others)]))
    return scenes


def common_words_rule(scenes: list[Scene]) -> float:
    """Share of scenes in which the right tool's line has the most words in common with the request, a tie counting in parts: what a reader
    must beat. Words are common that have four letters or more and begin with the same four.
    """

    def beginnings(text: str) -> set[str]:
        return {word[:4] for word in re.findall("[a-z]{4,}", text.lower())}

    right = 0.0
    for scene in scenes:
        said, names = beginnings(scene.turns[0].request), [json.loads(turn.answer)["tool"] for turn in scene.turns]
        common = [len(said & beginnings(re.search(rf"^- {re.escape(name)}\(.*$", scene.system, re.MULTILINE)[0])) for name in names]
        right += (common[0] == max(common)) / common.count(max(common))
    return right / len(scenes)


def choice_by_words(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, synthesis: Synthesis) -> dict[str, float]:
    """Share of requests for which the tool whose words they hold is the likeliest of four tools of any words, by what they hold of it.

    Nothing but these words helps: name and description have been drawn at random.
    """
    rng = random.Random("words")

    def asked(kind: str, words: list[str], told: str) -> str:
        before, after = (" ".join(rng.choice(synthesis.requests).split()[:3]) for _ in range(2))
        held = {"name": "_".join(words[:2]), "description": told, "two_words": " ".join(words[2:4]), "one_word": words[3]}
        return f"{before} {held[kind]} {after}"

    shares = {}
    for kind in ("name", "description", "two_words", "one_word"):
        scenes = []
        for _ in range(BY_WORDS):
            drawn = [rng.sample(synthesis.composer.any_words, 5) for _ in range(CHOICES)]
            specs = [
                {"name": "_".join(words[:2]), "description": "do " + " ".join(words), "inputSchema": {"type": "object", "properties": {}}}
                for words in drawn
            ]
            scenes.append(_choice(rng, asked(kind, drawn[0], specs[0]["description"]), specs))
        shares[kind] = round(_right(model, tokenizer, scenes), 3)
    return shares


def _choice(rng: random.Random, request: str, specs: list[dict]) -> Scene:
    """A catalogue of these tools, in any order, and a turn for each that calls it on this request; the right one's is the first."""
    catalogue = Toolset.from_mcp(rng.sample(specs, len(specs)))
    return Scene(catalogue.system_prompt(), [Turn(request, ToolCall(spec["name"], {}).to_json(), "call") for spec in specs])


@torch.no_grad()
def _right(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, scenes: list[Scene]) -> float:
    """Share of the scenes whose first turn has the likeliest answer of all its turns."""
    device, right = next(model.parameters()).device, 0
    for start in tqdm(range(0, len(scenes), BATCH), desc="choosing", mininterval=5):
        batch = {key: value.to(device) for key, value in pack(scenes[start : start + BATCH], tokenizer).items()}
        labels = batch.pop("labels")[:, 1:]
        answered = labels != -100
        logprobs = model(**batch, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        token = logprobs.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * answered
        number = (answered & ~torch.nn.functional.pad(answered[:, :-1], (1, 0))).cumsum(1)
        if (number[:, -1] < CHOICES).any():  # a call that was cut off would seem certain
            raise ValueError("a choice does not fit into a scene's tokens; take shorter requests or a greater scenes.LENGTH")
        likelihood = torch.stack([(token * (number == n)).sum(1) for n in range(1, CHOICES + 1)], dim=1)
        right += int((likelihood.argmax(1) == 0).sum())
    return right / len(scenes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clinc", required=True, help="CLINC150's training rows as JSONL ({request, intent}), or `hub` to download them")
    parser.add_argument("--base", type=Path, default=HERE, help="folder with weights and build.json")
    args = parser.parse_args()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32), AutoTokenizer.from_pretrained(args.base)
    found = abilities(model.eval(), tokenizer, read_clinc(args.clinc))
    record = json.loads((args.base / "build.json").read_text(encoding="utf-8"))
    record |= {"abilities": found, "measured": datetime.date.today().isoformat()}
    (args.base / "build.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
