"""What GRPO rewards: the form of a completion, and whether its answer is right. No torch, no network."""

from __future__ import annotations

import re
from dataclasses import dataclass

from trainers.llm_finetuning.scoring.answers import Gold, is_correct

_BODY = r"(?:(?!</?think>|</?answer>).)*"
_WHOLE = re.compile(rf"\s*<think>{_BODY}</think>\s*<answer>{_BODY}</answer>\s*", re.DOTALL)
_ANSWER = re.compile(rf"<answer>{_BODY}</answer>", re.DOTALL)


@dataclass(frozen=True)
class Reward:
    """Of one completion.

    Attributes:
        format_score: 1, 1/2 or 0.
        accuracy: 1 or 0, or a judge's score between.
    """

    format_score: float
    accuracy: float

    def total(self, format_weight: float, accuracy_weight: float) -> float:
        """The weighted sum."""
        return format_weight * self.format_score + accuracy_weight * self.accuracy


def score_format(text: str) -> float:
    r"""1: one `<think>…</think>` and one `<answer>…</answer>` and nothing else; 1/2: an answer tag, without that; 0: no
    answer tag. `\boxed{}` marks an answer, but does not count here."""
    if _WHOLE.fullmatch(text):
        return 1.0
    return 0.5 if _ANSWER.search(text) else 0.0


def score_completion(text: str, gold: Gold) -> Reward:
    """Both scores by rule."""
    return Reward(score_format(text), float(is_correct(text, gold)))
