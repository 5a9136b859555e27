"""Turns checked rows into tensors: target statistics, ages, tokens, pictures, and the batches of each epoch.

Order and augmentation are functions of (seed, fold, epoch, row) alone, never of what ran before: any epoch can be
built again, by any number of workers, with the same bits.

Shape suffixes: B rows, C channels, H height, W width, L text tokens, N encoded numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainers.clip_regression.config import Config
from trainers.clip_regression.numbers import NumberEncoder
from trainers.clip_regression.pictures import PICTURE_FORMATS
from trainers.clip_regression.table import SECONDS_PER_YEAR, Rows, parse_reference_date

NUM_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class TargetStatistics:
    """Mean and standard deviation of log1p(target) over the fold's training rows."""

    mu: float
    sigma: float

    @staticmethod
    def fit(target: np.ndarray) -> TargetStatistics:
        """From the training rows' targets, (n,). A constant target gets sigma 1."""
        logs = np.log1p(np.asarray(target, np.float64))
        return TargetStatistics(float(logs.mean()), float(logs.std()) or 1.0)

    def standardise(self, target: np.ndarray) -> np.ndarray:
        """z of targets."""
        return (np.log1p(np.asarray(target, np.float64)) - self.mu) / self.sigma

    def restore(self, z: np.ndarray) -> np.ndarray:
        """Targets of z, clipped at 0. Beyond exp(700) float64 ends; no prediction is let there."""
        return np.maximum(np.expm1(np.minimum(np.asarray(z, np.float64) * self.sigma + self.mu, 700.0)), 0.0)


@dataclass(frozen=True)
class Numbers:
    """How ages and other numbers become inputs; everything from the fold's training rows.

    Attributes:
        reference_s: unix seconds from which ages are counted; None: no dates.
        encoders: of the age (if there are dates) and of each numeric column.
    """

    reference_s: float | None
    encoders: tuple[NumberEncoder, ...]

    @staticmethod
    def fit(rows: Rows, config: Config) -> Numbers:
        """From the training rows."""
        reference = None
        if config.data.date_column:
            reference = parse_reference_date(config.data)
            reference = float(np.nanmax(rows.time)) if reference is None else reference
        values_BN = Numbers(reference, ()).collect(rows)
        bins = config.model.num_age_bins
        return Numbers(reference, tuple(NumberEncoder.fit(values_B, bins) for values_B in values_BN.T))

    def collect(self, rows: Rows) -> np.ndarray:
        """Age in years (if there are dates) and the numeric columns, (B, N) float64."""
        if self.reference_s is None:
            return rows.numbers
        return np.concatenate([age_in_years(rows.time, self.reference_s)[:, None], rows.numbers], axis=1)

    def encode(self, rows: Rows) -> np.ndarray:
        """The age head's input, (B, sum of the encoders' widths) float32."""
        values_BN = self.collect(rows)
        columns = [encoder.encode(values_BN[:, n]) for n, encoder in enumerate(self.encoders)]
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(rows), 0), np.float32)

    @property
    def width(self) -> int:
        """Columns of `encode`."""
        return sum(encoder.width for encoder in self.encoders)


def age_in_years(time_s: np.ndarray, reference_s: float) -> np.ndarray:
    """Years (of 365.2425 days) from `time_s` to `reference_s`, both in unix seconds; negative for later rows."""
    return (reference_s - time_s) / SECONDS_PER_YEAR


@dataclass
class Batch:
    """Rows of one forward pass on one rank; positions refer to the `RowTensors` they came from."""

    positions_B: np.ndarray
    images_BCHW: Tensor | None
    tokens_BL: Tensor | None
    numbers_BN: Tensor | None


def picture_bytes(preprocessing: dict[str, Any]) -> int:
    """Size of one decoded picture."""
    from open_clip.transform import PreprocessCfg

    return int(np.prod(PreprocessCfg(**preprocessing).input_size))


