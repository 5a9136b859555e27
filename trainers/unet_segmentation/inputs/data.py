"""Turns checked pictures into tensors: decoding ahead of their use, normalisation, squares, and the random changes of
each epoch.

The changes of a picture are a function of (seed, fold, epoch, row) alone, so any epoch can be built again by any number
of workers and threads, with the same bits.

Shape suffixes: B pictures, C channels, H height, W width, S side of a square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainers.unet_segmentation.config import Config, DataConfig, TrainingConfig
from trainers.unet_segmentation.network.loss import IGNORED
from trainers.unet_segmentation.rows.pictures import scaled_size
from trainers.unet_segmentation.rows.rows_file import Rows, read_mask, read_picture

NUM_AHEAD = 2  # batches, or pictures, that are read before they are wanted


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel over the fold's training pictures, on the scale from 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @staticmethod
    def fit(rows: Rows) -> Normalisation:
        """From the training pictures. A channel that is constant gets standard deviation 1."""
        num_pixels = float((rows.height * rows.width).sum())
        mean_C = rows.sums_NC.sum(0) / num_pixels
        variance_C = np.maximum(0, rows.squares_NC.sum(0) / num_pixels - mean_C**2)
        std_C = [math.sqrt(value) if value > 1e-12 else 1.0 for value in variance_C.tolist()]
        return Normalisation(tuple(mean_C.tolist()), tuple(std_C))

    def apply(self, picture_CHW: np.ndarray) -> Tensor:
        """A picture as the model wants it, float32."""
        values = torch.from_numpy(picture_CHW.astype(np.float32) / np.iinfo(picture_CHW.dtype).max)
        return (values - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]


@dataclass(frozen=True)
class Example:
    """A picture, (C, H, W), and its mask, (H, W) uint8, at the scale that is trained on; the mask may be missing."""

    row: int
    picture_CHW: np.ndarray
    mask_HW: np.ndarray | None


class Examples:
    """The pictures of one table, read by threads ahead of their use.

    Args:
        rows: of the table.
        config: of the family.
        num_threads: that read.
        retry_while_unavailable: reads again while the storage is the cause that it fails.
    """

    def __init__(
        self,
        rows: Rows,
        config: Config,
        num_threads: int,
        retry_while_unavailable: Callable[[str, Callable[[], Any]], Any],
    ) -> None:
        self.rows, self.data, self.num_threads, self.retry_while_unavailable = (
            rows,
            config.data,
            num_threads,
            retry_while_unavailable,
        )
        sizes = [scaled_size(h, w, config.data) for h, w in zip(rows.height.tolist(), rows.width.tolist(), strict=True)]
        num_bytes = sum(height * width * (config.data.channels + 1) for height, width in sizes)
        self.keeps = num_bytes <= config.training.picture_cache_gib * 2**30
        self.kept: dict[int, Example] = {}

    def read(self, positions: np.ndarray) -> Iterator[Example]:
        """These pictures, in this order."""
        with ThreadPoolExecutor(self.num_threads) as pool:
            waiting: list[tuple[int, Future[Example]]] = []
            for row in positions.tolist():
                waiting.append((row, pool.submit(self.read_one, row)))
                if len(waiting) > NUM_AHEAD:
                    yield self._take(*waiting.pop(0))
            for row, job in waiting:
                yield self._take(row, job)

    def batches(
        self, portions: list[np.ndarray], make: Callable[[Example], tuple[Tensor, Tensor]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Squares and their masks, (B, C, S, S) and (B, S, S), of each portion of positions; `make` turns an example
        into them."""
        with ThreadPoolExecutor(self.num_threads) as pool:
            waiting: list[list[tuple[int, Future[tuple[Tensor, Tensor]]]]] = []

            def start(portion: np.ndarray) -> list[tuple[int, Future[tuple[Tensor, Tensor]]]]:
                return [(row, pool.submit(lambda row: make(self.read_one(row)), row)) for row in portion.tolist()]

            def finish(jobs: list[tuple[int, Future[tuple[Tensor, Tensor]]]]) -> tuple[Tensor, Tensor]:
                made = [self._take(row, job, make) for row, job in jobs]
                return torch.stack([picture for picture, _ in made]), torch.stack([mask for _, mask in made])

            for portion in portions:
                waiting.append(start(portion))
                if len(waiting) > NUM_AHEAD:
                    yield finish(waiting.pop(0))
            for jobs in waiting:
                yield finish(jobs)

    def read_one(self, row: int) -> Example:
        """A picture from memory or from its file.

        Raises:
            OSError, DataError: as `read_picture`.
        """
        if row in self.kept:
            return self.kept[row]
        example = Example(
            row, read_picture(self.rows, row, self.data), read_mask(self.rows, row, self.data, scaled=True)
        )
        if self.keeps:
            self.kept[row] = example
        return example

    def _take(self, row: int, job: Future[Any], make: Callable[[Example], Any] = lambda example: example) -> Any:
        try:
            return job.result()
        except OSError:  # the storage's: patience belongs to the main thread, which the others wait for
            return make(self.retry_while_unavailable("reading pictures", partial(self.read_one, row)))


