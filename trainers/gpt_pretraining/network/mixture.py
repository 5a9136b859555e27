"""Several models as one whose distributions need the whole vocabulary: the mean of the logarithms of probabilities.

Shape suffixes: B windows, T places, S all places, P some of them, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.gpt_pretraining.network.model import Gpt

_PLACES = 2048  # whose logits are in memory at the same time


class LogMean:
    """Of each token the geometric mean of the probabilities that the models give it, scaled so that those of all tokens
    add up to 1 (Hinton 2002, https://doi.org/10.1162/089976602760128018, a product of experts).

    Args:
        models: in evaluation mode, with one vocabulary.
    """

    def __init__(self, models: Sequence[Gpt]) -> None:
        self.models = models

    def __call__(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """The nats of each target, (B, T) float32; of one that counts nowhere anything."""
        hidden = [model.embed(tokens_BT).flatten(0, 1) for model in self.models]
        parts = zip(*(one_SD.split(_PLACES) for one_SD in hidden), targets_BT.flatten().split(_PLACES), strict=True)
        return torch.cat([self._find_nats(part[:-1], part[-1]) for part in parts]).view(targets_BT.shape)

    def _find_nats(self, hidden: Sequence[Tensor], targets_P: Tensor) -> Tensor:
        total_PV = torch.zeros(())
        for model, hidden_PD in zip(self.models, hidden, strict=True):
            total_PV = torch.log_softmax(model.find_logits(hidden_PD), 1) + total_PV.to(hidden_PD.device)
        mean_PV = total_PV / len(self.models)
        return torch.logsumexp(mean_PV, 1) - mean_PV.gather(1, targets_P.clamp(min=0)[:, None])[:, 0]
