"""Documents as people keep them: text files, JSON lines, tables. One after the other, so that memory does not grow with
their number. What is wrong with one is said, never passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trainers.gpt_pretraining.config import END_OF_TEXT, DataConfig
from trainers.interface import FORMULA, DataError
from trainers.reading.table_files import is_table_name, open_unpacked
from trainers.values import describe_missing

TRAIN_NAMES, TEST_NAMES = ("train", "train_val"), ("test", "valid", "validation", "val")
_TEXTS, _LINES = (".txt", ".text", ".md"), (".jsonl", ".ndjson")
_PACKED = (".gz", ".bz2", ".xz", ".zst")
_PORTION_BYTES, _BLOCK_ROWS = 1 << 20, 1024
_SEPARATORS = {"end_of_text": END_OF_TEXT.encode(), "line": b"\n", "blank_line": b"\n\n"}


@dataclass(frozen=True)
class Document:
    """A document, or what is wrong with it.

    Attributes:
        name: its id.
        text: of it; of a bad one empty.
        cells: of the columns that the config names, by field.
        problem: why it cannot be used; empty: nothing.
    """

    name: str
    text: str
    cells: dict[str, str]
    problem: str = ""


def find_files(data: DataConfig) -> tuple[list[Path], list[Path]]:
    """The files with the documents to learn from, and those with the documents that are only scored.

    Raises:
        DataError: there are none, or nothing says which.
    """
    assert data.root is not None
    root = Path(data.root)
    if root.is_file():
        return [_check_name(root)], _find_named(root.parent, data.test, "test") if data.test else []
    if not root.is_dir():
        raise DataError(f"data.root={root}: no such file or folder")
    tests = _find_named(root, data.test, "test") if data.test else _find_usual(root, TEST_NAMES)
    if data.train:
        return _find_named(root, data.train, "train"), tests
    trains = _find_usual(root, TRAIN_NAMES) or [path for path in _list_files(root) if path not in tests]
    if not trains:
        raise DataError(f"data.root={root} holds no documents: expected .txt, .jsonl, .csv or .parquet files")
    return trains, tests


def _find_usual(root: Path, names: tuple[str, ...]) -> list[Path]:
    """What is called train or test, alone or behind another word."""
    for name in names:
        if (root / name).is_dir():
            return _list_files(root / name)
        named = [p for p in _list_files(root, deep=False) if bare_name(p) == name or bare_name(p).endswith(f"_{name}")]
        if named:
            return named
    return []


def _find_named(root: Path, name: str, field: str) -> list[Path]:
    path = root / Path(name).expanduser()
    if path.is_dir() and (files := _list_files(path)):
        return files
    if not path.is_file():
        raise DataError(f"data.{field}={name}: no such file or folder of documents in {root}")
    return [_check_name(path)]


def _list_files(folder: Path, *, deep: bool = True) -> list[Path]:
    found = folder.rglob("*") if deep else folder.glob("*")
    return sorted(path for path in found if path.is_file() and path.name[0] != "." and _is_known(path))


def bare_name(path: Path) -> str:
    """A file's name without its endings."""
    return path.name.removesuffix(path.suffix if path.suffix not in _PACKED else "".join(path.suffixes[-2:]))


def _suffix(path: Path) -> str:
    """The ending of what a file holds, whatever it is packed by."""
    kind = path.suffixes[-2] if path.suffix in _PACKED and len(path.suffixes) > 1 else path.suffix
    return kind.lower()


def _is_known(path: Path) -> bool:
    return _suffix(path) in (*_TEXTS, *_LINES) or (is_table_name(path) and _suffix(path) not in _PACKED)


def _check_name(path: Path) -> Path:
    if not _is_known(path):
        raise DataError(f"{path}: expected a .txt, .jsonl, .csv or .parquet file, also packed (.gz)")
    return path


def read_documents(files: list[Path], data: DataConfig) -> Iterator[Document]:
    """All documents of some files, in order; each with a name that no other has."""
    seen: set[str] = set()
    for path in files:
        read = _read_text if _suffix(path) in _TEXTS else _read_lines if _suffix(path) in _LINES else _read_table
        for document in read(path, data, len(files) > 1):
            if not document.problem and (problem := _find_problem(document, data, seen)):
                document = Document(document.name, "", document.cells, problem)
            seen.add(document.name)
            yield document


