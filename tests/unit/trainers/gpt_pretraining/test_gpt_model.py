"""The decoder is GPT-2's: its sizes, its first loss, its weights in Hugging Face form, and a loss in portions."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trainers.gpt_pretraining.config import Config, EvaluationConfig, ModelConfig
from trainers.gpt_pretraining.network.model import NOTHING, Gpt, count_flops_per_token
from trainers.gpt_pretraining.network.pretrained import load_pretrained
from trainers.gpt_pretraining.network.scoring import Scoring, cut_windows
from trainers.interface import DataError

TINY = ModelConfig(width=32, layers=2, heads=2, context=16)


def make_model(config=TINY, vocabulary=65, **options):
    torch.manual_seed(0)
    return Gpt(config, vocabulary, **options).eval()


@pytest.mark.parametrize(
    ("width", "layers", "heads", "expected", "giga_flops"),
    [(512, 6, 8, 45_171_200, 0.306), (768, 12, 12, 124_439_808, 0.855), (1024, 12, 8, 203_668_480, 1.367)],
)
def test_the_presets_have_their_published_numbers_of_parameters(width, layers, heads, expected, giga_flops):
    with torch.device("meta"):
        model = Gpt(ModelConfig(width=width, layers=layers, heads=heads), 50_257)
    assert model.count_parameters()["total_params"] == expected
    assert count_flops_per_token(model) / 1e9 == pytest.approx(giga_flops, abs=5e-4)


def test_the_first_loss_is_that_of_equal_chances_and_the_padded_vocabulary_has_no_share():
    for config in (TINY, replace(TINY, pad_vocabulary=64), replace(TINY, bias=False, gelu="exact")):
        model = make_model(config)
        tokens = torch.randint(0, 65, (64, 16))
        with torch.inference_mode():
            nats = model(tokens, tokens.roll(-1, 1))
            assert model(tokens).shape == (64, 65)
        assert float(nats.mean()) == pytest.approx(math.log(65), rel=0.01)
    assert make_model(replace(TINY, pad_vocabulary=64)).tokens.weight.shape == (128, 32)


def test_weights_in_hugging_face_form_mean_the_same(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": 65}
    theirs = GPT2LMHeadModel(GPT2Config(**sizes)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.2)
    save_file({k: v.contiguous() for k, v in theirs.transformer.state_dict().items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**sizes, "activation_function": "gelu_new"}))
    model, tokens = make_model(replace(TINY, pad_vocabulary=64)), torch.randint(0, 65, (3, 16))
    load_pretrained(model, str(tmp_path))
    with torch.inference_mode():
        expected = theirs(tokens).logits[:, -1]
        assert torch.allclose(model(tokens), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(DataError, match=r"n_embd=32: expected 64, as model.width says"):
        load_pretrained(make_model(replace(TINY, width=64)), str(tmp_path))
    with pytest.raises(DataError, match="activation_function=gelu_new: expected what"):
        load_pretrained(make_model(replace(TINY, gelu="exact")), str(tmp_path))
    with pytest.raises(DataError, match=r"expected model.safetensors and config.json"):
        load_pretrained(model, str(tmp_path / "nowhere"))


def test_a_loss_in_portions_has_the_loss_and_the_gradients_of_the_whole():
    tokens = torch.randint(0, 65, (4, 16))
    targets = tokens.roll(-1, 1)
    targets[:, -3:] = NOTHING
    found = []
    for portion in (8192, 7):
        model = make_model(loss_tokens=portion).train()
        nats = model(tokens, targets)
        nats.sum().backward()
        found.append((nats.detach(), [one.grad for one in model.parameters()]))
    (whole, gradients), (portions, others) = found
    assert torch.equal(whole == 0, targets == NOTHING)
    torch.testing.assert_close(whole, portions)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("stride", [1, 5, 16])
def test_each_token_of_a_document_is_scored_once_with_as_much_before_it_as_the_stride_says(stride):
    model, scoring = make_model(), Scoring(16, stride, 64, 3, "cpu", torch.float32)
    documents = [np.random.default_rng(n).integers(0, 64, n) for n in (0, 1, 15, 16, 40)]
    found = scoring.score(model, documents)
    for tokens, nats in zip(documents, found, strict=True):
        whole = np.concatenate([[64], tokens, [64]])
        assert len(nats) == len(whole) - 1
        for begin, first, last in cut_windows(len(whole) - 1, scoring):
            with torch.inference_mode():
                inputs, targets = (torch.from_numpy(whole[at : at + last - begin])[None] for at in (begin, begin + 1))
                expected = model(inputs, targets)[0, first - begin :]
            np.testing.assert_allclose(nats[first:last], expected.numpy(), atol=2e-6)
    counted = [place for begin, first, last in cut_windows(41, scoring) for place in range(first, last)]
    assert counted == list(range(41))


def test_values_that_do_not_go_together_are_refused_by_name():
    with pytest.raises(ValueError, match=r"evaluation.stride=2000: expected at most model.context=1024"):
        Config(evaluation=EvaluationConfig(stride=2000))
    with pytest.raises(ValueError, match=r"model.heads=7: expected a divisor of model.width=512"):
        ModelConfig(heads=7)
