"""Turns checked rows into tensors: ages, tokens, pictures, and the batches of each epoch.

Order and augmentation are functions of (seed, fold, epoch, row) alone, never of what ran before: any epoch can be
built again, by any number of workers, with the same bits.

Shape suffixes: B rows, C channels, H height, W width, L text tokens, N encoded numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trainers.clip_regression.config import Config
from trainers.clip_regression.inputs.numbers import NumberEncoder
from trainers.clip_regression.rows.cells import parse_reference_date
from trainers.clip_regression.rows.table import SECONDS_PER_YEAR, Rows
from trainers.storage.row_blocks import RowBlocks

if TYPE_CHECKING:
    from trainers.clip_regression.inputs.picture_reader import PictureReader

NUM_BATCHES_AHEAD = 2
PORTION = 4096  # rows whose large intermediate values are in memory at once


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
    """Rows of one forward pass on one rank; positions refer to the `RowTensors` or `RowFeatures` they came from."""

    positions_B: np.ndarray
    images_BCHW: Tensor | None
    tokens_BL: Tensor | None
    numbers_BN: Tensor | None
    features: dict[str, Tensor] | None = None


class RowTensors:
    """The inputs of one table's rows, ready to be cut into batches.

    Args:
        rows: checked rows.
        numbers: fitted on the training rows.
        config: the family's config.
        reader: of the pictures, if there are any.
        tokenizer: open_clip's tokenizer of the encoder, if there are texts.
        num_threads: threads that decode pictures.
        on_unreadable: called with a row's position and what is wrong with its picture; may raise.
        decoded: all decoded pictures of a table, and where each of the rows is among them; None: they are decoded
            whenever needed.
    """

    def __init__(
        self,
        rows: Rows,
        numbers: Numbers,
        config: Config,
        reader: PictureReader | None,
        tokenizer: Callable[[list[str]], Tensor] | None,
        num_threads: int,
        on_unreadable: Callable[[int, str], None],
        decoded: tuple[RowBlocks, np.ndarray] | None = None,
    ) -> None:
        self.rows, self.num_threads, self.on_unreadable = rows, num_threads, on_unreadable
        self.reader, self.decoded = reader, decoded
        self.tokens: Tensor | None = None
        if config.data.text_columns:
            assert tokenizer is not None
            self.tokens = _tokenise(tokenizer, rows.texts)
        self.numbers = _to_tensor(numbers.encode(rows))
        if decoded is not None:
            _note_problems(*decoded, on_unreadable)

    def batches(self, positions: list[np.ndarray], augment: Augmentation | None = None) -> Iterator[Batch]:
        """The batches with these rows, read a few ahead of their use."""
        with ThreadPoolExecutor(self.num_threads) as pool:
            waiting: list[tuple[np.ndarray, list[Any]]] = []
            for position_B in positions:
                waiting.append((position_B, self._start_reading(pool, position_B)))
                if len(waiting) > NUM_BATCHES_AHEAD:
                    yield self._finish(*waiting.pop(0), augment)
            for position_B, pictures in waiting:
                yield self._finish(position_B, pictures, augment)

    def to_device(self, batch: Batch, device: str) -> tuple[Tensor | None, ...]:
        """A batch as the model wants it: pictures, tokens, encoded numbers."""
        images = _move(batch.images_BCHW, device)
        if images is not None:
            assert self.reader is not None
            images = self.reader.normalise(images)
        return images, _move(batch.tokens_BL, device), _move(batch.numbers_BN, device)

    def _start_reading(self, pool: ThreadPoolExecutor, position_B: np.ndarray) -> list[Any]:
        """One job for pictures that are decoded already, else one for each."""
        if self.reader is None:
            return []
        if self.decoded is None:
            return [pool.submit(self._read, int(position)) for position in position_B]
        blocks, place_N = self.decoded
        return [pool.submit(blocks.take, place_N[position_B])]

    def _read(self, position: int) -> np.ndarray:
        assert self.reader is not None
        picture, problem = self.reader.read(self.rows.pictures[position])
        if problem is not None:
            self.on_unreadable(position, problem)
            self.rows.pictures[position] = None  # said once
        return picture

    def _finish(self, position_B: np.ndarray, reading: list[Any], augment: Augmentation | None) -> Batch:
        images = None
        if self.reader is not None:
            pictures = [job.result() for job in reading]
            images = torch.from_numpy(np.stack(pictures) if self.decoded is None else pictures[0])
        index = torch.from_numpy(position_B)
        tokens = None if self.tokens is None else self.tokens[index].long()
        if augment is not None:
            images = None if images is None else augment.flip(images, position_B)
            tokens = None if tokens is None else augment.drop_tokens(tokens, position_B)
        return Batch(position_B, images, tokens, None if self.numbers is None else self.numbers[index])


class RowFeatures:
    """As `RowTensors`, for rows whose pictures and texts a frozen encoder has encoded before, or that have none.

    Args:
        rows: checked rows.
        numbers: fitted on the training rows.
        features: of the table, by modality: one store for each version of a row, the plain one first; empty: numbers
            alone.
        place_N: where each of the rows is in the table.
        on_unreadable: see `RowTensors`.
    """

    tokens = None

    def __init__(
        self,
        rows: Rows,
        numbers: Numbers,
        features: dict[str, list[RowBlocks]],
        place_N: np.ndarray,
        on_unreadable: Callable[[int, str], None],
    ) -> None:
        self.rows, self.features, self.place_N = rows, features, place_N
        self.numbers = _to_tensor(numbers.encode(rows))
        if "image" in features:
            _note_problems(features["image"][0], place_N, on_unreadable)

    def batches(self, positions: list[np.ndarray], augment: Augmentation | None = None) -> Iterator[Batch]:
        """The batches with these rows, read a few ahead of their use: what is not in memory comes from the storage."""
        with ThreadPoolExecutor(1) as pool:
            waiting: list[Any] = []
            for position_B in positions:
                waiting.append(pool.submit(self._collect, position_B, augment))
                if len(waiting) > NUM_BATCHES_AHEAD:
                    yield waiting.pop(0).result()
            for batch in waiting:
                yield batch.result()

    def to_device(self, batch: Batch, device: str) -> tuple[Any, ...]:
        """A batch as the model wants it: no picture, no tokens, encoded numbers, features."""
        assert batch.features is not None
        features = {modality: _move(values_BD, device) for modality, values_BD in batch.features.items()}
        return None, None, _move(batch.numbers_BN, device), features

    def _collect(self, position_B: np.ndarray, augment: Augmentation | None) -> Batch:
        features = {}
        for modality, versions in self.features.items():
            version_B = np.zeros(len(position_B), int)
            if augment is not None:
                version_B = augment.choose_version(modality, len(versions), position_B)
            values_BD = versions[0].take(self.place_N[position_B])
            for version in range(1, len(versions)):
                is_it_B = version_B == version
                values_BD[is_it_B] = versions[version].take(self.place_N[position_B[is_it_B]])
            features[modality] = torch.from_numpy(values_BD)
        numbers = None if self.numbers is None else self.numbers[torch.from_numpy(position_B)]
        return Batch(position_B, None, None, numbers, features)


def _tokenise(tokenizer: Callable[[list[str]], Tensor], texts: list[str]) -> Tensor:
    """(N, L) int32. A portion at a time: of long texts tokenizers hold all tokens before they cut them."""
    return torch.cat(
        [tokenizer(texts[start : start + PORTION]).int() for start in range(0, max(1, len(texts)), PORTION)]
    )


def _to_tensor(encoded_BN: np.ndarray) -> Tensor | None:
    return torch.from_numpy(encoded_BN) if encoded_BN.shape[1] else None


def _note_problems(blocks: RowBlocks, place_N: np.ndarray, note: Callable[[int, str], None]) -> None:
    """Tells of the rows among these whose picture could not be decoded."""
    for position in np.flatnonzero(np.isin(place_N, list(blocks.problems))):
        note(int(position), f"its picture {blocks.problems[int(place_N[position])]}")


def _move(tensor: Tensor | None, device: str) -> Tensor | None:
    """To the device; to a GPU from pinned memory, so that the copy runs beside the computation."""
    if tensor is None or not device.startswith("cuda"):
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


class Augmentation:
    """The random changes of one epoch, drawn for every training row at once so that batches cannot matter.

    Args:
        config: the family's config.
        fold, epoch: with `training.seed` the seed.
        num_rows: rows that may be asked for.
        num_tokens: text length L; 0 where there are no tokens.
    """

    def __init__(self, config: Config, fold: int, epoch: int, num_rows: int, num_tokens: int) -> None:
        seed = [config.training.seed, fold, epoch]
        self.draws = np.random.default_rng([*seed, 2]).random(num_rows)
        rng = np.random.default_rng([*seed, 1])
        self.flips = torch.from_numpy(rng.random(num_rows) < (0.5 if config.training.horizontal_flip else 0.0))
        share = config.model.token_dropout
        self.kept = None
        if share and num_tokens:
            kept_NL = np.empty((num_rows, num_tokens), bool)
            for start in range(0, num_rows, PORTION):
                part_NL = kept_NL[start : start + PORTION]
                part_NL[:] = rng.random(part_NL.shape) >= share
            self.kept = torch.from_numpy(kept_NL)

    def choose_version(self, modality: str, num_versions: int, position_B: np.ndarray) -> np.ndarray:
        """Which of the versions of a row that were encoded stands for it, (B,): of a picture the mirrored one where it
        is flipped, of a text any but the plain one, if there are others."""
        if num_versions == 1:
            return np.zeros(len(position_B), int)
        if modality == "image":
            return self.flips[torch.from_numpy(position_B)].numpy().astype(int)
        drawn_B: np.ndarray = (self.draws[position_B] * (num_versions - 1)).astype(int)
        return 1 + drawn_B

    def flip(self, images_BCHW: Tensor, position_B: np.ndarray) -> Tensor:
        """Mirrors half of the pictures left to right."""
        flip_B = self.flips[torch.from_numpy(position_B)]
        return torch.where(flip_B[:, None, None, None], images_BCHW.flip(3), images_BCHW)

    def drop_tokens(self, tokens_BL: Tensor, position_B: np.ndarray) -> Tensor:
        """Removes a share of the tokens."""
        return tokens_BL if self.kept is None else drop_tokens(tokens_BL, self.kept[torch.from_numpy(position_B)])


def drop_tokens(tokens_BL: Tensor, kept_BL: Tensor) -> Tensor:
    """Removes the tokens that are not kept and closes the gaps; first and last token of each text stay."""
    last_B1 = tokens_BL.argmax(1, keepdim=True)  # CLIP's end token has the highest number
    place_1L = torch.arange(tokens_BL.shape[1])[None]
    keep_BL = kept_BL | (place_1L == 0) | (place_1L == last_B1)
    keep_BL = keep_BL & (tokens_BL != 0)
    order_BL = torch.argsort((~keep_BL).to(torch.uint8), dim=1, stable=True)
    return (tokens_BL * keep_BL).gather(1, order_BL)
