"""The PyTorch examples that Ray's wheel brings, of numbers and of pictures, in K folds of two workers each: with the
changes of `examples/ray`, and on made-up data of the form of theirs, for which no network is needed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray.train.examples.pytorch
from support.processes import REPOSITORY
from support.users_scripts import WAIT_S, open_ray, start_script

THEIRS = Path(next(iter(ray.train.examples.pytorch.__path__)))
PATCHES = sorted((REPOSITORY / "examples/ray").glob("*.patch"))
MOST_LINES = 10
SMALLER = {
    "s3://anonymous@air-example-data/": "FOLDER/",
    'root="~/': 'root="FOLDER/',  # a worker has its node's home
    '"epochs": 10,': '"epochs": 1,',
    "train_fashion_mnist(num_workers=4, use_gpu=True)": "train_fashion_mnist()",
}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with open_ray(tmp_path_factory.mktemp("node")) as address:
        yield address


def write_data(folder: Path) -> None:
    """regression.csv, and FashionMNIST's files: a picture of a class has a bright row of its own."""
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(120, 100))
    table = pd.DataFrame(x_ND, columns=[f"x{number:03d}" for number in range(100)])
    table.assign(y=x_ND[:, :3].sum(axis=1)).to_csv(folder / "regression.csv", index=False)
    raw = folder / "data/FashionMNIST/raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 300), ("t10k", 10)):
        label_N, pixel_NHW = np.arange(count) % 10, rng.integers(0, 60, (count, 28, 28))
        pixel_NHW[np.arange(count), 2 * label_N] = 255
        for what, values in (("images-idx3", pixel_NHW), ("labels-idx1", label_N)):
            header = np.array([2048 + values.ndim, *values.shape], ">i4").tobytes()
            (raw / f"{name}-{what}-ubyte").write_bytes(header + values.astype(np.uint8).tobytes())


@pytest.mark.slow
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_an_example_of_ray_s_trains_in_folds_of_two_workers(patch, address, tmp_path):
    script = tmp_path / f"{patch.stem}.py"
    script.write_text((THEIRS / script.name).read_text())
    subprocess.run(["git", "apply", patch], cwd=tmp_path, check=True)
    text = script.read_text()
    for theirs, ours in SMALLER.items():
        text = text.replace(theirs, ours.replace("FOLDER", str(tmp_path)))
    script.write_text(text)
    write_data(tmp_path)
    assert start_script(script.name, tmp_path, tmp_path, address).wait(WAIT_S) == 0, (
        tmp_path / "output.txt"
    ).read_text()
    (path,) = (tmp_path / "ray_results").glob("*/summary.json")
    summary = json.loads(path.read_text())
    assert [fold["state"] for fold in summary["folds"]] == ["completed"] * len(summary["folds"])
    assert [fold["workers"] for fold in summary["folds"]] == [[2]] * len(summary["folds"])


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_an_example_of_ray_s_needs_few_changed_lines(patch):
    added = [line for line in patch.read_text().splitlines() if line.startswith("+") and line.strip("+ ")]
    assert 1 <= len(added) - 1 <= MOST_LINES, "the first one names the file"
