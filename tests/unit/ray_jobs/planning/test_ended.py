"""A run that has ended is known by what was asked for and the files that were read and written."""

import dataclasses
import time

import pytest

from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.planning.ended import find_ended, note_end
from ray_jobs.runs.folder import RunFolder
from trainers.clip_regression.rows.synthetic_data import make_data
from trainers.reading import known_files


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """A config, and the folder of its run, which is said to have ended."""
    monkeypatch.setattr(known_files, "SETTLED_S", 0.0)
    root = make_data(tmp_path)
    config = parse_kfold([f"data.root={root}", f"run.storage={tmp_path / 'runs'}", "run.name=one"]).config
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.cache.mkdir(parents=True, mode=0o700)
    for path in (folder.config, folder.fold_plan, folder.provenance, folder.summary):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    time.sleep(0.05)
    note_end(folder, config, time.time_ns())
    return config, folder


def test_the_same_command_finds_it(ended):
    config, folder = ended
    assert find_ended(config).root == folder.root


def test_another_command_does_not(ended):
    config, _ = ended
    assert find_ended(dataclasses.replace(config, folds=dataclasses.replace(config.folds, count=4))) is None
    assert find_ended(dataclasses.replace(config, run=dataclasses.replace(config.run, name="two"))) is None


@pytest.mark.parametrize("what", ["a picture", "a new picture", "the table", "the summary", "the cache"])
def test_nor_where_a_file_has_changed(ended, what):
    config, folder = ended
    root = config.trainer.data.folder
    picture = min((root / config.trainer.data.train_pictures).iterdir())
    if what == "a picture":
        picture.write_bytes(picture.read_bytes())
    elif what == "a new picture":
        (picture.parent / "new.jpg").write_bytes(picture.read_bytes())
    elif what == "the table":
        (root / config.trainer.data.train_table).write_text("id\n")
    elif what == "the summary":
        folder.summary.unlink()
    else:
        folder.cache.chmod(0o777)
    assert find_ended(config) is None


def test_what_changed_while_it_ran_is_not_remembered(ended):
    config, folder = ended
    began_ns = time.time_ns()
    time.sleep(0.05)
    picture = min((config.trainer.data.folder / config.trainer.data.train_pictures).iterdir())
    picture.write_bytes(picture.read_bytes())
    note_end(folder, config, began_ns)
    assert find_ended(config) is None


def test_nothing_is_remembered_of_data_that_the_run_makes(ended):
    config, folder = ended
    made = dataclasses.replace(
        config, trainer=dataclasses.replace(config.trainer, data=dataclasses.replace(config.trainer.data, root=None))
    )
    note_end(folder, made, time.time_ns())
    assert find_ended(made) is None
