"""Fixtures that every test may use: small data on disk, and where the real data lies. At the end of the tests: which of
the project's processes have imported something in a thread."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.object_server import serving_objects


def pytest_configure(config):
    """Says where processes that tests start note what they import in threads: for all workers of pytest-xdist in one
    file."""
    if not hasattr(config, "workerinput"):
        os.environ["THREAD_IMPORT_NOTES"] = str(Path(tempfile.mkdtemp(prefix="thread_imports_")) / "notes.txt")


def pytest_sessionfinish(session):
    """Fails the tests if there are such notes."""
    notes = Path(os.environ["THREAD_IMPORT_NOTES"])
    if notes.exists():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    """Shows them."""
    notes = Path(os.environ["THREAD_IMPORT_NOTES"])
    if notes.exists():
        terminalreporter.section("modules that were loaded in threads: import them in the main thread", red=True)
        for line in sorted(set(notes.read_text().splitlines())):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def real_data_root() -> Path:
    """Folder of the real data sets; skips where it is not named."""
    root = os.environ.get("REAL_DATA_ROOT")
    if not root:
        pytest.skip("REAL_DATA_ROOT is not set: the real data sets are not part of the repository")
    return Path(root)


@pytest.fixture(scope="session")
def bucket_server():
    """An S3 server, which all tests share: each has a folder of the bucket for itself."""
    with serving_objects() as server:
        yield server


@pytest.fixture
def small_frame() -> pd.DataFrame:
    """24 rows with every column that the CLIP regressor can use."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": [f"v{number:02d}" for number in range(24)],
            "channel": [f"c{number % 6}" for number in range(24)],
            "title": [f"title {number}" for number in range(24)],
            "date": [f"2020-{1 + number % 12:02d}-15" for number in range(24)],
            "description": "see https://youtu.be/x",
            "views": rng.integers(10, 10_000, 24),
        }
    )


@pytest.fixture
def write_data(tmp_path: Path):
    """A function that writes a training frame (and a test frame) with pictures and returns the folder."""

    def write(train: pd.DataFrame, test: pd.DataFrame | None = None, *, pictures: bool = True) -> Path:
        root = tmp_path / "data"
        for name, frame in (("train_val", train), ("test", test)):
            if frame is None:
                continue
            (root / name).mkdir(parents=True, exist_ok=True)
            frame.to_csv(root / f"{name}.csv", index=False)
            if pictures:
                for number, row_id in enumerate(frame["id"].astype(str)):
                    picture = np.full((40, 50, 3), (number * 9 % 256, 80, 120), np.uint8)
                    Image.fromarray(picture).save(root / name / f"{row_id.replace('/', '_')}.jpg")
        return root

    return write
