"""A function is known by its source and travels by value."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from support.processes import REPOSITORY

from trainers.interface import DataError
from trainers.own_trainer.config import Config, TrainerConfig
from trainers.own_trainer.example import Options
from trainers.own_trainer.users_code.source import collect_source, load_source

MODEL = """
from __future__ import annotations
from dataclasses import dataclass
import {helpers}

@dataclass
class My:
    depth: int = 4

def train_fold(fold, my: My):
    return {helpers}.double(my.depth)
"""
HELPERS = "def double(number):\n    return 2 * number\n\ndef other():\n    return 0\n"


def write(folder, name, double=HELPERS):
    (folder / f"{name}.py").write_text(MODEL.format(helpers=f"{name}_helpers"))
    (folder / f"{name}_helpers.py").write_text(double)
    return f"{folder / name}.py:train_fold"


def test_a_function_and_what_lies_beside_it_run_where_their_files_are_not(tmp_path):
    source = load_source(write(tmp_path, "travelling"))
    assert source.default_options().depth == 4
    packed = tmp_path / "packed.trainer"
    packed.write_bytes(source.pack())
    for path in tmp_path.glob("*.py"):
        path.unlink()
    code = (
        "import sys; from trainers.own_trainer.users_code.source import load_source\n"
        f"source = load_source({str(packed)!r}); options = source.build_options({{'depth': 7}})\n"
        "print(source.function(None, options), source.name, source.sha256)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["14", "travelling.py:train_fold", source.sha256]


def test_a_config_travels_to_processes_that_cannot_import_the_class_of_the_options(tmp_path, monkeypatch):
    source = load_source(write(tmp_path, "classed"))
    config = Config(trainer=TrainerConfig("classed.py:train_fold"), my=source.build_options({"depth": 9}))
    packed = pickle.dumps(config)
    monkeypatch.delitem(sys.modules, "classed")
    again = pickle.loads(packed)
    assert (again.data, again.model, again.trainer) == (config.data, config.model, config.trainer)
    assert source.build_options(again.my) == config.my
    assert pickle.loads(pickle.dumps(Config(my=Options(epochs=3)))) == Config(my=Options(epochs=3))


def test_the_checksum_is_of_what_the_function_calls_and_of_nothing_else(tmp_path):
    texts = (HELPERS, HELPERS.replace("return 0", "return 1"), HELPERS.replace("2 *", "3 *"))
    sums = []
    for number, helpers in enumerate(texts):
        folder = tmp_path / str(number)
        folder.mkdir()
        sums.append(load_source(write(folder, "summed", helpers)).sha256)
        for name in ("summed", "summed_helpers"):  # another process would not have them either
            del sys.modules[name]
    assert sums[0] == sums[1] != sums[2]


def make(factor):
    def train_fold(fold):
        return factor * 2

    return train_fold


def test_numbers_that_a_function_finds_outside_of_itself_count():
    assert collect_source(make(2)) == collect_source(make(2)) != collect_source(make(3))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing.py:train_fold", "no such file .*nothing.py"),
        ("train_fold", "expected FILE.py:NAME"),
        ("{folder}/failing.py:train_fold", r"failing.py cannot be run: ZeroDivisionError: division by zero \(line 2\)"),
        ("{folder}/empty.py:train_fold", "has no 'train_fold'; its functions: learn"),
        ("no.such.module:train_fold", "no.such.module cannot be imported"),
        ("{folder}/gone.trainer", "no such packed function"),
    ],
)
def test_a_function_that_cannot_be_had_is_refused(tmp_path, path, message):
    (tmp_path / "failing.py").write_text("x = 0\ny = 1 / x\n")
    (tmp_path / "empty.py").write_text("def learn(fold):\n    pass\n")
    with pytest.raises(DataError, match=message):
        load_source(path.format(folder=tmp_path))
