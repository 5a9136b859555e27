"""The answers from which GRPO learns for some steps: drawn together, marked, and kept with the point from which a fold
goes on.

Shape suffixes: B answers of a generation, K tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from trainers.learning.batches import training_order


def choose_questions(seed: int, fold: int, num_rows: int, first: int, number: int) -> list[int]:
    """Numbers of the questions from a place on in an endless row of passes over all of them, each in an order of its
    own."""
    chosen: list[int] = []
    for place in range(first, first + number):
        epoch, at = divmod(place, num_rows)
        if not chosen or at == 0:
            order = training_order(seed, fold, epoch, num_rows)
        chosen.append(int(order[at]))
    return chosen


@dataclass(frozen=True)
class Rollouts:
    """Answers of one generation, of all ranks.

    Attributes:
        tokens_BK: filled up with -1.
        format_B, accuracy_B: rewards before they are weighed.
        reward_B: their weighted sum.
        advantage_B: what an answer is worth beside the others of its group.
        is_cut_B: 1 where an answer did not come to its end.
        old_BK: log-probabilities of the policy that has answered.
        reference_BK: of the reference.
    """

    tokens_BK: Tensor
    format_B: Tensor
    accuracy_B: Tensor
    reward_B: Tensor
    advantage_B: Tensor
    is_cut_B: Tensor
    old_BK: Tensor
    reference_BK: Tensor

    def list_answers(self, rows: Sequence[int]) -> list[list[int]]:
        """The tokens of some answers."""
        return [[one for one in row if one >= 0] for row in self.tokens_BK[list(rows)].tolist()]

    def pack(self) -> dict[str, Tensor]:
        """All of it, by name."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor]) -> Rollouts:
        """What `pack` gave."""
        return cls(**{part.name: tensors[part.name] for part in fields(cls)})


def to_block(answers: Sequence[Sequence[int]]) -> Tensor:
    """Tokens of answers as one block, (B, K) int64, filled up with -1."""
    block_BK = torch.full((len(answers), max(1, *map(len, answers))), -1, dtype=torch.long)
    for row, answer in enumerate(answers):
        block_BK[row, : len(answer)] = torch.tensor(answer, dtype=torch.long)
    return block_BK


def to_float_block(rows: Sequence[np.ndarray], width: int) -> Tensor:
    """Values of each answer's tokens as one block, (B, K) float32, filled up with 0."""
    block_BK = torch.zeros(len(rows), width)
    for row, values in enumerate(rows):
        block_BK[row, : len(values)] = torch.from_numpy(np.asarray(values, np.float32))
    return block_BK
