"""Answers are drawn from the model's distribution, by keys, whatever is drawn beside them; and the soup is a mean."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trainers.interface import DataError
from trainers.llm_finetuning.config import Config, LoraConfig
from trainers.llm_finetuning.network.chat import load_chat
from trainers.llm_finetuning.network.generation import DrawByKey, choose_width, generate
from trainers.llm_finetuning.network.language_model import LanguageModel, lay_out, load_base
from trainers.llm_finetuning.questions.base_model import TINY
from trainers.llm_finetuning.questions.made_questions import make_questions
from trainers.llm_finetuning.questions.table import Question
from trainers.llm_finetuning.stages.evaluation import Examiner

QUESTIONS = [row["prompt"] for row in make_questions(3, 12)]


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(0)
    model = LanguageModel(load_base(TINY, torch.float32), LoraConfig(r=4)).eval()
    return model, load_chat(TINY, model.ends, "", 32)


def draw(made, prompts, keys=None, batch_size=64):
    model, chat = made
    encoded = [chat.encode_prompt(one) for one in prompts]
    found = generate(model, chat, encoded, max_new_tokens=12, batch_size=batch_size, keys=keys, temperature=1.3)
    return [chat.decode(one) for one in found]


def test_a_sample_is_the_same_alone_and_among_others_and_after_other_draws(made):
    keys = [f"7/{n}" for n in range(12)]
    together = draw(made, QUESTIONS, keys)
    torch.rand(5)
    assert draw(made, QUESTIONS, keys, batch_size=5) == together
    assert [draw(made, [one], [key])[0] for one, key in zip(QUESTIONS, keys, strict=True)] == together
    assert draw(made, QUESTIONS, [f"8/{n}" for n in range(12)]) != together


def test_samples_have_the_distribution_of_the_model_at_the_temperature():
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0])
    number = 6000
    noisy = DrawByKey([str(n) for n in range(number)], 1.5)(None, logits.expand(number, -1))
    shares = torch.bincount(noisy.argmax(1), minlength=4) / number
    wanted = torch.softmax(logits / 1.5, 0)
    assert float((shares - wanted).abs().max()) < 4 * np.sqrt(0.25 / number)


def test_a_prompt_s_width_depends_on_the_prompt_alone():
    assert [choose_width(n) for n in (1, 8, 9, 64, 65, 128, 129)] == [8, 8, 16, 64, 128, 128, 192]


def test_a_response_s_tokens_end_with_the_end(made):
    _, chat = made
    ids = chat.encode_response("1 + 2 ?", "<answer> 3 </answer>")
    assert chat.is_ended(ids)
    assert chat.decode(ids) == "<answer> 3 </answer>"
    assert chat.tokenizer.decode(chat.encode_prompt("1 + 2 ?")) == "<bos> 1 + 2 ?"


def test_log_probabilities_do_not_depend_on_what_fills_a_block_up(made):
    model, chat = made
    prompts = [chat.encode_prompt(one) for one in ("1 + 2 ?", "max 1 , 2 , 3 ?")]
    answers = [chat.encode_response("", one) for one in ("<answer> 3 </answer>", "3")]
    ids, mask, counts = lay_out(prompts, answers, chat.pad_id)
    together, entropy = model(ids, mask, counts.shape[1], 0.7, measures_entropy=True)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        alone, _ = model(*lay_out([prompt], [answer], chat.pad_id)[:2], len(answer), 0.7)
        torch.testing.assert_close(together[row, : len(answer)], alone[0], atol=1e-4, rtol=1e-4)
    assert (entropy > 0).all()


def test_letters_have_the_probability_of_being_the_answer(made):
    model, chat = made
    examiner = Examiner(model, chat, Config(), 0, lambda: None)
    questions = [Question("a", "max 1 , 2 , 3 ?", "choice", choices=("1", "2", "3")), Question("b", "1 + 2 ?", "sum")]
    first, second = examiner.weigh_letters(questions)
    assert list(first) == ["A", "B", "C"]
    assert sum(first.values()) == pytest.approx(1)
    assert second == {}


def test_the_soup_is_the_mean_of_merged_weights_and_leaves_no_trace(made):
    model, chat = made
    generator = torch.Generator().manual_seed(1)
    states = [
        {name: 0.3 * torch.randn(value.shape, generator=generator) for name, value in model.adapter_state().items()}
        for _ in range(2)
    ]
    ids, mask, counts = lay_out([chat.encode_prompt("1 + 2 ?")], [chat.encode_response("", "3")], chat.pad_id)

    def ask():
        return model(ids, mask, counts.shape[1])[0].detach()

    before = ask()
    weight = next(one for name, one in model.peft.named_modules() if name.endswith("layers.0.mlp.up_proj"))
    deltas = []
    for state in states:
        with model.with_adapter(state):
            deltas.append(weight.get_delta_weight("default").detach())
    plain = weight.base_layer.weight.detach().clone()
    with model.with_mean_of(states):
        torch.testing.assert_close(weight.base_layer.weight, plain + (deltas[0] + deltas[1]) / 2)
    assert torch.equal(ask(), before)
    with model.with_adapter(states[0]):
        alone = ask()
    with model.with_mean_of([states[0]] * 2):
        torch.testing.assert_close(ask(), alone, atol=1e-4, rtol=1e-4)


def test_a_model_without_the_layers_is_refused():
    base = SimpleNamespace(named_modules=lambda: [("block.c_attn", None)])
    with pytest.raises(DataError, match="no layer 'q_proj': expected some of c_attn"):
        LanguageModel(base, LoraConfig())
