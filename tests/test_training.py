"""The recipe and the collator: what is trained on, that packing changes nothing but the time, and that a run that cannot learn stops."""

import dataclasses
import json
import math
import os

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, LlamaConfig, Qwen2Config, Qwen3Config
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from trl import SFTConfig, SFTTrainer

from helpers import packing, training
from helpers.examples import Example, load_examples, to_prompt_completion
from helpers.models import load_base, load_tokenizer
from helpers.paths import TINY_BASE
from helpers.recipes import LESSON, TINY, lora_config, sft_config
from helpers.routing import Router
from helpers.tools import Tool, Toolset, support_desk
from helpers.training import IGNORED, SharedPrefixCollator

TOOLS = support_desk()
SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 16, "pad_token_id": 0, "attn_implementation": "sdpa",
}  # fmt: skip
ARCHITECTURES = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config, "gemma3": Gemma3TextConfig}


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(TINY_BASE))


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return load_examples("train")[:12]


def random_model(name: str, vocabulary: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(ARCHITECTURES[name](vocab_size=vocabulary, **SMALL), attn_implementation="sdpa").float().eval()


def features(examples, tokenizer, toolset=TOOLS) -> list[dict]:
    """Token ids and labels as the trainer prepares them."""
    rows = []
    for example in examples:
        row = to_prompt_completion(example, toolset)
        prompt = training.token_ids(tokenizer, row["prompt"])
        ids = training.token_ids(tokenizer, row["prompt"] + row["completion"], answering=False)
        assert ids[: len(prompt)] == prompt
        rows.append({"input_ids": ids, "labels": [IGNORED] * len(prompt) + ids[len(prompt) :]})
    return rows


def loss_and_gradients(model, batch) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def padded(rows) -> dict[str, torch.Tensor]:
    length = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": 0, "labels": IGNORED, "attention_mask": 0}
    rows = [row | {"attention_mask": [1] * len(row["input_ids"])} for row in rows]
    return {key: torch.tensor([row[key] + [value] * (length - len(row[key])) for row in rows]) for key, value in fill.items()}


class TestSharedPrefixCollator:
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_loss_and_gradients_equal_those_of_padded_rows(self, architecture, examples, tokenizer):
        model, rows = random_model(architecture, len(tokenizer)), features(examples, tokenizer)
        plain_loss, plain = loss_and_gradients(model, padded(rows))
        for attention in ("sdpa", packing.SHARED_PREFIX):
            model.set_attn_implementation(attention)
            packed_loss, packed = loss_and_gradients(model, SharedPrefixCollator(0)(rows))
            assert packed_loss == pytest.approx(plain_loss, rel=1e-5)
            assert (packed - plain).norm() <= 1e-5 * plain.norm()

    def test_same_loss_tokens_on_fewer_tokens(self, examples, tokenizer):
        rows = features(examples, tokenizer)
        batch = SharedPrefixCollator(0)(rows)
        assert (batch["labels"] != IGNORED).sum() == sum(label != IGNORED for row in rows for label in row["labels"])
        assert batch["input_ids"].shape == (1, batch["input_ids"].shape[1])
        assert batch["input_ids"].numel() < 0.6 * padded(rows)["input_ids"].numel()

    def test_small_literal_batch(self):
        rows = [
            {"input_ids": [1, 2, 3, 7, 8], "labels": [IGNORED] * 3 + [7, 8]},
            {"input_ids": [1, 2, 4, 9], "labels": [IGNORED] * 3 + [9]},
        ]
        batch = SharedPrefixCollator(0)(rows)
        assert batch["input_ids"].tolist() == [[1, 2, 3, 7, 8, 4, 9]]
        assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 2, 3]]
        assert batch["labels"].tolist() == [[IGNORED, IGNORED, IGNORED, 7, 8, IGNORED, 9]]
        assert batch["attention_mask"][0, 0].int().tolist() == [
            [1, 0, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0, 0],
            [1, 1, 1, 1, 0, 0, 0],
            [1, 1, 1, 1, 1, 0, 0],
            [1, 1, 0, 0, 0, 1, 0],
            [1, 1, 0, 0, 0, 1, 1],
        ]

    def test_identical_prompts_still_predict_their_first_completion_token(self):
        rows = [{"input_ids": [1, 2, 3, 7], "labels": [IGNORED] * 3 + [7]}, {"input_ids": [1, 2, 3, 9], "labels": [IGNORED] * 3 + [9]}]
        assert SharedPrefixCollator(0)(rows)["input_ids"].tolist() == [[1, 2, 3, 7, 3, 9]]

    def test_rows_under_two_catalogues_are_grouped_by_theirs(self, examples, tokenizer):
        class ParcelLookup(Tool):
            """Find a parcel."""

            reference: str

        rows = features(examples[:4], tokenizer)
        other = [Example(id="x", request=t, target={"tool": "no_tool", "reason": "no"}, kind="chitchat") for t in ("hi", "good day")]
        rows += features(other, tokenizer, Toolset(ParcelLookup))
        mixed = [rows[n] for n in (0, 4, 1, 2, 5, 3)]
        model = random_model("llama", len(tokenizer))
        plain_loss, plain = loss_and_gradients(model, padded(rows))
        batch = SharedPrefixCollator(0)(mixed)
        packed_loss, packed = loss_and_gradients(model, batch)
        assert len(batch["input_ids"]) == 2
        assert packed_loss == pytest.approx(plain_loss, rel=1e-5)
        assert (packed - plain).norm() <= 1e-5 * plain.norm()

    def test_one_row_before_rows_of_another_catalogue_does_not_shorten_their_prefix(self):
        a, b = list(range(1, 41)), [1, *range(50, 89)]
        rows = [{"input_ids": [*a, 90, 91], "labels": [IGNORED] * 41 + [91]}]
        rows += [{"input_ids": [*b, n, 91], "labels": [IGNORED] * 41 + [91]} for n in (92, 93, 94)]
        assert SharedPrefixCollator(0)(rows)["input_ids"].ne(0).sum() == len(a) + 2 + len(b) + 3 * 2

    @pytest.mark.parametrize("limit", [1, 200, 300, 600])
    def test_a_limit_spreads_the_rows_and_changes_nothing_else(self, limit, examples, tokenizer):
        model, rows = random_model("llama", len(tokenizer)), features(examples, tokenizer)
        whole, _ = loss_and_gradients(model, SharedPrefixCollator(0)(rows))
        batch = SharedPrefixCollator(0, max_packed=limit)(rows)
        parts, _ = loss_and_gradients(model, batch)
        assert len(batch["input_ids"]) > 1
        assert parts == pytest.approx(whole, rel=1e-5)

    @pytest.mark.parametrize(("prefix", "width", "sequences"), [(200, math.inf, 1), (200, 1536, 2), (200, 150, 4), (1500, 1536, 1)])
    def test_rows_are_spread_where_attention_costs_more_than_the_prefix_saves(self, prefix, width, sequences):
        rows = [{"input_ids": [1] * prefix + [n, *[5] * 58, 7], "labels": [IGNORED] * (prefix + 59) + [7]} for n in range(10, 26)]
        batch = SharedPrefixCollator(0, attention_width=width)(rows)
        assert batch["input_ids"].shape == (sequences, prefix + 16 * 60 // sequences)
        costs = [n * (prefix + 960 / n) * (1 + (prefix + 960 / n) / width) for n in range(1, 17)]
        assert costs.index(min(costs)) + 1 == sequences


def scores(monkeypatch, model, batch) -> int:
    """Pairs of query and key of the first layer that attention computes, a plain causal block counted half."""
    counted = []

    def counting(module, query, key, value, mask, **options):
        counted.append(query.shape[0] * query.shape[2] * key.shape[2] // (2 if mask is None else 1))
        return sdpa_attention_forward(module, query, key, value, mask, **options)

    monkeypatch.setattr(packing, "sdpa_attention_forward", counting)
    with torch.no_grad():
        model(**{key: batch[key] for key in ("input_ids", "position_ids", "attention_mask")})
    return sum(counted) // model.config.num_hidden_layers


def assert_attention_gives_what_sdpa_gives(model, batch):
    expected, stock = loss_and_gradients(model, batch)
    model.set_attn_implementation(packing.SHARED_PREFIX)
    found, ours = loss_and_gradients(model, batch)
    assert found == pytest.approx(expected, rel=1e-5)
    assert (ours - stock).norm() <= 1e-5 * stock.norm()


class TestSharedPrefixAttention:
    """Its loss and gradients are compared above; here in blocks of all sizes, and by what it leaves out."""

    @pytest.mark.parametrize("block", [16, 64, 100_000])
    @pytest.mark.parametrize("limit", [300, 4096])  # several sequences with padding, or one
    def test_any_block_gives_what_sdpa_gives(self, block, limit, examples, tokenizer, monkeypatch):
        monkeypatch.setattr(packing, "BLOCK", block)
        batch = SharedPrefixCollator(0, max_packed=limit)(features(examples, tokenizer))
        assert_attention_gives_what_sdpa_gives(random_model("llama", len(tokenizer)), batch)

    @pytest.mark.parametrize("rows", [1, 6])  # a row alone, or five under one catalogue and one under another
    def test_other_batches(self, rows, examples, tokenizer, monkeypatch):
        monkeypatch.setattr(packing, "BLOCK", 32)
        other = Toolset.from_specs(TOOLS[name] for name in reversed(TOOLS.names))
        mixed = features(examples[:1], tokenizer, other) + features(examples[1:6], tokenizer)
        assert_attention_gives_what_sdpa_gives(random_model("llama", len(tokenizer)), SharedPrefixCollator(0)(mixed[:rows]))

    def test_masked_scores_are_left_out(self, examples, tokenizer, monkeypatch):
        model, batch = random_model("llama", len(tokenizer)), SharedPrefixCollator(0)(features(examples, tokenizer))
        model.set_attn_implementation(packing.SHARED_PREFIX)
        every, needed = batch["attention_mask"].numel(), int(batch["attention_mask"].sum())
        found = scores(monkeypatch, model, batch)
        assert 0.9 * needed < found < 0.75 * every

    def test_padded_rows(self, examples, tokenizer):
        assert_attention_gives_what_sdpa_gives(random_model("llama", len(tokenizer)), padded(features(examples, tokenizer)))

    def test_padded_rows_under_a_sliding_window(self, examples, tokenizer):
        config = Gemma3TextConfig(vocab_size=len(tokenizer), sliding_window=64, sliding_window_pattern=2, **SMALL)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").float().eval()
        assert_attention_gives_what_sdpa_gives(model, padded(features(examples, tokenizer)))


@pytest.mark.parametrize(("window", "packs"), [(4096, True), (64, False)])
def test_rows_longer_than_a_sliding_window_are_padded(window, packs, examples, tokenizer, tmp_path, capsys):
    config = Gemma3TextConfig(vocab_size=len(tokenizer), sliding_window=window, sliding_window_pattern=2, **SMALL)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    dataset = training.to_dataset(examples, TOOLS, tokenizer, 1024)
    trainer = training.make_trainer(model, tokenizer, dataset, TINY, tmp_path / "out")
    assert isinstance(trainer.data_collator, SharedPrefixCollator) == packs
    assert ("looks back 64 tokens in some layers" in capsys.readouterr().out) != packs


def test_a_model_that_takes_no_mask_falls_back_to_padded_rows_and_says_so(examples, tokenizer, tmp_path, capsys):
    Gemma2Config(vocab_size=len(tokenizer), **SMALL | {"attn_implementation": "eager"}).save_pretrained(tmp_path)
    AutoModelForCausalLM.from_config(Gemma2Config.from_pretrained(tmp_path)).save_pretrained(tmp_path)
    model = load_base(str(tmp_path), four_bit=False)
    dataset = training.to_dataset(examples, TOOLS, tokenizer, 1024)
    trainer = training.make_trainer(model, tokenizer, dataset, dataclasses.replace(TINY, epochs=1), tmp_path / "out")
    assert not isinstance(trainer.data_collator, SharedPrefixCollator)
    assert "takes no 4-D mask" in capsys.readouterr().out


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_where_labels_are_give_the_same_loss_and_gradients(architecture, examples, tokenizer, tmp_path):
    rows = features(examples, tokenizer)
    dataset = training.to_dataset(examples, TOOLS, tokenizer, 1024)
    recipe = dataclasses.replace(TINY, row_mean=False)
    trainer = training.make_trainer(random_model(architecture, len(tokenizer)), tokenizer, dataset, recipe, tmp_path)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)  # zero would hide the gradients of A
    for batch in (SharedPrefixCollator(0)(rows), SharedPrefixCollator(0, max_packed=300)(rows), padded(rows)):
        whole, expected = loss_and_gradients(trainer.model, batch)
        trainer.model.zero_grad()
        loss, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
        loss.backward()
        found = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
        assert outputs.logits.shape[1] == int((batch["labels"][:, 1:] != IGNORED).any(dim=0).sum()) < batch["labels"].shape[1]
        assert loss.item() == pytest.approx(whole, rel=1e-5)
        assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_with_row_mean_a_short_refusal_counts_as_much_as_a_long_call(examples, tokenizer, tmp_path):
    rows = features(examples, tokenizer)
    dataset = training.to_dataset(examples, TOOLS, tokenizer, 1024)
    trainer = training.make_trainer(random_model("llama", len(tokenizer)), tokenizer, dataset, TINY, tmp_path)
    alone = [loss_and_gradients(trainer.model, padded([row]))[0] for row in rows]
    lengths = [sum(label != IGNORED for label in row["labels"]) for row in rows]
    by_token = sum(loss * n for loss, n in zip(alone, lengths, strict=True)) / sum(lengths)
    assert abs(by_token - sum(alone) / len(alone)) > 1e-4  # or the test could not tell them apart
    for batch in (SharedPrefixCollator(0)(rows), SharedPrefixCollator(0, max_packed=300)(rows), padded(rows)):
        for takes_columns in (True, False):
            trainer._takes_columns = takes_columns
            trainer.current_gradient_accumulation_steps = 1
            assert trainer.compute_loss(trainer.model, dict(batch)).item() == pytest.approx(sum(alone) / len(alone), rel=1e-5)
            trainer.current_gradient_accumulation_steps = 2
            assert trainer.compute_loss(trainer.model, dict(batch)).item() == pytest.approx(sum(alone) / len(alone) / 2, rel=1e-5)


def test_row_weights():
    labels = torch.tensor([[IGNORED, 5, 6, IGNORED, 7], [8, IGNORED, IGNORED, IGNORED, IGNORED]])
    assert training._row_weights(labels).tolist() == [[0, pytest.approx(1 / 6), pytest.approx(1 / 6), 0, pytest.approx(1 / 3)],
                                                      [pytest.approx(1 / 3), 0, 0, 0, 0]]  # fmt: skip


class TestRows:
    def test_each_row_may_have_its_own_catalogue(self, examples, tokenizer):
        catalogues = [Toolset.from_specs(TOOLS[name] for name in order) for order in (TOOLS.names, TOOLS.names[::-1])] * 6
        rows = training.to_dataset(examples, catalogues, tokenizer, 1024)
        assert [row["prompt"][0]["content"] for row in rows] == [catalogue.system_prompt() for catalogue in catalogues]
        prints = [training.fingerprint(examples, str(TINY_BASE), TINY, tools)["data_sha256"] for tools in (TOOLS, [TOOLS] * 12, catalogues)]
        assert prints[0] == prints[1] != prints[2]
        with pytest.raises(ValueError, match="11 catalogues for 12 rows"):
            training.to_dataset(examples, catalogues[:11], tokenizer, 1024)

    def test_the_messages_form_puts_every_token_in_the_loss_and_ours_only_the_answer(self, examples, tokenizer, tmp_path):
        """TRL accepts completion_only_loss with a messages column, and ignores it."""
        rows = [to_prompt_completion(example, TOOLS) for example in examples]
        forms = {"messages": [{"messages": r["prompt"] + r["completion"]} for r in rows], "prompt": rows}
        share = {}
        for form, data in forms.items():
            config = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", completion_only_loss=True)
            model = random_model("llama", len(tokenizer))
            prepared = SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(data), processing_class=tokenizer).train_dataset
            labels = [label for row in prepared["labels"] for label in row]
            share[form] = sum(label != IGNORED for label in labels) / len(labels)
        assert share["messages"] == 1.0
        assert 0.05 < share["prompt"] < 0.35

    def test_check_rows_names_a_row_whose_answer_is_not_in_the_loss(self, examples, tokenizer):
        dataset = Dataset.from_list(features(examples, tokenizer))
        training.check_rows(dataset, examples, tokenizer)
        broken = [dict(row) for row in features(examples, tokenizer)]
        broken[3]["labels"] = [IGNORED] * len(broken[3]["labels"])
        with pytest.raises(ValueError, match=examples[3].id):
            training.check_rows(Dataset.from_list(broken), examples, tokenizer)
        with pytest.raises(ValueError, match="kept 11 of 12"):
            training.check_rows(dataset.select(range(11)), examples, tokenizer)

    def test_a_template_that_does_not_end_the_answer_is_refused(self, examples, tokenizer):
        endless = [{key: values[:-2] for key, values in row.items()} for row in features(examples, tokenizer)]  # without <|im_end|>\n
        with pytest.raises(ValueError, match="would not learn to stop"):
            training.check_rows(Dataset.from_list(endless), examples, tokenizer)

    def test_a_row_that_is_too_long_is_named(self, examples, tokenizer):
        with pytest.raises(ValueError, match=rf"{examples[0].id} \(\d+ tokens\)"):
            training.to_dataset(examples, TOOLS, tokenizer, max_length=60)

    def test_no_rows_is_an_error(self, tokenizer):
        with pytest.raises(ValueError, match="no rows"):
            training.to_dataset([], TOOLS, tokenizer, max_length=1024)


