"""Arrays of a table's rows that are computed once and kept for good: features of a frozen encoder, decoded pictures.

Rows are cut, in table order, into blocks of BLOCK_ROWS. A block is a file whose name is a hash of what its rows were
computed from, so whoever finds it need not compute it: other folds, epochs, members, later runs. A row that changes
gives its block another name; no other block is touched. (A row that is put between others moves all that follow.) Files
are memory-mapped; a damaged one counts as missing.

Machines without a shared folder share blocks through object storage, if they are given a place there: a block that is
not here is fetched, one that was computed here is put there as a whole. What is there is a copy and nothing waits for
it: while the storage gives or takes nothing, each machine computes by itself.

Any number of processes fill the same folder at once without knowing of each other: each visits what is missing, first
its own share, then what the others have not come to yet, and a block that two have computed is the same bytes twice.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from trainers.interface import FoldContext, Split
from trainers.storage.remote_blocks import RemoteBlocks
from trainers.storage.remote_files import DIGEST_BYTES
from trainers.storage.whole_files import appearing_whole

BLOCK_ROWS = 128
KEY_BYTES = DIGEST_BYTES
COUNT_INTERVAL_S = 3.0  # between two looks at what all have done,
COUNT_SHARE = 20  # and at least so many times as long as one takes
MOST_MAPPED = 8192  # blocks of a table,
MOST_MAPPED_IN_ALL = 49_152  # and of all in a process: the system lets it map some 65,000 things (vm.max_map_count)


class RowBlocks:
    """The blocks of one table.

    Args:
        folder: holds all blocks that were computed in the same way.
        keys_NK: (N, KEY_BYTES) uint8, a hash of what each row is computed from; zeros are as good a key as any (no
            picture).
        shape: of a row's array.
        dtype: of a row's array.
        remote: URI of a folder in object storage that stands for the same; None: there is none.
    """

    def __init__(
        self, folder: Path, keys_NK: np.ndarray, shape: tuple[int, ...], dtype: type, remote: str | None = None
    ) -> None:
        self.folder, self.num_rows, self.shape, self.dtype = folder, len(keys_NK), shape, np.dtype(dtype)
        self.remote = None if remote is None else RemoteBlocks(remote)
        portions = [keys_NK[start : start + BLOCK_ROWS] for start in range(0, len(keys_NK), BLOCK_ROWS)]
        self.paths = [folder / f"{_hash_content(portion.tobytes())}.arrow" for portion in portions]
        self.mapped: dict[int, np.ndarray] = {}
        self.read_from: dict[int, int] = {}  # of all that were found where in their files the first row begins
        self.problems: dict[int, str] = {}  # of the rows of mapped blocks
        _all_blocks.add(self)

    @property
    def num_missing_rows(self) -> int:
        """Rows whose block is neither here nor in object storage."""
        away = self._list_away()
        there = self.remote.list_names() if self.remote is not None and away else ()
        return sum(len(self.positions(block)) for block in away if self.paths[block].name not in there)

    @property
    def num_rows_away(self) -> int:
        """Rows whose block is not here."""
        return sum(len(self.positions(block)) for block in self._list_away())

    def positions(self, block: int) -> np.ndarray:
        """The rows of a block."""
        return np.arange(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, self.num_rows))

    def write(self, block: int, rows: np.ndarray, problems: Sequence[str | None] = ()) -> None:
        """Puts a block in place.

        Args:
            block: its number.
            rows: (n, *shape), of all of its rows.
            problems: of each row, what of it could not be used; empty: nothing.

        Raises:
            OSError: the storage does not take it.
        """
        rows = np.ascontiguousarray(rows, self.dtype)
        assert rows.shape == (len(self.positions(block)), *self.shape), rows.shape
        content, noted = rows.tobytes(), list(problems) or [None] * len(rows)
        schema = pa.schema(
            [("row", pa.binary(len(content) // len(rows))), ("problem", pa.string())],
            {"checksum": _hash_content(content, noted)},
        )
        column = pa.FixedSizeBinaryArray.from_buffers(
            schema.field("row").type, len(rows), [None, pa.py_buffer(content)]
        )
        with appearing_whole(self.paths[block]) as file, pa.ipc.new_file(file, schema) as writer:
            writer.write_batch(pa.record_batch([column, pa.array(noted, pa.string())], schema=schema))
        if self.remote is not None:
            self.remote.put(self.paths[block])

    def find(self, block: int) -> bool:
        """Whether a block is there and whole; maps it if so, removes it if it is damaged. One that is only in object
        storage is fetched.

        Raises:
            OSError: the storage does not give it.
        """
        if self._find_here(block):
            return True
        return self.remote is not None and self.remote.fetch(self.paths[block]) and self._find_here(block)

    def _list_away(self) -> list[int]:
        return [block for block in range(len(self.paths)) if not self._find_here(block)]

    def is_found(self, block: int) -> bool:
        """Whether `find` has found a block."""
        return block in self.read_from

    def _find_here(self, block: int) -> bool:
        if self.is_found(block):
            return True
        try:
            found = self._map(block)
        except FileNotFoundError:
            return False
        if found is None:
            self.paths[block].unlink(missing_ok=True)
            return False
        rows, self.read_from[block], problems = found
        if rows is not None:
            self.mapped[block] = rows
        start = block * BLOCK_ROWS
        self.problems |= {start + row: problem for row, problem in enumerate(problems) if problem}
        return True

    def take(self, positions_B: np.ndarray) -> np.ndarray:
        """The arrays of these rows, (B, *shape). Every block has to be there."""
        taken = np.empty((len(positions_B), *self.shape), self.dtype)
        blocks_B, rows_B = np.divmod(positions_B, BLOCK_ROWS)
        further: dict[int, list[tuple[int, int]]] = {}
        for place, (block, row) in enumerate(zip(blocks_B.tolist(), rows_B.tolist(), strict=True)):
            if block in self.mapped:
                taken[place] = self.mapped[block][row]
            else:
                further.setdefault(block, []).append((place, row))
        for block, wanted in further.items():
            with self.paths[block].open("rb", buffering=0) as file:
                for place, row in wanted:
                    taken[place] = self._read_row(file.fileno(), self.read_from[block], row)
        return taken

    def _read_row(self, file: int, first_byte: int, row: int) -> np.ndarray:
        """Raises OSError where the file, which was whole, has become shorter."""
        num_bytes = math.prod(self.shape) * self.dtype.itemsize
        content = os.pread(file, num_bytes, first_byte + row * num_bytes)
        if len(content) < num_bytes:
            raise OSError(errno.EIO, "a block of the cache was cut off", str(self.folder))
        return np.frombuffer(content, self.dtype).reshape(self.shape)

    def _map(self, block: int) -> tuple[np.ndarray | None, int, list[str | None]] | None:
        """Rows of a block (None: enough are mapped), where in the file they begin, and problems; None: it is
        damaged."""
        num_rows = len(self.positions(block))
        try:
            file, is_mapped = self._open(block)
            table = pa.ipc.open_file(file).read_all()
            content, problems = table["row"].chunk(0).buffers()[1], table["problem"].to_pylist()
            if (
                table.schema.metadata[b"checksum"].decode() != _hash_content(content, problems)
                or len(table) != num_rows
            ):
                return None
            file.seek(0)
            first_byte = content.address - file.read_buffer(1).address
            rows = np.frombuffer(content, self.dtype).reshape(num_rows, *self.shape) if is_mapped else None
            return rows, first_byte, problems
        except OSError as error:
            if error.errno is not None:  # what pyarrow finds wrong with the content has no number
                raise
            return None
        except (pa.ArrowException, KeyError, IndexError, TypeError, ValueError):
            return None

    def _open(self, block: int) -> tuple[pa.NativeFile, bool]:
        """A block's file, mapped if there is room for one more."""
        path = self.paths[block]
        if len(self.mapped) < MOST_MAPPED and count_mapped() < MOST_MAPPED_IN_ALL:
            try:
                return pa.memory_map(str(path)), True
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise
        return pa.BufferReader(path.read_bytes()), False


