"""Reads and decodes every picture once before anything is launched: what cannot be learned from is found here. No
torch."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trainers.interface import DataError
from trainers.pixel_diffusion.config import DataConfig
from trainers.pixel_diffusion.rows.listing import Listing
from trainers.pixel_diffusion.rows.rows_file import DIGEST_BYTES
from trainers.reading.known_files import Item, KnownFiles
from trainers.reading.picture_files import IrregularError, load_decoders, open_regular
from trainers.reading.pictures import UnusableError, decode_rgb
from trainers.reading.portions import THREADS

_MOST_NAMED = 5
_DECODING = threading.Semaphore(4)


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


def scan_pictures(data: DataConfig, listing: Listing, table: str, known: KnownFiles | None = None) -> Scan:
    """Decodes all pictures of which nothing is known.

    Args:
        data: of the config.
        listing: of the pictures.
        table: train or test, for the list of bad rows.
        known: looks at the pictures, and remembers what it has found; None: nothing is remembered.

    Raises:
        DataError: some cannot be used, and `data.on_bad_row` is error; or none can.
    """
    load_decoders()
    how = f"pictures, by {data.size} and {data.picture_rules}"
    looked = (known or KnownFiles()).look_at(how, [(path,) for path in listing.paths], partial(_look_at_pictures, data))
    wrong = [(listing.ids[n], f"{listing.paths[n].name} {what}") for n, (_, what, _) in enumerate(looked) if what]
    problems = [*listing.problems, *wrong]
    if problems and (data.on_bad_row == "error" or len(wrong) == len(looked)):
        raise DataError(_describe(data, problems, len(listing.ids) + len(listing.problems)))
    good = [number for number, (_, what, _) in enumerate(looked) if not what]
    digests = b"".join(bytes.fromhex(looked[number][0]) for number in good)
    return Scan(
        replace(listing.take(good), problems=()),
        np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES),
        tuple({"table": table, "id": one, "problem": what, "done": "dropped"} for one, what in problems),
        sum(looked[number][2] for number in good),
    )


def digest_picture(content: bytes) -> bytes:
    """What a picture is recognised by."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _look_at_pictures(data: DataConfig, items: Sequence[Item]) -> list[tuple[Any, bool]]:
    with ThreadPoolExecutor(THREADS) as pool:
        looked = pool.map(partial(_look_into, data), [path for (path,) in items if path is not None])
        return [(one, not one[1]) for one in looked]


def _look_into(data: DataConfig, path: Path) -> tuple[str, str, bool]:
    """Digest of a file, what is wrong with it, and whether it is smaller than the squares."""
    try:
        with open_regular(path) as file:
            content = file.read()
        with _DECODING:
            picture = decode_rgb(io.BytesIO(content), data.picture_rules)
    except (IrregularError, UnusableError, OSError) as error:
        return "", str(error), False
    return digest_picture(content).hex(), "", min(picture.size) < data.size


def _describe(data: DataConfig, problems: Sequence[tuple[str, str]], total: int) -> str:
    listed = "\n".join(f"  {row_id}: {what}" for row_id, what in problems[:_MOST_NAMED])
    more = f"\n  … and {len(problems) - _MOST_NAMED:,} more" if len(problems) > _MOST_NAMED else ""
    advice = "Correct or remove these files" + (
        ", or set data.on_bad_row=drop" if data.on_bad_row == "error" and len(problems) < total else ""
    )
    return f"{data.folder}: {len(problems):,} of {total:,} pictures cannot be used:\n{listed}{more}\n{advice}"