class PictureReader:
    """Decodes and resizes pictures as the encoder's own preprocessing does, up to its last two steps.

    Pictures are kept as uint8 and normalised on the device. `normalise(read(i))` equals open_clip's evaluation
    transform.

    Args:
        pictures: a path for each row, None for the mean colour.
        preprocessing: open_clip's preprocessing config of the encoder.
        keep: hold decoded pictures in memory instead of reading each whenever it is needed.
        on_unreadable: called with the row's position and the reason; may raise.
    """

    def __init__(
        self,
        pictures: list[Path | None],
        preprocessing: dict[str, Any],
        keep: bool,
        on_unreadable: Callable[[int, str], None],
    ) -> None:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        config = PreprocessCfg(**preprocessing)
        steps = image_transform_v2(config, is_train=False).transforms
        self.resize = [step for step in steps if type(step).__name__ not in ("ToTensor", "MaybeToTensor", "Normalize")]
        _, height, width = config.input_size
        self.mean_colour = np.round(255 * np.array(config.mean)).astype(np.uint8)[:, None, None]
        self.mean_colour = np.broadcast_to(self.mean_colour, (3, height, width))
        self.mean, self.std = torch.tensor(config.mean)[:, None, None], torch.tensor(config.std)[:, None, None]
        self.pictures, self.on_unreadable = pictures, on_unreadable
        self.cache = np.empty((len(pictures), *self.mean_colour.shape), np.uint8) if keep else None
        self.is_cached = np.zeros(len(pictures), bool)

    def read(self, position: int) -> np.ndarray:
        """The picture of one row, (C, H, W) uint8."""
        if self.cache is None:
            return self._decode(position)
        if not self.is_cached[position]:
            self.cache[position] = self._decode(position)
            self.is_cached[position] = True
        return self.cache[position]

    def _decode(self, position: int) -> np.ndarray:
        path = self.pictures[position]
        if path is None:
            return self.mean_colour
        try:
            with Image.open(path, formats=PICTURE_FORMATS) as file:
                picture = file.convert("RGB")
            for step in self.resize:
                picture = step(picture)
            return np.asarray(picture, np.uint8).transpose(2, 0, 1)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            self.on_unreadable(position, f"{path.name} cannot be decoded: {error}")
            self.pictures[position] = None
            return self.mean_colour

    def normalise(self, images_BCHW: Tensor) -> Tensor:
        """uint8 to the encoder's input, on the tensor's device."""
        mean, std = self.mean.to(images_BCHW.device), self.std.to(images_BCHW.device)
        return (images_BCHW.float().div_(255) - mean) / std


class RowTensors:
    """The inputs of one table's rows, ready to be cut into batches.

    Args:
        rows: checked rows.
        numbers: fitted on the training rows.
        config: the family's config.
        preprocessing: open_clip's preprocessing config of the encoder; used where there are pictures.
        tokenizer: open_clip's tokenizer of the encoder; None where there are no texts.
        num_threads: threads that decode pictures.
        keep_pictures: see `PictureReader`.
        on_unreadable: see `PictureReader`.
    """

    def __init__(
        self,
        rows: Rows,
        numbers: Numbers,
        config: Config,
        preprocessing: dict[str, Any],
        tokenizer: Callable[[list[str]], Tensor] | None,
        num_threads: int,
        keep_pictures: bool,
        on_unreadable: Callable[[int, str], None],
    ) -> None:
        self.rows, self.num_threads = rows, num_threads
        self.pictures = None
        if config.data.train_pictures:
            self.pictures = PictureReader(list(rows.pictures), preprocessing, keep_pictures, on_unreadable)
        self.tokens = tokenizer(rows.texts) if config.data.text_columns else None
        encoded = numbers.encode(rows)
        self.numbers = torch.from_numpy(encoded) if encoded.shape[1] else None

    def batches(self, positions: list[np.ndarray], augment: Augmentation | None = None) -> Iterator[Batch]:
        """The batches with these rows, decoded a few ahead of their use."""
        with ThreadPoolExecutor(self.num_threads) as pool:
            waiting: list[Any] = []
            for position_B in positions:
                waiting.append((position_B, self._start_reading(pool, position_B)))
                if len(waiting) > NUM_BATCHES_AHEAD:
                    yield self._finish(*waiting.pop(0), augment)
            for position_B, pictures in waiting:
                yield self._finish(position_B, pictures, augment)

    def to_device(self, batch: Batch, device: str) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """A batch as the model wants it: pictures, tokens, encoded numbers."""
        images = None if batch.images_BCHW is None else self.pictures.normalise(batch.images_BCHW.to(device))
        tokens = None if batch.tokens_BL is None else batch.tokens_BL.to(device)
        return images, tokens, None if batch.numbers_BN is None else batch.numbers_BN.to(device)

    def _start_reading(self, pool: ThreadPoolExecutor, position_B: np.ndarray) -> list[Any] | None:
        return None if self.pictures is None else [pool.submit(self.pictures.read, int(p)) for p in position_B]

    def _finish(self, position_B: np.ndarray, pictures: list[Any] | None, augment: Augmentation | None) -> Batch:
        images = None
        if pictures is not None:
            images = torch.from_numpy(np.stack([picture.result() for picture in pictures]))
        index = torch.from_numpy(position_B)
        tokens = None if self.tokens is None else self.tokens[index]
        if augment is not None:
            images = None if images is None else augment.flip(images, position_B)
            tokens = None if tokens is None else augment.drop_tokens(tokens, position_B)
        return Batch(position_B, images, tokens, None if self.numbers is None else self.numbers[index])


