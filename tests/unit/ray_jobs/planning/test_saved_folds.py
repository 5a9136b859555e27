"""A run, a member or a tuning goes on with the division that it began with, however new runs are divided."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from support.object_server import BUCKET

from ensemble.predictions import build_table
from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.config.recipes import RECIPES
from ray_jobs.config.tune import TuneConfig
from ray_jobs.errors import ConfigChangedError
from ray_jobs.planning.checks import check_run
from ray_jobs.planning.continuation import write_or_compare
from ray_jobs.planning.plan import build_plan_table
from ray_jobs.runs.files import write_json, write_parquet
from ray_jobs.runs.remote.run_mirror import RunMirror
from ray_jobs.tuning.planning import check_tuning, write_or_compare_tuning
from ray_jobs.tuning.space import parse_space


@pytest.fixture
def words(tmp_path, small_frame, write_data):
    root = write_data(small_frame.assign(lot=np.arange(len(small_frame)) // 3))
    return [
        f"data.root={root}",
        "data.group_column=lot",
        "folds.kind=grouped",
        f"run.storage={tmp_path / 'runs'}",
        "run.name=x",
    ]


def check(words):
    return check_run(parse_kfold(words).config, None)


def divide_as_an_earlier_version(member):
    """Another division of the same groups, as if it had been written when the run began."""
    fold = (member.folds.fold + 1 + (member.folds.group == 0)) % 3
    earlier = dataclasses.replace(member.folds, fold=fold)
    write_parquet(member.folder.own_fold_plan, build_plan_table(earlier))
    write_fingerprint(member.folder.provenance, earlier)
    return fold.tolist()


def write_fingerprint(provenance, folds):
    known = json.loads(provenance.read_text()) | {"plan_fingerprint": folds.fingerprint()}
    del known["checksum"]
    write_json(provenance, known, checksum=True)


def test_a_run_and_its_members_go_on_with_the_division_they_began_with(words):
    words.append("members=[again folds.seed=7, same training.seed=1]")
    plan = write_or_compare(check(words), [], print)
    known = {name: divide_as_an_earlier_version(plan.members[name]) for name in ("main", "again")}
    shared = dataclasses.replace(plan.folds, fold=np.array(known["main"]))
    write_fingerprint(plan.members["same"].folder.provenance, shared)
    assert known["main"] != plan.folds.fold.tolist()
    checked = check(words)
    said = []
    for after in (checked, write_or_compare(checked, [], said.append)):
        assert {name: after.members[name].folds.fold.tolist() for name in known} == known
        assert after.members["same"].folds is after.folds
        assert after.folds.group.tolist() == plan.folds.group.tolist()
    assert said == []


def test_a_run_that_comes_from_object_storage_after_the_checks_keeps_its_division(words, tmp_path):
    plan = write_or_compare(check(words), [], print)
    fold = divide_as_an_earlier_version(plan.members["main"])
    shutil.move(plan.folder.root, tmp_path / "bucket")
    checked = check(words)
    shutil.copytree(tmp_path / "bucket", plan.folder.root)
    assert write_or_compare(checked, [], print).folds.fold.tolist() == fold


def test_a_run_on_object_storage_is_checked_on_its_division_where_nothing_of_it_is_here(
    words, tmp_path, bucket_server, monkeypatch
):
    """Predictions from elsewhere on the run's division would be refused on another."""
    for name, value in bucket_server.environment.items():
        monkeypatch.setenv(name, value)
    storage = f"s3://{BUCKET}/{tmp_path.name}"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    words = [word for word in words if not word.startswith("run.storage")] + [f"run.storage={storage}"]
    plan = check(words)
    assert not plan.folder.root.exists()  # of a run that is not there nothing is left
    plan = write_or_compare(plan, [], print)
    fold = np.array(divide_as_an_earlier_version(plan.members["main"]))
    RunMirror(plan.folder, f"{storage}/x").push_run()
    shutil.rmtree(plan.folder.root)
    tables = []
    for number in range(3):
        rows = fold == number
        target = plan.inventory.target[rows]
        columns = (plan.folds.ids[rows], target + 1, np.log1p(target + 1), target)
        tables.append(build_table(*columns, fold=number, checkpoint="best", member="other"))
    write_parquet(tmp_path / "other.parquet", pa.concat_tables(tables))
    words.append(f"ensemble.external={tmp_path / 'other.parquet'}")
    assert check(words).folds.fold.tolist() == fold.tolist()


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1")])
def test_a_division_that_is_lost_and_would_be_another_now_is_asked_for(words, damage):
    plan = write_or_compare(check(words), [], print)
    divide_as_an_earlier_version(plan.members["main"])
    damage(plan.folder.fold_plan)
    with pytest.raises(
        ConfigChangedError, match=r"x/fold_plan.parquet is missing or damaged.* Put back a copy of the file"
    ):
        write_or_compare(check(words), [], print)


def test_other_folds_than_the_run_began_with_are_refused_by_their_field(words):
    write_or_compare(check(words), [], print)
    words.append("folds.count=4")
    assert len(check(words).folds.sizes()) == 4
    with pytest.raises(ConfigChangedError, match=r"folds.count: 3 in the run, 4 now"):
        write_or_compare(check(words), [], print)


def test_a_tuning_goes_on_with_the_division_of_its_trials(tmp_path):
    config = RECIPES["clip_multimodal_small"]()
    data = dataclasses.replace(config.trainer.data, max_rows=30)
    run = dataclasses.replace(config.run, storage=str(tmp_path))
    config = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, data=data), run=run)
    tune = TuneConfig(name="search", space=("model.dropout choice 0.0 0.3",))

    def check_again():
        return check_tuning(config, tune, parse_space(tune.space, config), [])

    tuning = check_again()
    write_or_compare_tuning(tuning, [])
    folds = tuning.plan.folds
    earlier = dataclasses.replace(folds, fold=(folds.fold + 1) % 3)
    write_parquet(tuning.folder.of_trial("trial_000").fold_plan, build_plan_table(earlier))
    write_fingerprint(tuning.folder.provenance, earlier)
    again = check_again()
    assert again.plan.folds.fold.tolist() == earlier.fold.tolist()
    write_or_compare_tuning(again, [])
