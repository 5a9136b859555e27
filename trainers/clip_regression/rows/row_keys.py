"""Keys that two rows share where they have the same picture, the same text or the same group.

Same picture: a file with the same bytes. Same text: the joined and cleaned text, whatever its case and white space,
which CLIP's tokenizers do not tell apart either; links that became the same token are the same. No picture and an empty
text have no key. Where it is asked for also nearly the same picture (`trainers/reading/near_pictures.py`; not of those
in object storage) and nearly the same text (`near_texts.py`), where the rows do not have the very same."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainers.clip_regression.rows.table import Rows
from trainers.interface import NO_KEY, RowKeys
from trainers.reading.known_files import KnownFiles
from trainers.reading.near_pictures import number_near_pictures, read_thumbnails, without_exact
from trainers.reading.near_texts import find_near_texts
from trainers.reading.picture_files import digest_contents
from trainers.storage.remote_files import RemoteFile

NEAR_TEXT = 0.6  # the least share of common runs of words, of all
MAX_SHOWN_LENGTH = 40  # characters of a text


def collect_row_keys(train: Rows, test: Rows | None, *, near: bool = False) -> dict[str, RowKeys]:
    """The keys of each kind (picture, text, group) that some training row has.

    Args:
        train, test: the rows.
        near: whether to look also for what is nearly the same (near_picture, near_text).

    Raises:
        OSError: a picture that was there a moment ago cannot be read.
    """
    tables = [train] if test is None else [train, test]
    texts = [" ".join(text.split()) for rows in tables for text in rows.texts]
    groups = [group for rows in tables for group in ([""] * len(rows) if rows.groups is None else rows.groups.tolist())]
    pictures = [picture for rows in tables for picture in rows.pictures]
    pictures_B = hash_pictures(pictures, [end for rows in tables for end in rows.ends], train.known)
    found = {
        "picture": (pictures_B, {}),
        "text": _name_shared(_hash_texts([text.lower() for text in texts]), texts),
        "group": _name_shared(_hash_texts(groups), groups),
    }
    if near:
        found["near_picture"] = (without_exact(_number_near_pictures(tables), pictures_B), {})
        likeness = find_near_texts(texts, least=NEAR_TEXT).to_row_keys(texts, len(texts))
        found["near_text"] = (without_exact(likeness.train, found["text"][0]), dict(likeness.shown))
    end = len(train)
    return {kind: RowKeys(keys[:end], keys[end:], shown) for kind, (keys, shown) in found.items() if keys[:end].any()}


def _number_near_pictures(tables: list[Rows]) -> np.ndarray:
    """(B,) uint64, equal where pictures are nearly the same."""
    pictures = [picture for rows in tables for picture in rows.pictures]
    files = [picture if isinstance(picture, Path) else None for picture in pictures]
    return number_near_pictures(read_thumbnails(files))


def hash_pictures(pictures: Sequence[Path | RemoteFile | None], ends: Sequence[bytes], known: KnownFiles) -> np.ndarray:
    """(B,) uint64, equal where the files' bytes are. The whole of a file is read only where size and end are another's,
    too. What is in object storage was read as a whole before.

    Args:
        pictures: of all rows.
        ends: `Found.end` of each.
        known: reads them.

    Raises:
        OSError: one that was there a moment ago cannot be read.
    """
    signs = [
        picture.digest if isinstance(picture, RemoteFile) else end[:8]
        for picture, end in zip(pictures, ends, strict=True)
    ]
    alike = _find_alike(signs, pictures)
    for row in alike:
        signs[row] += ends[row][8:]
    alike = _find_alike(signs, pictures)
    for row, content in zip(alike, digest_contents(known, list(alike.values())), strict=True):
        signs[row] += content
    return np.array([_hash(sign) for sign in signs], np.uint64)


def _find_alike(signs: Sequence[bytes], pictures: Sequence[Path | RemoteFile | None]) -> dict[int, Path]:
    """The files on this machine whose sign is another's, too, by row."""
    times = Counter(signs)
    return {
        row: picture
        for row, (sign, picture) in enumerate(zip(signs, pictures, strict=True))
        if isinstance(picture, Path) and times[sign] > 1
    }


def _hash_texts(texts: list[str]) -> np.ndarray:
    return np.array([_hash(text.encode()) for text in texts], np.uint64)


def _hash(content: bytes) -> int:
    """8 bytes: among 100,000 rows two different contents meet with a chance of 3e-10."""
    if not content:
        return NO_KEY
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") or 1


def _name_shared(keys_B: np.ndarray, names: list[str]) -> tuple[np.ndarray, dict[int, str]]:
    """The keys, and a name of each that several rows have."""
    values, first, times = np.unique(keys_B, return_index=True, return_counts=True)
    shared = [(int(value), names[row]) for value, row, n in zip(values, first, times, strict=True) if n > 1 and value]
    return keys_B, {key: f"{name[:MAX_SHOWN_LENGTH]}{'…' * (len(name) > MAX_SHOWN_LENGTH)}" for key, name in shared}
