"""The output of a kind of predictions that gives each new row files: a folder with a table and a folder of files of
each sort. It appears whole, and never takes the place of anything that no prediction has written."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from ray_jobs.errors import RunError
from trainers.storage.whole_files import write_whole

SUMMARY, BAD_ROWS = "summary.csv", "summary_bad_rows.csv"


def write_row_files(block: pa.Table, output: Path, row_files: Mapping[str, str]) -> None:
    """Writes the files of the rows of a block (see `ensemble.run.Combiner.predict`) into the output's folders."""
    for name, ending in row_files.items():
        for row_id, content in zip(block["0"].to_pylist(), block[name].to_pylist(), strict=True):
            write_whole(output / name / f"{row_id}{ending}", content)


@contextmanager
def appearing_output(output: Path, row_files: Mapping[str, str]) -> Iterator[Path]:
    """A folder to write into, which takes the place of the output, and of an earlier prediction there, once the block
    is left without an error."""
    staged = output.with_name(f".{output.name}.part")
    shutil.rmtree(staged, ignore_errors=True)  # what a killed job has left
    staged.mkdir(parents=True)
    try:
        yield staged
        for path in _list_own(output, row_files):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        output.mkdir(exist_ok=True)
        for path in sorted(staged.iterdir(), key=lambda path: path.name == SUMMARY):  # it says that all is there
            path.rename(output / path.name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _list_own(output: Path, row_files: Iterable[str]) -> list[Path]:
    """What a prediction has made there, the summary first."""
    known = (SUMMARY, BAD_ROWS, *row_files)
    return [output / name for name in known if (output / name).exists()]


def refuse_foreign(output: Path, inputs: Iterable[Path | None], row_files: Iterable[str]) -> None:
    """Raises RunError where the output holds what no prediction has written, or what is to be read."""
    row_files = tuple(row_files)
    if output.is_file():
        raise RunError(f"--output={output} is a file: expected a folder, for {', '.join(row_files[:2])} and {SUMMARY}")
    inside = set(output.iterdir()) if output.is_dir() else set()
    if not inside:
        return
    foreign = sorted(path.name for path in inside - set(_list_own(output, row_files)))
    if foreign or not (output / SUMMARY).exists():
        held = ", ".join(foreign or sorted(path.name for path in inside))
        raise RunError(f"--output={output} holds {held:.200}, which predict.py has not written; set another --output")
    for path in filter(None, inputs):
        if path.resolve().is_relative_to(output.resolve()):
            raise RunError(f"--output={output} holds {path}, which is to be predicted; set another --output")