_all_blocks: weakref.WeakSet[RowBlocks] = weakref.WeakSet()


def count_mapped() -> int:
    """Blocks that this process has mapped, of all tables."""
    return sum(len(one.mapped) for one in _all_blocks)


@dataclass(frozen=True)
class Part:
    """Blocks of one kind, and how they are computed.

    Attributes:
        blocks: what is to be there.
        compute: gives for (n,) positions of rows their arrays, (n, *shape), and of each what could not be used (or
            nothing).
    """

    blocks: RowBlocks
    compute: Callable[[np.ndarray], tuple[np.ndarray, Sequence[str | None]]]


def fill(parts: Sequence[Part], what: str, split: Split, context: FoldContext) -> None:
    """Computes what is missing, together with whoever else does: each fold's each rank is one worker more.

    Args:
        parts: of all kinds.
        what: is done, for the user: `encoding`.
        split: says which of how many folds this is.
        context: hears how far it is; may end the fold here.
    """
    with context.preparing():
        _fill(parts, what, split, context)


def _fill(parts: Sequence[Part], what: str, split: Split, context: FoldContext) -> None:
    look_for = f"looking for what {what} has left"
    count = partial(context.retry_while_unavailable, look_for, partial(count_missing, parts))
    total = count()
    to_fetch = context.retry_while_unavailable(look_for, partial(count_away, parts))
    done, fetched = 0, 0
    slot = split.fold * context.world_size + context.rank
    everything = [(part, block) for part in parts for block in range(len(part.blocks.paths))]
    count_at = time.monotonic() + COUNT_INTERVAL_S
    for number in _order_of_slot(len(everything), slot, split.num_folds * context.world_size):
        part, block = everything[number]
        blocks, positions = part.blocks, part.blocks.positions(block)
        context.touch()
        if blocks.is_found(block):
            continue
        if context.retry_while_unavailable(look_for, partial(blocks.find, block)):
            if blocks.remote is not None:
                fetched += len(positions)
                context.report_preparation("fetching", fetched, to_fetch)
            continue
        while not blocks.is_found(block):
            rows, problems = part.compute(positions)
            context.retry_while_unavailable(f"keeping what {what} gives", partial(blocks.write, block, rows, problems))
            context.retry_while_unavailable(look_for, partial(blocks.find, block))
            done += len(rows)
            began = time.monotonic()
            if began > count_at:  # what the others have done meanwhile
                done = total - count()
                count_at = time.monotonic() + max(COUNT_INTERVAL_S, COUNT_SHARE * (time.monotonic() - began))
            total = max(total, done)  # one that was to be fetched was damaged
            context.report_preparation(what, done, total)


def place_remotely(folder: Path, context: FoldContext) -> str | None:
    """Where in object storage the blocks of a folder of the cache are shared, if anywhere."""
    return None if context.cache_uri is None else f"{context.cache_uri}/{folder.relative_to(context.cache)}"


def _order_of_slot(total: int, slot: int, num_slots: int) -> Iterator[int]:
    """First an own share, forwards, then the others' backwards: who is not done with theirs comes towards us."""
    first, end = slot * total // num_slots, (slot + 1) * total // num_slots
    yield from range(first, end)
    yield from (number % total for number in range(first - 1, end - 1 - total, -1))


def count_missing(parts: Iterable[Part]) -> int:
    """Rows of all parts whose block nobody has left where we look."""
    return sum(part.blocks.num_missing_rows for part in parts)


def count_away(parts: Iterable[Part]) -> int:
    """Rows of all parts whose block is not on this machine."""
    return sum(part.blocks.num_rows_away for part in parts)


def _hash_content(content: bytes | pa.Buffer, problems: Sequence[str | None] = ()) -> str:
    digest = hashlib.sha256(content)
    digest.update(repr(list(problems)).encode())
    return digest.hexdigest()[: 2 * KEY_BYTES]