class Augmentation:
    """The random changes of one epoch, drawn for every training picture at once so that batches cannot matter.

    Args:
        data, training: of the config.
        normalisation: of the fold.
        fold, epoch: with `training.seed` the seed.
        num_rows: of the table.
    """

    def __init__(
        self,
        data: DataConfig,
        training: TrainingConfig,
        normalisation: Normalisation,
        fold: int,
        epoch: int,
        num_rows: int,
    ) -> None:
        rng = np.random.default_rng([training.seed, fold, epoch, 1])
        draws = rng.random((5, num_rows))
        self.side, self.normalisation = data.size, normalisation
        self.mirrors = draws[0] < (0.5 if training.horizontal_flip else 0.0)
        self.overturns = draws[1] < (0.5 if training.vertical_flip else 0.0)
        self.degrees = (2 * draws[2] - 1) * training.max_rotation
        self.places = draws[3:5]

    def __call__(self, example: Example) -> tuple[Tensor, Tensor]:
        """The square of a picture and its mask, (C, S, S) float32 and (S, S) uint8, changed alike."""
        row = example.row
        assert example.mask_HW is not None, "what is trained on has a mask"
        picture, mask = self._cut_or_pad(self.normalisation.apply(example.picture_CHW), example.mask_HW, row)
        axes = [axis for axis, flips in ((-1, self.mirrors), (-2, self.overturns)) if flips[row]]
        if axes:
            picture, mask = picture.flip(axes), mask.flip(axes)
        if self.degrees[row]:
            picture, mask = rotate(picture, mask, float(self.degrees[row]))
        return picture, mask

    def _cut_or_pad(self, picture: Tensor, mask_HW: np.ndarray, row: int) -> tuple[Tensor, Tensor]:
        """A square of the picture: at a drawn place where it is larger, in the middle of nothing where it is
        smaller."""
        side, (height, width) = self.side, mask_HW.shape
        top, left = (
            int(place * (max(0, length - side) + 1))
            for place, length in zip(self.places[:, row], (height, width), strict=True)
        )
        picture, mask = (
            picture[:, top : top + side, left : left + side],
            torch.from_numpy(mask_HW[top : top + side, left : left + side].copy()),
        )
        lack_H, lack_W = side - mask.shape[0], side - mask.shape[1]
        edges = (lack_W // 2, lack_W - lack_W // 2, lack_H // 2, lack_H - lack_H // 2)
        return functional.pad(picture, edges), functional.pad(mask, edges, value=IGNORED)


def rotate(picture_CSS: Tensor, mask_SS: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """Both turned about the middle; what comes in from outside is 0 in the picture and IGNORED in the mask."""
    angle = math.radians(degrees)
    matrix = torch.tensor([[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]])
    grid = functional.affine_grid(matrix[None], [1, 1, *mask_SS.shape], align_corners=False)
    turned = functional.grid_sample(picture_CSS[None], grid, mode="bilinear", align_corners=False)[0]
    above_0 = mask_SS[None, None].float() + 1  # outside there are zeros
    mask = functional.grid_sample(above_0, grid, mode="nearest", align_corners=False)[0, 0] - 1
    return turned, torch.where(mask < 0, float(IGNORED), mask).to(torch.uint8)
