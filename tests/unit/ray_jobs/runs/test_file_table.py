"""The table of a run's files: complete, and the only place that knows their names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.made_map_run import make_map_run
from support.made_run import make_run
from support.run_files import list_unknown_files

from ray_jobs.config.recipes import RECIPES
from ray_jobs.runs.file_table import FILES, UNKNOWN, Owner, Put, find_file, list_files
from ray_jobs.runs.folder import RunFolder

KINDS = {kind.name: kind for kind in (make().kind for make in RECIPES.values())}


@pytest.mark.parametrize("make", [make_run, make_map_run])
def test_a_finished_run_has_only_files_that_the_table_knows_and_its_readme_lists_those_of_its_kind(make, tmp_path):
    folder, config, _ = make(tmp_path / "run")
    assert list_unknown_files(folder.root) == []
    rows = [f"| `{file.name}` | {file.about} |" for file in list_files(config.kind)]
    assert folder.readme.read_text().endswith("\n".join(rows) + "\n")


def test_a_file_that_nobody_has_described_is_found(tmp_path):
    for name in ("new.json", "folds/0/new.json", "members/wide/metrics/new.csv", "trials/trial_000/new.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    unknown = ["folds/0/new.json", "members/wide/metrics/new.csv", "new.json", "new.json"]
    assert list_unknown_files(tmp_path) == unknown


def test_no_two_rows_have_one_name_and_each_matches_itself():
    assert len({file.name for file in FILES}) == len(FILES)
    for file in FILES:
        name = file.name.replace("<i>", "3")
        found = find_file(f"{name}x" if name.endswith("/") else name).file
        assert found is file or file.name == "members/<name>/", file.name


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_kind_describes_only_files_of_the_table_and_has_what_its_offers_need(kind):
    assert set(kind.files) <= {file.name for file in FILES}
    listed = {file.name for file in list_files(kind)}
    assert set(kind.files) <= listed
    assert ("members/<name>/" in listed) == ("members" in kind.offers)


def test_every_path_of_a_run_is_in_the_table(tmp_path):
    run = RunFolder(tmp_path)
    member = run.of_member("wide")
    for folder in (run, member, run.of_trial("trial_000")):
        fold = folder.fold(3)
        paths = [folder.fold_record(3), folder.submission("mean"), folder.stop_request, folder.driver_lock]
        paths += [fold.status, fold.leave_request, fold.manifest, fold.bad_rows(0), fold.bad_rows(1)]
        paths += [fold.checkpoint("best") / "checkpoint.json", fold.predictions("test", "best")]
        paths += [
            folder.fold_logs(3) / "training_1.log",
            folder.fold_csv(3) / "epoch_metrics_1.csv",
            folder.inputs / "x",
        ]
        paths += [folder.train_scratch / "x", folder.shared_tensors("encoder", "0123456789ab" * 3)]
        for path in paths:
            assert find_file(path.relative_to(tmp_path).as_posix()).file is not UNKNOWN, path
    assert find_file("members/wide/folds/3/status.json").member == "members/wide/"
    assert find_file("folds/3/predictions/test_best.parquet").fold == 3


def test_who_writes_a_file_and_what_becomes_of_it():
    def describe(name):
        file = find_file(name).file
        return file.owner, file.put

    assert describe("folds/0/status.json") == (Owner.DRIVER, Put.SOON)
    assert describe("folds/0/manifest.json") == (Owner.FOLD, Put.SOON)
    assert describe("log/ray.log") == (Owner.DRIVER, Put.AT_END)
    assert describe("log/training_1.log") == (Owner.FOLD, Put.AT_END)
    assert describe("encoder-0123456789ab.safetensors") == (Owner.FOLDS, Put.SOON)
    assert describe("wandb/ids.json") == (Owner.DRIVER, Put.SOON)
    assert describe("wandb/offline-run-1/run.wandb") == (Owner.PUBLISHER, Put.NEVER)
    assert describe("predictions/new.csv") == (Owner.COMMAND, Put.AT_END)
    assert not find_file("analysis/training_live.png").file.is_pruned


def test_paths_of_a_run_are_made_without_looking_at_the_disk(monkeypatch, tmp_path):
    def refuse(path, *_, **__):
        raise AssertionError(path)

    for name in ("stat", "lstat", "open", "listdir"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(Path, "exists", refuse)
    run = RunFolder(tmp_path / "trials" / "trial_000")
    assert run.of_member("wide").fold(0).status.name == "status.json"


def test_the_inputs_of_a_trial_are_its_tuning_s(tmp_path):
    tuning = RunFolder(tmp_path / "tuning")
    trial = tuning.of_trial("trial_000")
    assert trial.inputs == trial.root / "inputs"  # a run in a folder of that name
    tuning.root.mkdir()
    tuning.tune.write_text("{}")
    assert trial.inputs == trial.of_member("wide").inputs == tuning.root / "inputs"
    assert trial.cache == tmp_path / ".kfold_cache"


def test_whether_a_run_has_folds_is_read_once_and_not_guessed_for_good(tmp_path):
    run = RunFolder(tmp_path)
    assert run.fold_logs(0) == run.log / "fold_0"  # it has no config yet
    run.config.write_text('{"folds": {"kind": "holdout"}}')
    assert run.fold_logs(0) == run.log
    run.config.unlink()
    assert run.fold_csv(0) == run.metrics
