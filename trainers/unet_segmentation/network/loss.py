"""What is minimised, in one way for any number of classes.

    Dice   = 1 - mean over the classes but the background of (2·Σ p·t + s) / (Σ p + Σ t + s)
    CE     = mean over the pixels of w(t) · -log p(t)           w = 1 for the background
    loss   = d · Dice + (1 - d) · CE

p is the predicted probability of a class and t whether the pixel is of it; sums go over all pixels of the batch that
count. With two classes there is one logit, p its sigmoid, and CE the binary cross entropy with a positive weight.

Sums are over the batch of all ranks together, so that several workers learn what one would.

Shape suffixes: B pictures, C channels of the logits, K classes but the background, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainers.unet_segmentation.config import LossConfig

IGNORED = 255  # a mask's value where a pixel counts nowhere


@dataclass
class Sums:
    """What a loss is made of, added up over pixels.

    Attributes:
        shared_K, predicted_K, true_K: Σ p·t, Σ p and Σ t.
        entropy: weighted cross entropy.
        num_pixels: that count.
    """

    shared_K: Tensor
    predicted_K: Tensor
    true_K: Tensor
    entropy: Tensor
    num_pixels: Tensor

    def stack(self) -> Tensor:
        """All of them, (3·K + 2,)."""
        return torch.cat([self.shared_K, self.predicted_K, self.true_K, torch.stack([self.entropy, self.num_pixels])])

    @staticmethod
    def unstack(values: Tensor) -> Sums:
        """The opposite of `stack`."""
        shared_K, predicted_K, true_K = values[:-2].chunk(3)
        return Sums(shared_K, predicted_K, true_K, values[-2], values[-1])


def add_up(logits_BCHW: Tensor, mask_BHW: Tensor, weight_K: Tensor) -> Sums:
    """The sums of some pictures.

    Args:
        logits_BCHW: float32.
        mask_BHW: class numbers; IGNORED counts nowhere.
        weight_K: of each class but the background in the cross entropy.
    """
    counts_BHW = mask_BHW != IGNORED
    mask_BHW = torch.where(counts_BHW, mask_BHW, 0).long()
    counts_BHW = counts_BHW.to(logits_BCHW.dtype)
    if logits_BCHW.shape[1] == 1:
        true_BKHW = mask_BHW[:, None].to(logits_BCHW.dtype)
        probability_BKHW = torch.sigmoid(logits_BCHW)
        entropy_BHW = functional.binary_cross_entropy_with_logits(
            logits_BCHW[:, 0], true_BKHW[:, 0], pos_weight=weight_K, reduction="none"
        )
    else:
        one_hot = functional.one_hot(mask_BHW, logits_BCHW.shape[1]).movedim(-1, 1).to(logits_BCHW.dtype)
        true_BKHW, probability_BKHW = one_hot[:, 1:], torch.softmax(logits_BCHW, 1)[:, 1:]
        weight_C = torch.cat([weight_K.new_ones(1), weight_K])
        entropy_BHW = functional.cross_entropy(logits_BCHW, mask_BHW, weight=weight_C, reduction="none")
    true_BKHW, probability_BKHW = true_BKHW * counts_BHW[:, None], probability_BKHW * counts_BHW[:, None]
    return Sums(
        (probability_BKHW * true_BKHW).sum((0, 2, 3)),
        probability_BKHW.sum((0, 2, 3)),
        true_BKHW.sum((0, 2, 3)),
        (entropy_BHW * counts_BHW).sum(),
        counts_BHW.sum(),
    )


def finish(loss: LossConfig, sums: Sums) -> Tensor:
    """The loss of what was added up, a scalar."""
    fraction_K = (2 * sums.shared_K + loss.smooth) / (sums.predicted_K + sums.true_K + loss.smooth)
    entropy = sums.entropy / sums.num_pixels.clamp_min(1)
    return loss.dice_share * (1 - fraction_K.mean()) + (1 - loss.dice_share) * entropy


def batch_loss(
    loss: LossConfig,
    logits_BCHW: Tensor,
    mask_BHW: Tensor,
    weight_K: Tensor,
    sum_over_ranks: Callable[[Tensor], Tensor],
) -> Tensor:
    """The loss of the whole batch, the same on every rank; the gradients of all ranks add up to its gradient.

    Args:
        loss: which loss.
        logits_BCHW: this rank's, float32.
        mask_BHW: class numbers; all IGNORED where the rank has no picture of this batch.
        weight_K: of each class but the background.
        sum_over_ranks: adds a detached tensor over the ranks.
    """
    own = add_up(logits_BCHW, mask_BHW, weight_K).stack()
    others = sum_over_ranks(own.detach().clone()) - own.detach()
    return finish(loss, Sums.unstack(own + others))
