"""Give a base that does not know what words mean the columns of meaning and the layer that looks words up, and keep what it can do.

    python data/tiny_base/grow.py --base FOLDER --encoder FOLDER_OR_HUB_NAME

Leaves a checkpoint from which `build.py --resume` goes on. The stream between the layers is turned so that the directions in which the
embeddings differ least come first, and there the meaning is written. The new layer adds nothing at first: what it finds is learned.
"""

import argparse
import json
from pathlib import Path

import torch
from build import HERE, KNOWN_WORDS, LOOKING, WIDTH, build_model, optimizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from vocabulary import MEANING, common_words, meaning_columns, meanings


@torch.no_grad()
def grow(small: torch.nn.Module, columns: torch.Tensor) -> torch.nn.Module:
    """A model of `build_model`'s shape that answers nearly as `small`, which has one layer fewer, and holds the `columns` of meaning."""
    large = build_model(columns)
    embeddings = small.model.embed_tokens.weight
    _, axes = torch.linalg.eigh(torch.cov(embeddings.T))  # from the direction of the least variance to that of the most
    large.model.embed_tokens.weight.data = torch.cat([columns, (embeddings @ axes)[:, MEANING:]], dim=1)
    old = iter(small.model.layers)
    for number, layer in enumerate(large.model.layers):
        if number == LOOKING:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
            continue
        source = next(old)
        for part, names, norm in (
            ("self_attn", ("q_proj", "k_proj", "v_proj"), source.input_layernorm),
            ("mlp", ("gate_proj", "up_proj"), source.post_attention_layernorm),
        ):
            for name in names:  # a norm's weights go into what follows it, so that the stream can be turned
                getattr(getattr(layer, part), name).weight.copy_(getattr(getattr(source, part), name).weight * norm.weight @ axes)
        layer.self_attn.o_proj.weight.copy_(axes.T @ source.self_attn.o_proj.weight)
        layer.mlp.down_proj.weight.copy_(axes.T @ source.mlp.down_proj.weight)
    large.model.norm.weight.fill_(small.model.norm.weight.mean())  # the output layer is the embeddings, so this one cannot
    return large


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="folder of the smaller base, with its build.json")
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="folder or Hub name of the words' encoder")
    parser.add_argument("--work", type=Path, default=HERE.parent.parent / "outputs" / "tiny_base_build", help="where the checkpoint goes")
    args = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(args.base)
    small = AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32)
    if small.config.hidden_size != WIDTH:
        raise ValueError(f"{args.base} is {small.config.hidden_size} wide, and build.py makes models that are {WIDTH} wide")
    large = grow(small, meaning_columns(tokenizer, meanings(common_words(KNOWN_WORDS), args.encoder)))
    made = json.loads((args.base / "build.json").read_text(encoding="utf-8"))
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(args.work / "tokenizer")
    state = {"model": large.state_dict(), "optimizers": [o.state_dict() for o in optimizers(large)]}
    state |= {"step": made["steps"], "spent": 60 * made["minutes"], "cpu": 60 * made["cpu_minutes"]}
    torch.save(state, args.work / "checkpoint.pt")


if __name__ == "__main__":
    main()
