"""The base that fits the machine, and clear errors where there is none."""

import hashlib
import json
import time

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import models
from helpers.models import base_label, default_base, load_base, load_tokenizer
from helpers.paths import TINY_BASE


def test_without_cuda_the_base_is_the_embedded_one_and_with_cuda_a_hub_model(monkeypatch):
    monkeypatch.delenv("COURSE_BASE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_base() == str(TINY_BASE) and base_label(default_base()) == "tiny_base"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_base() == models.HUB_BASE
    monkeypatch.setenv("COURSE_BASE", "some/model")
    assert default_base() == "some/model"
    monkeypatch.chdir(TINY_BASE.parent)
    monkeypatch.setenv("COURSE_BASE", "tiny_base")
    assert default_base() == str(TINY_BASE)


def test_parameters_are_counted_without_weights():
    assert models.count_parameters(str(TINY_BASE)) == AutoModelForCausalLM.from_pretrained(TINY_BASE).num_parameters()


def test_four_bits_change_the_linear_layers_and_nothing_else():
    kinds = {name: type(module).__name__ for name, module in load_base(str(TINY_BASE)).named_modules()}
    assert {kind for name, kind in kinds.items() if name.endswith("_proj")} == {"Linear4bit"}
    assert kinds["lm_head"] == "Linear" and kinds["model.embed_tokens"] == "Embedding"


def test_the_unreachable_hub_is_one_clear_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RuntimeError, match="COURSE_BASE") as error:
        load_tokenizer("nobody/no-such-model-0.5B")
    assert "nobody/no-such-model-0.5B" in str(error.value)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        load_base(str(tmp_path / "gone"))


def test_a_base_without_chat_template_is_refused(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="no chat template"):
        load_tokenizer(str(tmp_path))


def test_a_template_without_system_role_is_noticed():
    tokenizer = load_tokenizer(str(TINY_BASE))
    assert models.accepts_system_role(tokenizer)
    tokenizer.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}x"
    assert not models.accepts_system_role(tokenizer)
    tokenizer.chat_template = "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}{% endfor %}"
    assert not models.accepts_system_role(tokenizer)


class TestTinyBase:
    def test_size_and_architecture(self):
        model = AutoModelForCausalLM.from_pretrained(TINY_BASE)
        assert model.config.architectures == ["LlamaForCausalLM"]
        assert model.num_parameters() <= 8_000_000
        assert sum(path.stat().st_size for path in TINY_BASE.iterdir()) <= 20_000_000

    def test_weights_are_those_that_the_record_describes(self):
        record = json.loads((TINY_BASE / "build.json").read_text())
        assert hashlib.sha256((TINY_BASE / "model.safetensors").read_bytes()).hexdigest() == record["sha256"]

    def test_it_loads_quickly(self):
        load_base(str(TINY_BASE), four_bit=False)
        started = time.monotonic()
        load_base(str(TINY_BASE), four_bit=False)
        assert time.monotonic() - started < 5  # under 1 s on an idle machine

    def test_digits_and_capitals_are_tokens_of_their_own_and_ids_survive(self):
        tokenizer = load_tokenizer(str(TINY_BASE))
        text = "ORD-10482 wx9_22f É 😀"
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert [tokenizer.decode(i) for i in ids[:9]] == list("ORD-10482")

    def test_the_template_is_chatml(self):
        tokenizer = load_tokenizer(str(TINY_BASE))
        text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True)
        assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