class Augmentation:
    """The random changes of one epoch, drawn for every training row at once so that batches cannot matter.

    Args:
        config: the family's config.
        fold, epoch: with `training.seed` the seed.
        num_rows: rows that may be asked for.
        num_tokens: text length L.
    """

    def __init__(self, config: Config, fold: int, epoch: int, num_rows: int, num_tokens: int) -> None:
        rng = np.random.default_rng([config.training.seed, fold, epoch, 1])
        self.flips = torch.from_numpy(rng.random(num_rows) < (0.5 if config.training.horizontal_flip else 0.0))
        share = config.model.token_dropout
        self.kept = torch.from_numpy(rng.random((num_rows, num_tokens)) >= share) if share else None

    def flip(self, images_BCHW: Tensor, position_B: np.ndarray) -> Tensor:
        """Mirrors half of the pictures left to right."""
        flip_B = self.flips[torch.from_numpy(position_B)]
        return torch.where(flip_B[:, None, None, None], images_BCHW.flip(3), images_BCHW)

    def drop_tokens(self, tokens_BL: Tensor, position_B: np.ndarray) -> Tensor:
        """Removes a share of the tokens and closes the gaps; first and last token of each text stay."""
        if self.kept is None:
            return tokens_BL
        last_B1 = tokens_BL.argmax(1, keepdim=True)  # CLIP's end token has the highest number
        place_1L = torch.arange(tokens_BL.shape[1])[None]
        keep_BL = self.kept[torch.from_numpy(position_B)] | (place_1L == 0) | (place_1L == last_B1)
        keep_BL = keep_BL & (tokens_BL != 0)
        order_BL = torch.argsort((~keep_BL).to(torch.uint8), dim=1, stable=True)
        return (tokens_BL * keep_BL).gather(1, order_BL)


def training_order(seed: int, fold: int, epoch: int, num_rows: int) -> np.ndarray:
    """The order of the training rows in an epoch, (num_rows,)."""
    return np.random.default_rng([seed, fold, epoch, 0]).permutation(num_rows)


def share_of_rank(batch: np.ndarray, rank: int, world_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a global batch that a rank computes, and the weight of each in the batch mean.

    A rank that would have none computes the batch's first row with weight 0, because all ranks must take part in
    every step.
    """
    mine = batch[rank::world_size]
    if len(mine) == 0:
        return batch[:1], np.zeros(1, np.float32)
    return mine, np.full(len(mine), 1 / len(batch), np.float32)


def cut(positions: np.ndarray, size: int) -> list[np.ndarray]:
    """Consecutive portions of at most `size`."""
    return [positions[start : start + size] for start in range(0, len(positions), size)]
