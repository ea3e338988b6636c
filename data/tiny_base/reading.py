"""What attention should look at while a scene is read: the targets of the heads that `grow.py` shows what to do."""

import json
import re
from dataclasses import dataclass

import torch
from scenes import LENGTH, Part, layout
from synthesis import Scene
from transformers import PreTrainedTokenizerFast

LINE = re.compile(r"^- ([^(\n]+)\(.*\n", re.MULTILINE)  # of a catalogue: a tool, its arguments and its description
NAMED = '{"tool":"'  # what comes in an answer before the name of a tool
UNSERVED = ("out_of_scope", "chitchat")  # turns whose tool is none: the first token of all is looked at


@dataclass
class Looks:
    """Queries by row and position, and what each should see: a position, or shares of the positions of its row (queries, LENGTH)."""

    owned_row: torch.Tensor  # every token of a tool, from its name on, and of a turn sees
    owned: torch.Tensor
    owner: torch.Tensor  # the first token of the tool's name, or the mark that opens the turn
    gather_row: torch.Tensor  # the last token of a tool, and the one after which an answer names its tool, see
    gathers: torch.Tensor
    share: torch.Tensor  # the words of the tool or request, each as much as it tells
    asked_row: torch.Tensor  # where an answer names its tool, it sees
    asked: torch.Tensor
    target: torch.Tensor  # the last token of that tool
    naming: torch.Tensor  # whether after this token an answer names its tool, or none (scenes, LENGTH)


def tools_of(prefix: Part) -> list[tuple[str, int, int]]:
    """The tools of a catalogue: name, position of the name's first token, and that of the last token of the line.

    The line break is not that last token: idle attention rests on it, for which the stream is made so large there that all else drowns.
    """
    return [(line[1], prefix.at(line.start(1)), prefix.at(line.end() - 2)) for line in LINE.finditer(prefix.text)]


def looks(scenes: list[Scene], tokenizer: PreTrainedTokenizerFast, telling: torch.Tensor) -> Looks:
    """The looks of scenes that are packed by `scenes.pack`; `telling` is how much each token tells, of shape (tokens,)."""
    owned, gathers, shares, asked = [], [], [], []
    naming = torch.zeros(len(scenes), LENGTH, dtype=torch.bool)

    def gather(row: int, query: int, tokens: list[int], start: int) -> None:
        gathers.append((row, query))
        share = torch.zeros(LENGTH)
        share[start : start + len(tokens)] = telling[tokens] / telling[tokens].sum()
        shares.append(share)

    for row, scene in enumerate(scenes):
        prefix, *turns = layout(scene, tokenizer)
        last: dict[str, int] = {}
        for tool, name, end in tools_of(prefix):
            owned += [(row, n, name) for n in range(name, end + 1)]
            gather(row, end, prefix.tokens[name : end + 1], name)
            last[tool] = end
        for request, answer in zip(turns[::2], turns[1::2], strict=True):
            if not answer.text.startswith(NAMED):
                continue
            turn, mark = scene.turns[request.segment - 1], request.start + 1
            owned += [(row, n, mark) for n in range(mark, answer.end)]
            before = answer.at(len(NAMED)) - 1
            naming[row, before] = True
            gather(row, before, request.tokens[2:], request.start + 2)
            tool = json.loads(turn.answer)["tool"]
            if tool in last or turn.kind in UNSERVED:
                asked.append((row, before, last.get(tool, 0)))
    columns = [torch.tensor(list(rows), dtype=torch.long).view(-1, n).T for rows, n in ((owned, 3), (gathers, 2), (asked, 3))]
    return Looks(*columns[0], *columns[1], torch.stack(shares) if shares else torch.zeros(0, LENGTH), *columns[2], naming)
