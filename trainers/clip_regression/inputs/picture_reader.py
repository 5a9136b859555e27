"""Decodes pictures as the encoder wants them, and keeps decoded ones for all folds, epochs and runs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.clip_regression.network.clip_library import open_clip
from trainers.clip_regression.rows.rows_file import RowsFile, read_checked
from trainers.interface import FoldContext, Split
from trainers.reading.picture_rules import PictureRules
from trainers.reading.pictures import UnusableError, decode_rgb
from trainers.storage.remote_files import RemoteFile
from trainers.storage.row_blocks import Part, RowBlocks, count_away, fill, place_remotely

_WAY_OF_DECODING = 2  # to be raised with each change of this file that changes a bit of a picture
_DECODED_BY = ("pillow", "torchvision", "open_clip_torch")


class PictureReader:
    """Decodes and resizes pictures as the encoder's own preprocessing does, up to its last two steps.

    Pictures are kept as uint8 and normalised on the device. `normalise(read(path))` equals open_clip's evaluation
    transform.

    Args:
        preprocessing: open_clip's preprocessing config of the encoder.
        rules: what files of pictures do not say.
    """

    def __init__(self, preprocessing: dict[str, Any], rules: PictureRules | None = None) -> None:
        self.rules = rules or PictureRules()
        config = open_clip.transform.PreprocessCfg(**preprocessing)
        steps = open_clip.transform.image_transform_v2(config, is_train=False).transforms
        self.resize = [step for step in steps if type(step).__name__ not in ("ToTensor", "MaybeToTensor", "Normalize")]
        self.shape = tuple(config.input_size)
        self.mean_colour = np.round(255 * np.array(config.mean)).astype(np.uint8)[:, None, None]
        self.mean_colour = np.broadcast_to(self.mean_colour, self.shape)
        self.mean, self.std = torch.tensor(config.mean)[:, None, None], torch.tensor(config.std)[:, None, None]

    def read(self, path: Path | RemoteFile | None) -> tuple[np.ndarray, str | None]:
        """A picture, (C, H, W) uint8, and None; or the mean colour and, if there is a picture, what is wrong with it.

        Raises:
            OSError, DataError: object storage does not give it: that is not the picture's fault.
        """
        if path is None:
            return self.mean_colour, None
        try:
            picture, problem = self.decode(path.read_bytes())
        except OSError as error:
            if isinstance(path, RemoteFile):
                raise
            picture, problem = self.mean_colour, f"cannot be read: {error}"
        return picture, None if problem is None else f"{path.name} {problem}"

    def decode(self, content: bytes | None) -> tuple[np.ndarray, str | None]:
        """As `read`, of a file's content; None: there is no picture."""
        if content is None:
            return self.mean_colour, None
        try:
            picture = decode_rgb(io.BytesIO(content), self.rules)
            for step in self.resize:
                picture = step(picture)
            return np.asarray(picture, np.uint8).transpose(2, 0, 1), None
        except UnusableError as error:
            return self.mean_colour, str(error)
        except (OSError, ValueError) as error:
            return self.mean_colour, f"cannot be resized: {error}"

    def decode_all(self, contents: Sequence[bytes | None], num_threads: int) -> tuple[np.ndarray, list[str | None]]:
        """Several pictures, (B, C, H, W) uint8, and what is wrong with each."""
        with ThreadPoolExecutor(num_threads) as pool:
            pictures, problems = zip(*pool.map(self.decode, contents), strict=True)
        return np.stack(pictures), list(problems)

    def normalise(self, images_BCHW: Tensor) -> Tensor:
        """uint8 to the encoder's input, on the tensor's device."""
        mean, std = self.mean.to(images_BCHW.device), self.std.to(images_BCHW.device)
        return (images_BCHW.float().div_(255) - mean) / std


def keep_decoded(
    reader: PictureReader,
    preprocessing: dict[str, Any],
    tables: Mapping[str, RowsFile],
    split: Split,
    context: FoldContext,
) -> dict[str, RowBlocks]:
    """Decodes the pictures of these tables, or finds that somebody has: (3, H, W) uint8 of each row, by table. Nothing
    where they would take more than half of what is free."""
    versions = {package: importlib.metadata.version(package) for package in _DECODED_BY}
    rules = [reader.rules.bit_depth, list(reader.rules.background)]
    described = json.dumps([_WAY_OF_DECODING, preprocessing, rules, versions], sort_keys=True)
    folder = context.cache / "pictures" / hashlib.sha256(described.encode()).hexdigest()[:16]
    parts = {name: _plan(folder, reader, table, context) for name, table in tables.items()}
    num_away = context.retry_while_unavailable("looking for decoded pictures", partial(count_away, parts.values()))
    there = next(parent for parent in folder.parents if parent.exists())
    if 2 * num_away * math.prod(reader.shape) > shutil.disk_usage(there).free:
        return {}
    fill(list(parts.values()), "decoding", split, context)
    return {name: part.blocks for name, part in parts.items()}


def _plan(folder: Path, reader: PictureReader, table: RowsFile, context: FoldContext) -> Part:
    def compute(positions: np.ndarray) -> tuple[np.ndarray, list[str | None]]:
        return reader.decode_all(read_checked(table, positions, context), context.num_threads)

    remote = place_remotely(folder, context)
    return Part(RowBlocks(folder, table.rows.digests["picture"], reader.shape, np.uint8, remote), compute)