class TestRecipe:
    def test_the_lessons_values(self):
        lora, sft = lora_config(), sft_config()
        assert (lora.r, lora.lora_alpha, lora.lora_dropout, set(lora.target_modules)) == (16, 32, 0.05, {"q_proj", "v_proj"})
        assert (sft.per_device_train_batch_size, sft.gradient_accumulation_steps, sft.num_train_epochs) == (8, 2, 3)
        assert (sft.learning_rate, sft.lr_scheduler_type, sft.warmup_steps, sft.max_length) == (2e-4, "cosine", 0.03, 1024)
        assert sft.completion_only_loss and sft.report_to == []

    def test_the_lessons_global_batch_is_sixteen(self):
        assert LESSON.batch * LESSON.accumulation == 16

    @pytest.mark.parametrize(("capability", "bf16", "fp16"), [((9, 0), True, False), ((8, 0), True, False), ((7, 5), False, True)])
    def test_precision_follows_the_device(self, monkeypatch, capability, bf16, fp16):
        from helpers.models import precision

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        assert (precision().bf16, precision().fp16) == (bf16, fp16)

    def test_without_cuda_it_is_fp32(self, monkeypatch):
        from helpers.models import precision

        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert (precision().dtype, precision().bf16, precision().fp16) == (torch.float32, False, False)


