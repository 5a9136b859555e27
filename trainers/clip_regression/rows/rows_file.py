"""What the driver leaves to the folds: the checked rows of a table as an Arrow file, memory-mapped, so that no fold
parses the table, opens every picture's header or hashes contents again, and none holds texts that it does not read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from trainers.clip_regression.config import DataConfig, ModelConfig
from trainers.clip_regression.rows.table import Rows
from trainers.interface import DataError, FoldContext
from trainers.reading.data_folder import name_view
from trainers.reading.known_files import KnownFiles
from trainers.reading.picture_files import digest_contents
from trainers.reading.picture_rules import WHITE
from trainers.storage.mapped_table import new_table, open_table
from trainers.storage.remote_files import RemoteFile, hash_content, read_all
from trainers.storage.row_blocks import KEY_BYTES
from trainers.storage.whole_files import sha256_file, write_whole

_NO_DIGEST = bytes(KEY_BYTES)  # of a row without a picture
_LATER = {"encoding": (None,), "separator": (None,), "bit_depth": (None,), "background": (WHITE,), "task": ("auto",)}
_CLASSES = b"classes"  # in the metadata: their names, as JSON
_COPIES = b"copies"  # in the metadata: the pictures are objects, and this folder may hold copies


@dataclass(frozen=True)
class RowsFile:
    """A table, by its name (train or test), and the file that it was read from."""

    name: str
    path: Path
    rows: Rows


def place_rows(inputs: Path, data: DataConfig, table: str) -> Path:
    """Where the rows of a table are below a run's folder of inputs, for those who read them by this config."""
    seen = {name: value for name, value in asdict(data).items() if name not in ("max_pixels", "near_duplicates")}
    return inputs / f"{table}-{name_view(seen, _LATER)}.arrow"


def write_rows(path: Path, rows: Rows) -> None:
    """Writes rows of the training or the test table.

    Raises:
        OSError: the storage does not take it, or a picture that was there a moment ago cannot be read.
    """
    pictures = [None if picture is None else str(picture) for picture in rows.pictures]
    columns = {
        "id": pa.array(rows.ids.tolist(), pa.string()),
        "time": pa.array(rows.time),
        "target": pa.array(rows.target),
        **{f"number_{column}": pa.array(values_N) for column, values_N in enumerate(rows.numbers.T)},
        "text": pa.array(rows.texts, pa.large_string()),
        "picture": pa.array(pictures, pa.string()),
        "text_digest": _as_column(hash_content(text.encode()) for text in rows.texts),
        "picture_digest": _as_column(_hash_pictures(rows.pictures, rows.known)),
    }
    copies = {str(picture.copies) for picture in rows.pictures if isinstance(picture, RemoteFile)}
    metadata = {_COPIES: copies.pop()} if copies else {}
    if rows.classes:
        metadata[_CLASSES] = json.dumps(rows.classes)
    table = pa.table(columns, metadata=metadata or None)
    with new_table(path, table.schema) as writer:
        writer.write_table(table)


def read_rows(path: Path, *, inputs: bool) -> Rows:
    """The rows of such a file.

    Args:
        path: the file.
        inputs: also texts and pictures, which nobody wants in memory who has features of them.

    Raises:
        OSError: it is not there.
    """
    table = open_table(path)
    numbers = [table[name].to_numpy() for name in table.column_names if name.startswith("number_")]
    return Rows(
        ids=table["id"].to_numpy().astype(str),
        texts=table["text"].to_pylist() if inputs else [],
        time=table["time"].to_numpy(),
        numbers=np.stack(numbers, axis=1) if numbers else np.empty((len(table), 0)),
        target=table["target"].to_numpy(),
        pictures=_list_pictures(table) if inputs else [],
        groups=None,
        folds=None,
        bad_rows=(),
        classes=tuple(json.loads((table.schema.metadata or {}).get(_CLASSES, "[]"))),
        digests={kind: _from_column(table[f"{kind}_digest"]) for kind in ("picture", "text")},
    )


def read_texts(path: Path, positions: np.ndarray) -> list[str]:
    """The texts of consecutive rows of such a file."""
    texts: list[str] = _read_consecutive(path, positions)["text"].to_pylist()
    return texts


def read_pictures(path: Path, positions: np.ndarray) -> list[Path | RemoteFile | None]:
    """The pictures of consecutive rows of such a file."""
    return _list_pictures(_read_consecutive(path, positions))


def read_checked(table: RowsFile, positions: np.ndarray, context: FoldContext) -> list[bytes | None]:
    """The files of the pictures of consecutive rows, None where there is none.

    Raises:
        DataError: one is not what it was when the run began: its features would be filed under the old content's name.
    """

    contents: list[bytes | None] = context.retry_while_unavailable(
        "reading pictures", lambda: read_all(read_pictures(table.path, positions))
    )
    for position, content in zip(positions, contents, strict=True):
        if content is not None and hash_content(content) != table.rows.digests["picture"][position].tobytes():
            raise DataError(
                f"the picture of id {str(table.rows.ids[position])!r} was changed while the run works; put the old "
                "one back, or use another run.name"
            )
    return contents


def leave_weights_digest(model: ModelConfig, inputs: Path) -> None:
    """Hashes a weights file once for all folds.

    Raises:
        OSError: it cannot be read, or the storage takes nothing.
    """
    if model.pretrained and os.path.isfile(model.pretrained):
        write_whole(_place_digest(model, inputs), sha256_file(Path(model.pretrained)).encode())


def read_weights_digest(model: ModelConfig, inputs: Path) -> str:
    """What `leave_weights_digest` wrote: SHA-256 of the whole file."""
    return _place_digest(model, inputs).read_text()


def _place_digest(model: ModelConfig, inputs: Path) -> Path:
    assert model.pretrained is not None
    return inputs / f"weights-{hashlib.sha256(model.pretrained.encode()).hexdigest()[:12]}.sha256"


def _read_consecutive(path: Path, positions: np.ndarray) -> pa.Table:
    table = open_table(path)
    return table.slice(int(positions[0]), len(positions))


def _list_pictures(table: pa.Table) -> list[Path | RemoteFile | None]:
    places, copies = table["picture"].to_pylist(), (table.schema.metadata or {}).get(_COPIES)
    if copies is None:
        return [None if place is None else Path(place) for place in places]
    digests, copies = table["picture_digest"].to_pylist(), Path(copies.decode())
    return [None if place is None else RemoteFile(place, digests[n], copies) for n, place in enumerate(places)]


def _hash_pictures(pictures: list[Path | RemoteFile | None], known: KnownFiles) -> Iterator[bytes]:
    """Of the whole files: what an encoder makes of a picture must never be taken for another's."""
    contents = iter(digest_contents(known, [picture for picture in pictures if isinstance(picture, Path)]))
    for picture in pictures:
        if picture is None:
            yield _NO_DIGEST
        else:
            yield picture.digest if isinstance(picture, RemoteFile) else next(contents)[:KEY_BYTES]


def _as_column(digests: Iterable[bytes]) -> pa.Array:
    return pa.array(digests, pa.binary(KEY_BYTES))


def _from_column(column: pa.ChunkedArray) -> np.ndarray:
    """(N, KEY_BYTES) uint8, without a copy where the column is one piece."""
    chunks = [np.frombuffer(chunk.buffers()[1], np.uint8)[KEY_BYTES * chunk.offset :] for chunk in column.chunks]
    whole = chunks[0] if len(chunks) == 1 else np.concatenate([*chunks, np.empty(0, np.uint8)])
    return whole[: KEY_BYTES * len(column)].reshape(-1, KEY_BYTES)
