"""What a U-Net says of a whole picture, and how well it fits the mask.

A picture is predicted by itself, so that its bits do not depend on others. One that is larger than the squares that
were trained on is predicted in squares that overlap by a quarter; where they do, the one whose middle is nearer counts
more.

Shape suffixes: C channels, K classes but the background, H height, W width, S side of a square, N squares.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.learning.arithmetic import autocast
from trainers.unet_segmentation.config import Config
from trainers.unet_segmentation.network.loss import IGNORED

_OVERLAP = 0.25


def predict_logits(model: nn.Module, picture_CHW: Tensor, config: Config, precision: torch.dtype) -> Tensor:
    """Logits of a normalised picture, (C, H, W) float32, on its device."""
    height, width = picture_CHW.shape[1:]
    side, device = config.data.size, picture_CHW.device.type
    if max(height, width) <= side or config.data.scaling == "fit":
        with autocast(device, precision):
            logits_BCHW: Tensor = model(picture_CHW[None])
            return logits_BCHW[0].float()
    places = [(top, left) for top in list_starts(height, side) for left in list_starts(width, side)]
    tall, wide = min(side, height), min(side, width)
    weight_SS = _weigh(tall, picture_CHW)[:, None] * _weigh(wide, picture_CHW)[None]
    total_CHW: Tensor | None = None
    weights_HW = picture_CHW.new_zeros(height, width)
    for start in range(0, len(places), config.training.eval_batch_size):
        portion = places[start : start + config.training.eval_batch_size]
        squares = torch.stack([picture_CHW[:, top : top + tall, left : left + wide] for top, left in portion])
        with autocast(device, precision):
            logits_NCSS = model(squares).float()
        if total_CHW is None:
            total_CHW = logits_NCSS.new_zeros(logits_NCSS.shape[1], height, width)
        for (top, left), logits_CSS in zip(portion, logits_NCSS, strict=True):
            total_CHW[:, top : top + tall, left : left + wide] += logits_CSS * weight_SS
            weights_HW[top : top + tall, left : left + wide] += weight_SS
    assert total_CHW is not None
    return total_CHW / weights_HW


def list_starts(length: int, side: int) -> list[int]:
    """Where the squares begin along one side: evenly, the last at the end, overlapping by a quarter at least."""
    if length <= side:
        return [0]
    number = 1 + math.ceil((length - side) / (side * (1 - _OVERLAP)))
    return [round(place * (length - side) / (number - 1)) for place in range(number)]


def _weigh(length: int, like: Tensor) -> Tensor:
    """Weights along one side of a square: 1 at an edge, rising to the middle."""
    places = torch.arange(length, device=like.device, dtype=torch.float32)
    return 1 + torch.minimum(places, length - 1 - places)


def enlarge(probability_CHW: Tensor, height: int, width: int) -> Tensor:
    """Probabilities at the size of the picture's file."""
    if probability_CHW.shape[1:] == (height, width):
        return probability_CHW
    return functional.interpolate(probability_CHW[None], (height, width), mode="bilinear", align_corners=False)[0]


def count_pixels(logits_CHW: Tensor, mask_HW: Tensor) -> Tensor:
    """(3, K) int64: of each class but the background the pixels that are rightly said to be of it, that are said to be,
    and that are."""
    num_classes = max(2, logits_CHW.shape[0])
    predicted_HW = (logits_CHW[0] >= 0).long() if logits_CHW.shape[0] == 1 else logits_CHW.argmax(0)
    counts_HW = mask_HW != IGNORED
    said, true = predicted_HW[counts_HW], mask_HW[counts_HW].long()
    sizes = [torch.bincount(values, minlength=num_classes)[1:] for values in (said[said == true], said, true)]
    return torch.stack(sizes)


def measure_dice(counts_3K: Tensor) -> Tensor:
    """2 · right / (said + true) of each class, (K,) float64; NaN where a class is nowhere, in truth or prediction."""
    right_K, predicted_K, true_K = counts_3K.double()
    dice_K: Tensor = 2 * right_K / (predicted_K + true_K)
    return dice_K


def measure_iou(counts_3K: Tensor) -> Tensor:
    """right / (said or true) of each class, (K,) float64; NaN where a class is nowhere."""
    right_K, predicted_K, true_K = counts_3K.double()
    iou_K: Tensor = right_K / (predicted_K + true_K - right_K)
    return iou_K


def average(values_K: Tensor) -> float:
    """The mean over the classes that are somewhere; 1 where none is, for then everything is right."""
    known = values_K[~values_K.isnan()]
    return float(known.mean()) if len(known) else 1.0