class TestRun:
    @pytest.fixture(scope="class")
    def adapter(self, tmp_path_factory):
        quick = dataclasses.replace(TINY, epochs=2, learning_rate=1e-3)
        return training.train(load_examples("train")[:96], tmp_path_factory.mktemp("adapter"), str(TINY_BASE), quick)

    def test_it_leaves_adapter_tokenizer_and_recipe_and_the_loss_falls(self, adapter):
        assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "recipe.json"} <= {p.name for p in adapter.iterdir()}
        record = json.loads((adapter / "recipe.json").read_text())
        assert record["base"] == "tiny_base" and record["rows"] == 96
        assert record["loss"][0][0] == 1 and record["loss"][-1][1] < record["loss"][0][1]
        assert {"torch", "trl", "peft", "transformers", "python"} <= record["versions"].keys()

    def test_an_adapter_is_reused_only_when_nothing_changed(self, adapter, monkeypatch):
        made = []
        monkeypatch.setattr(training, "train", lambda *a, **k: made.append(a) or adapter)
        quick = dataclasses.replace(TINY, epochs=2, learning_rate=1e-3)
        rows = load_examples("train")
        training.trained_adapter(rows[:96], adapter, str(TINY_BASE), quick)
        assert made == []
        training.trained_adapter(rows[:95], adapter, str(TINY_BASE), quick)
        training.trained_adapter(rows[:96], adapter, str(TINY_BASE), dataclasses.replace(quick, seed=1))
        assert len(made) == 2

    def test_the_log_counts_every_token_once(self, examples, tokenizer, tmp_path):
        dataset = training.to_dataset(examples, TOOLS, tokenizer, 1024)
        trainer = training.make_trainer(
            load_base(str(TINY_BASE)), tokenizer, dataset, dataclasses.replace(TINY, batch=16, epochs=1), tmp_path
        )
        lengths = [len(row["input_ids"]) for row in trainer.train_dataset]
        shared = len(os.path.commonprefix([row["input_ids"] for row in trainer.train_dataset]))  # noqa: RUF071 (of lists, by element)
        sequences, length = trainer.data_collator(list(trainer.train_dataset))["input_ids"].shape
        trainer.train()  # one step, over all twelve rows
        assert trainer._total_train_tokens == sequences * shared + sum(lengths) - len(lengths) * shared
        assert trainer._total_train_tokens < sequences * length < sum(lengths)

    def test_adapters_are_trained_in_fp32(self, examples, tokenizer, tmp_path):
        dataset = training.to_dataset(examples, TOOLS, tokenizer, 1024)
        trainer = training.make_trainer(load_base(str(TINY_BASE)), tokenizer, dataset, TINY, tmp_path)
        assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}

    def test_the_embeddings_are_trained_whole_and_saved_once_and_the_output_layer_stays_as_it_was(self, adapter):
        tuned = Router.from_pretrained(adapter=adapter).model
        came = load_base(str(TINY_BASE), four_bit=False).get_input_embeddings().weight
        assert not torch.equal(tuned.get_input_embeddings().weight, came)
        assert torch.equal(tuned.get_output_embeddings().weight, came)
        saved = load_file(adapter / "adapter_model.safetensors")
        assert sum(weights.shape == came.shape for weights in saved.values()) == 1

    def test_a_router_that_is_saved_whole_keeps_both(self, adapter, tmp_path):
        tuned = Router.from_pretrained(adapter=adapter).model
        tuned.save_pretrained(tmp_path)
        again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
        for one, other in zip(tuned.state_dict().values(), again.state_dict().values(), strict=True):
            assert torch.equal(one, other)

    def test_a_first_step_without_gradient_stops_the_run(self, examples, tokenizer, tmp_path):
        dataset = training.to_dataset(examples, TOOLS, tokenizer, 1024)
        trainer = training.make_trainer(load_base(str(TINY_BASE)), tokenizer, dataset, TINY, tmp_path)
        for name, parameter in trainer.model.named_parameters():
            if "lora_A" in name:
                torch.nn.init.zeros_(parameter)  # with B zero as well, nothing can move
        with pytest.raises(RuntimeError, match="gradient is zero at the first step"):
            trainer.train()

    def test_an_overflowing_first_step_in_fp16_is_no_missing_gradient(self):
        layer = torch.nn.ModuleDict({"lora_A": torch.nn.Linear(1, 1)})
        state = type("State", (), {"global_step": 0})
        for value in (float("nan"), 0.5):
            layer["lora_A"].weight.grad = torch.full((1, 1), value)
            training._MustLearn().on_pre_optimizer_step(None, state, None, model=layer)

    def test_checkpointing_goes_with_the_mask(self, examples, tokenizer, tmp_path):
        dataset = training.to_dataset(examples, TOOLS, tokenizer, 1024)
        recipe = dataclasses.replace(TINY, epochs=1, activation_checkpointing=True)
        losses = []
        for choice in (recipe, dataclasses.replace(recipe, activation_checkpointing=False)):
            trainer = training.make_trainer(load_base(str(TINY_BASE)), tokenizer, dataset, choice, tmp_path)
            trainer.train()
            losses.append(trainer.state.log_history[0]["loss"])
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)

    def test_an_adapter_that_did_not_move_is_an_error(self, tmp_path):
        still = dataclasses.replace(TINY, epochs=1, learning_rate=0.0)
        with pytest.raises(RuntimeError, match="where it began"):
            training.train(load_examples("train")[:16], tmp_path, str(TINY_BASE), still)