def _find_problem(document: Document, data: DataConfig, seen: set[str]) -> str:
    name, text = document.name, document.text
    if name in seen:
        return "its id is that of an earlier document"
    if not name.strip() or not name.isprintable() or FORMULA.search(name):
        return "its id is empty, or would be run as a formula by a spreadsheet"
    if not text.strip():
        return "it has no text"
    if "\0" in text:
        return "it holds zero bytes, as a file that is no text does"
    if len(text) > data.max_megabytes * 1e6:
        return f"it has {len(text) / 1e6:.1f} million characters: expected at most data.max_megabytes"
    return ""


def _read_text(path: Path, data: DataConfig, one_of_many: bool) -> Iterator[Document]:
    encoding = data.encoding or "utf-8"
    number, is_whole = 0, False
    for number, (content, is_whole) in enumerate(_split_file(path, data), start=1):
        name = bare_name(path) if is_whole else f"{bare_name(path)}_{number:06d}"
        try:
            text = content.decode(encoding).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            yield Document(name, "", {}, f"byte {error.start:,} is not {encoding}; data.encoding names another")
            continue
        if not is_whole:
            text = text.strip("\r\n")
            if not text:
                continue  # between two separators there is nothing: no document
        yield Document(name, text, {})
    if number == 0:
        yield Document(bare_name(path), "", {}, "the file is empty")


def _split_file(path: Path, data: DataConfig) -> Iterator[tuple[bytes, bool]]:
    """Its documents, and whether it is one as a whole."""
    mark = _SEPARATORS.get(data.separator)
    with open_unpacked(path) as file:
        if data.separator == "auto":
            mark = _SEPARATORS["end_of_text"] if _holds(path, _SEPARATORS["end_of_text"]) else None
        if mark is None:
            if content := file.read():
                yield content, True
            return
        yield from ((part, False) for part in _cut(file, mark))


def _holds(path: Path, mark: bytes) -> bool:
    kept = b""
    with open_unpacked(path) as file:
        while portion := file.read(_PORTION_BYTES):
            if mark in kept + portion:
                return True
            kept = portion[-len(mark) :]
    return False


def _cut(file: IO[bytes], mark: bytes) -> Iterator[bytes]:
    waiting = b""
    while portion := file.read(_PORTION_BYTES):
        *parts, waiting = (waiting + portion.replace(b"\r\n", b"\n")).split(mark)
        yield from parts
    if waiting.strip():
        yield waiting


def _read_lines(path: Path, data: DataConfig, one_of_many: bool) -> Iterator[Document]:
    with open_unpacked(path) as file:
        number = 0
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            name = f"{bare_name(path)}_{number:06d}"
            try:
                values = json.loads(line)
            except ValueError as error:  # of the encoding, too
                yield Document(name, "", {}, f"line {number:,} is no JSON: {error!s:.100}")
                continue
            if not isinstance(values, dict):
                yield Document(name, "", {}, f"line {number:,} is no object, such as {{{data.text_column!r}: …}}")
                continue
            yield _build(values, name, data, path)
        if number == 0:
            yield Document(bare_name(path), "", {}, "the file is empty")


def _read_table(path: Path, data: DataConfig, one_of_many: bool) -> Iterator[Document]:
    from trainers.reading.tables import read_blocks

    number = 0
    for frame in read_blocks(path, _BLOCK_ROWS, given=data.table_format):
        for values in frame.to_dict("records"):
            number += 1
            yield _build(values, f"{bare_name(path)}_{number:06d}", data, path)


def _build(values: dict[Any, Any], name: str, data: DataConfig, path: Path) -> Document:
    """A document of the cells of a row.

    Raises:
        DataError: the row has no such columns.
    """
    roles = {role: getattr(data, role) for role in ("group_column", "fold_column", "floor_column")}
    wanted = {"text_column": data.text_column, **{role: column for role, column in roles.items() if column}}
    if missing := [(column, f"data.{role}") for role, column in wanted.items() if column not in values]:
        raise DataError(f"{path}: {describe_missing(missing, values)}")
    text = values[data.text_column]
    if data.id_column and values.get(data.id_column) not in (None, ""):
        name = str(values[data.id_column])
    cells = {role: "" if values[column] is None else str(values[column]) for role, column in roles.items() if column}
    if not isinstance(text, str):
        return Document(name, "", cells, f"its {data.text_column!r} is no text")
    return Document(name, text, cells)
