"""Texts that lie on disk once, however many look at them."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest
from support.processes import REPOSITORY

from trainers.storage.mapped_table import link_file, new_table, open_table

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.large_string())])
NUM_BLOCKS, BLOCK_BYTES = 40, 4_000_000

# Inventory, inputs and a fold in one process, with all the memory that they hold and do not map.
PROGRAM = """
import sys
from pathlib import Path
import pyarrow as pa
from trainers.storage.mapped_table import link_file, new_table, open_table
root, num_blocks, block_bytes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
schema = pa.schema([("id", pa.string()), ("text", pa.large_string())])
def measure():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) * 1024
begun = measure()
with new_table(root / "cache" / "documents.arrow", schema) as table:
    for number in range(num_blocks):
        table.write_batch(pa.record_batch([[f"doc{number}"], [chr(97 + number % 26) * block_bytes]], schema=schema))
tables = {"documents": root / "cache" / "documents.arrow"}          # what the inventory holds
link_file(tables["documents"], root / "inputs" / "documents.arrow")  # what the family leaves to the folds
texts = open_table(root / "inputs" / "documents.arrow")["text"]
assert sum(len(texts[number].as_py()) for number in range(num_blocks)) == num_blocks * block_bytes
print(measure() - begun)
"""


def test_texts_are_in_memory_neither_of_the_driver_nor_of_a_fold(tmp_path):
    arguments = [sys.executable, "-c", PROGRAM, str(tmp_path), str(NUM_BLOCKS), str(BLOCK_BYTES)]
    done = subprocess.run(arguments, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert int(done.stdout) < NUM_BLOCKS * BLOCK_BYTES / 2  # the allocator keeps some blocks
    assert (tmp_path / "cache" / "documents.arrow").stat().st_nlink == 2


def test_a_table_that_fails_half_way_is_not_there(tmp_path):
    def write_half():
        with new_table(tmp_path / "table.arrow", SCHEMA) as table:
            table.write_batch(pa.record_batch([["a"], ["text"]], schema=SCHEMA))
            raise OSError(28, "no room")

    with pytest.raises(OSError, match="no room"):
        write_half()
    assert not list(tmp_path.iterdir())


def test_a_file_is_copied_where_it_cannot_be_linked_and_replaced_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "source").write_bytes(b"new")
    for name in ("linked", "copied"):
        (tmp_path / name).write_bytes(b"old")
        if name == "copied":
            monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("another file system")))
        link_file(tmp_path / "source", tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"new"


def test_rows_come_back_in_their_order(tmp_path):
    with new_table(tmp_path / "table.arrow", SCHEMA) as table:
        for number in range(3):
            table.write_batch(pa.record_batch([[f"a{number}", f"b{number}"], ["x" * number, "y"]], schema=SCHEMA))
    rows = open_table(tmp_path / "table.arrow")
    assert rows["id"].to_pylist() == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert rows["text"][4].as_py() == "xx"
