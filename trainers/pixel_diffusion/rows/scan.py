"""Reads and decodes every picture once before anything is launched: what cannot be learned from is found here. No
torch."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainers.interface import DataError
from trainers.pixel_diffusion.config import DataConfig
from trainers.pixel_diffusion.rows.listing import Listing
from trainers.pixel_diffusion.rows.rows_file import DIGEST_BYTES
from trainers.reading.picture_files import load_decoders
from trainers.reading.pictures import UnusableError, decode_rgb

_THREADS, _MOST_NAMED = 4, 5


@dataclass(frozen=True)
class Scan:
    """What the files of a listing hold.

    Attributes:
        listing: of the pictures that can be used.
        digests_NK: (N, DIGEST_BYTES) uint8, of their bytes.
        bad_rows: of those that cannot: table, id, problem, done.
        num_small: pictures that have to be enlarged.
    """

    listing: Listing
    digests_NK: np.ndarray
    bad_rows: tuple[dict[str, str], ...] = ()
    num_small: int = 0


def scan_pictures(data: DataConfig, listing: Listing, table: str) -> Scan:
    """Decodes all pictures.

    Args:
        data: of the config.
        listing: of the pictures.
        table: train or test, for the list of bad rows.

    Raises:
        DataError: some cannot be used, and `data.on_bad_row` is error; or none can.
    """
    load_decoders()
    with ThreadPoolExecutor(_THREADS) as pool:
        looked = list(pool.map(lambda path: _look_into(path, data), listing.paths))
    wrong = [(listing.ids[n], f"{listing.paths[n].name} {what}") for n, (_, what, _) in enumerate(looked) if what]
    problems = [*listing.problems, *wrong]
    if problems and (data.on_bad_row == "error" or len(wrong) == len(looked)):
        raise DataError(_describe(data, problems, len(listing.ids) + len(listing.problems)))
    good = [number for number, (_, what, _) in enumerate(looked) if not what]
    digests = b"".join(looked[number][0] for number in good)
    return Scan(
        replace(listing.take(good), problems=()),
        np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES),
        tuple({"table": table, "id": one, "problem": what, "done": "dropped"} for one, what in problems),
        sum(looked[number][2] for number in good),
    )


def digest_picture(content: bytes) -> bytes:
    """What a picture is recognised by."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _look_into(path: Path, data: DataConfig) -> tuple[bytes, str, bool]:
    """Digest of a file, what is wrong with it, and whether it is smaller than the squares."""
    if not path.is_file():  # a pipe or a device: opening it could wait for ever
        return b"", "is not a regular file", False
    try:
        content = path.read_bytes()
        picture = decode_rgb(io.BytesIO(content), data.picture_rules)
    except (UnusableError, OSError) as error:
        return b"", str(error), False
    return digest_picture(content), "", min(picture.size) < data.size


def _describe(data: DataConfig, problems: Sequence[tuple[str, str]], total: int) -> str:
    listed = "\n".join(f"  {row_id}: {what}" for row_id, what in problems[:_MOST_NAMED])
    more = f"\n  … and {len(problems) - _MOST_NAMED:,} more" if len(problems) > _MOST_NAMED else ""
    advice = "Correct or remove these files" + (
        ", or set data.on_bad_row=drop" if data.on_bad_row == "error" and len(problems) < total else ""
    )
    return f"{data.folder}: {len(problems):,} of {total:,} pictures cannot be used:\n{listed}{more}\n{advice}"
