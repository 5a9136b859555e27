"""The metrics that only this family records, for the list of all metrics."""

from __future__ import annotations

from trainers.families import BEST, END, EPOCH, STEP, Metrics

METRICS = (
    Metrics(
        "fold",
        STEP,
        {
            "fold_{i}/sft/train/loss_step": "fine-tuning: mean cross entropy of the responses' tokens",
            "fold_{i}/sft/train/grad_norm": "fine-tuning: norm of all gradients before it is limited",
            "fold_{i}/sft/learning_rate": "fine-tuning: of this step",
            "fold_{i}/grpo/train/loss_step": "GRPO: the loss; it is near 0 by construction, and no measure of progress",
            "fold_{i}/grpo/train/grad_norm": "GRPO: norm of all gradients before it is limited",
            "fold_{i}/grpo/learning_rate": "GRPO: of this step",
            "fold_{i}/grpo/reward": "GRPO: mean reward of the step's answers",
            "fold_{i}/grpo/reward_std": "GRPO: standard deviation of rewards in a group, mean over the groups",
            "fold_{i}/grpo/format_reward": "GRPO: mean reward of the form, before it is weighed",
            "fold_{i}/grpo/accuracy_reward": "GRPO: mean reward of right answers, before it is weighed",
            "fold_{i}/grpo/kl_divergence": "GRPO: from the reference (k3), mean over the answers' tokens",
            "fold_{i}/grpo/entropy": "GRPO: of the next token, mean over the answers' tokens, nats",
            "fold_{i}/grpo/clip_ratio": "GRPO: share of tokens whose ratio was clipped",
            "fold_{i}/grpo/frac_reward_zero_std": "GRPO: share of groups whose answers are all worth the same",
            "fold_{i}/grpo/completions/mean_length": "GRPO: tokens of an answer",
            "fold_{i}/grpo/completions/max_length": "GRPO: of the longest answer",
            "fold_{i}/grpo/completions/clipped_ratio": "GRPO: share of answers that were cut",
        },
    ),
    Metrics(
        "fold",
        EPOCH,
        {
            "fold_{i}/sft/val/loss_epoch": "fine-tuning: mean cross entropy of the held-out responses' tokens",
            "fold_{i}/grpo/val/reward": "GRPO: reward of the likeliest answers to held-out questions, by rule",
            "fold_{i}/grpo/val/format_reward": "GRPO: its part for the form",
            "fold_{i}/grpo/val/accuracy_reward": "GRPO: its part for right answers",
            "fold_{i}/grpo/val/format_accuracy": "GRPO: share of these answers in the whole form",
            "fold_{i}/grpo/val/answer_accuracy": "GRPO: share of these answers that are right",
        },
    ),
    Metrics(
        "fold",
        BEST,
        {
            "fold_{i}/grpo/best_step": "step with the best validation reward",
            "fold_{i}/grpo/best_reward": "that reward",
        },
    ),
    Metrics(
        "fold",
        END,
        {
            "fold_{i}/base_model/format_accuracy": "share of held-out questions answered in the whole form by the base",
            "fold_{i}/base_model/answer_accuracy": "share answered right by the base",
            "fold_{i}/sft_only/format_accuracy": "likewise by the supervised stage's model",
            "fold_{i}/sft_only/answer_accuracy": "likewise by the supervised stage's model",
            "fold_{i}/sft_grpo/format_accuracy": "likewise by GRPO's model",
            "fold_{i}/sft_grpo/answer_accuracy": "likewise by GRPO's model",
            "fold_{i}/sft_grpo/sampled_answer_accuracy": "share of its samples that are right",
            "fold_{i}/judge_failures": "answers that the judge did not judge (only with one)",
        },
    ),
)
