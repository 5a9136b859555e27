"""Keys that two rows share where they have the same picture, the same text or the same group.

Same picture: a file with the same bytes. Same text: the joined and cleaned text, whatever its case and white space,
which CLIP's tokenizers do not tell apart either; links that became the same token are the same. No picture and an empty
text have no key. Where it is asked for also nearly the same picture (`trainers/reading/near_pictures.py`; not of those
in object storage) and nearly the same text (`near_texts.py`), where the rows do not have the very same."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np

from trainers.clip_regression.rows.table import Rows
from trainers.interface import NO_KEY, RowKeys
from trainers.reading.near_pictures import number_near_pictures, read_thumbnails, without_exact
from trainers.reading.near_texts import find_near_texts
from trainers.storage.remote_files import RemoteFile

NEAR_TEXT = 0.6  # the least share of common runs of words, of all
MAX_SHOWN_LENGTH = 40  # characters of a text
_END_BYTES = 4096


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
    pictures_B = hash_pictures([picture for rows in tables for picture in rows.pictures])
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
    contents = (picture.read_bytes() if isinstance(picture, Path) else None for picture in pictures)
    return number_near_pictures(read_thumbnails(contents))


def hash_pictures(pictures: list[Path | RemoteFile | None]) -> np.ndarray:
    """(B,) uint64, equal where the files' bytes are. More than its size is read only of a file that has another's size:
    its end, and the whole of it where that is another's, too. What is in object storage was read as a whole before."""
    signs = [_describe_picture(picture) for picture in pictures]
    for read in (_digest_end, _digest_whole):
        times = Counter(signs)
        signs = [
            sign + read(picture) if isinstance(picture, Path) and times[sign] > 1 else sign
            for sign, picture in zip(signs, pictures, strict=True)
        ]
    return np.array([_hash(sign) for sign in signs], np.uint64)


def _describe_picture(picture: Path | RemoteFile | None) -> bytes:
    if picture is None:
        return b""
    return picture.digest if isinstance(picture, RemoteFile) else picture.stat().st_size.to_bytes(8, "little")


def _digest_end(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        return hashlib.blake2b(file.read(), digest_size=16).digest()


def _digest_whole(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


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
