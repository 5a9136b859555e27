"""GRPO's numbers against formulas written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainers.llm_finetuning.stages.grpo_loss import (
    count_without_signal,
    find_advantages,
    find_token_losses,
    weigh_tokens,
)
from trainers.llm_finetuning.stages.rollouts import choose_questions

REWARDS = np.array([1.0, 0.0, 0.3, 0.3, 0.3, 0.3])


def test_an_answer_is_worth_what_it_exceeds_its_group_by():
    spread = np.array([1, 0, 0.3]).std(ddof=1) + 1e-4
    above = np.array([1, 0, 0.3]) - 1.3 / 3
    np.testing.assert_allclose(find_advantages(REWARDS, 3, "group"), [*(above / spread), 0, 0, 0])
    np.testing.assert_allclose(find_advantages(REWARDS, 3, "none"), [*above, 0, 0, 0])
    whole = REWARDS.std(ddof=1) + 1e-4
    np.testing.assert_allclose(find_advantages(REWARDS, 3, "batch"), [*(above / whole), 0, 0, 0])
    assert count_without_signal(REWARDS, 3) == 0.5


def test_each_kind_of_loss_weighs_tokens_as_it_says():
    counts = np.array([[1, 1, 1], [1, 0, 0]])
    np.testing.assert_allclose(weigh_tokens(counts, "dapo", 8), counts / 4)
    np.testing.assert_allclose(weigh_tokens(counts, "grpo", 8), [[1 / 6] * 3, [1 / 2, 0, 0]])
    np.testing.assert_allclose(weigh_tokens(counts, "dr_grpo", 8), counts / 16)
    assert (weigh_tokens(np.zeros((2, 3)), "dapo", 8) == 0).all()


def test_on_policy_the_gradient_is_the_policy_gradient_and_that_of_the_true_divergence():
    """Of all answers of one token, each as often as the policy says it, the mean gradient of ratio times k3 is that of
    KL(policy | reference); without the ratio it would not be."""
    logits = torch.tensor([0.3, -0.5, 1.0], dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.tensor([0.0, 0.4, 0.1], dtype=torch.float64), 0)
    log_probs = torch.log_softmax(logits, 0)
    wanted = torch.autograd.grad((log_probs.exp() * (log_probs - reference)).sum(), logits, retain_graph=True)[0]
    advantage = torch.zeros(3, dtype=torch.float64)
    found = find_token_losses(
        log_probs[:, None], log_probs.detach()[:, None], reference[:, None], advantage, 0.2, kl_coef=1.0
    )
    weighed = (log_probs.exp().detach() * found.loss_BK[:, 0]).sum()
    torch.testing.assert_close(torch.autograd.grad(weighed, logits, retain_graph=True)[0], wanted)
    d = reference - log_probs.detach()
    torch.testing.assert_close(found.kl_BK[:, 0], torch.exp(d) - d - 1)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "is_clipped"),
    [(1.5, 1.0, -1.2, True), (1.5, -1.0, 1.5, False), (0.5, 1.0, -0.5, False), (0.5, -1.0, 0.8, True)],
)
def test_the_ratio_is_clipped_where_that_is_the_worse(ratio, advantage, expected, is_clipped):
    old = torch.tensor([[-1.0]])
    found = find_token_losses(old + np.log(ratio), old, old, torch.tensor([advantage]), 0.2, kl_coef=0.0)
    assert float(found.loss_BK) == pytest.approx(expected)
    assert bool(found.is_clipped_BK) is is_clipped


def test_questions_come_in_passes_over_all_and_from_any_place_the_same():
    whole = choose_questions(1, 2, 5, 0, 15)
    assert [sorted(whole[at : at + 5]) for at in (0, 5, 10)] == [list(range(5))] * 3
    assert whole[3:11] == choose_questions(1, 2, 5, 3, 8)
    assert whole[:5] != whole[5:10]
