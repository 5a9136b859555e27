"""Summary and provenance: files of earlier code are read, and what is read is written with the same bytes."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from support.made_run import make_run
from support.processes import REPOSITORY

from ray_jobs.errors import RunFolderError
from ray_jobs.runs.files import read_json, write_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.provenance import Provenance, find_provenance, read_provenance, write_provenance
from ray_jobs.runs.json_files.status import FoldState
from ray_jobs.runs.json_files.summary import Summary, find_summary, read_summary, write_summary

KEPT = REPOSITORY / "tests" / "end_to_end" / "data" / "killed_run.tar.gz"


def unpack(name: str, tmp_path: Path) -> RunFolder:
    """The kept run of earlier code, with one of its files."""
    with tarfile.open(KEPT) as archive:
        archive.extract(f"before/{name}", tmp_path, filter="data")
    return RunFolder(tmp_path / "before")


def test_a_summary_of_earlier_code_is_read(tmp_path):
    folder = unpack("summary.json", tmp_path)
    written = read_json(folder.summary)
    summary = read_summary(folder)
    assert (summary.outcome, summary.notes, summary.stage.members) == ("partial", (), None)
    assert [fold.state for fold in summary.folds] == [FoldState.COMPLETED, FoldState.WAITING]
    assert summary.stage.scores.chosen == written["scores"]["out_of_fold"]["best"]
    assert summary.stage.scored_folds == {"main": (0,)}
    assert summary.stage.submission.reason.startswith("folds [1] are not trained")
    write_summary(folder, summary)
    again = read_json(folder.summary)
    assert again.pop("notes") == []  # which earlier code did not write
    assert [fold.pop("epochs") for fold in again["folds"]] == [0, 0]  # nor these
    assert again == written


def test_a_provenance_of_earlier_code_is_read(tmp_path):
    folder = unpack("provenance.json", tmp_path)
    before = folder.provenance.read_bytes()
    provenance = read_provenance(folder)
    assert (provenance.target, provenance.num_train, provenance.notes) == ("views", 40, None)
    write_provenance(folder, provenance)
    assert folder.provenance.read_bytes() == before


@pytest.mark.parametrize("members", [(), ("wide model.hidden_dim=128",)])
def test_a_summary_is_written_with_the_bytes_that_were_read(tmp_path, members):
    folder, _, summary = make_run(tmp_path / "run", num_epochs=1, members=members)
    before = folder.summary.read_bytes()
    assert read_summary(folder) == summary
    write_summary(folder, read_summary(folder))
    assert folder.summary.read_bytes() == before
    names = ["run", "recipe", "outcome", "scores", "scored_folds", *(["members", "combinations"] if members else []),
             "new_rows", "submission", "leaks", "notes", "ensemble", "bit_repeatable", "folds", "seconds", "finished", "paths",
             "size_bytes", "versions"]  # fmt: skip
    assert list(json.loads(before)) == names


def test_a_trial_that_never_began_has_a_summary_of_its_end_alone(tmp_path):
    folder = RunFolder(tmp_path)
    write_json(folder.summary, {"trial": {"state": "failed"}})
    summary = read_summary(folder)
    assert summary == Summary(trial={"state": "failed"})
    assert summary.stage.submission.reason == "none was made"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"folds": [{"fold": 0, "state": "lost"}]}', b'{"scores": {}}'])
def test_a_damaged_summary_is_named_or_passed_over(tmp_path, content):
    folder = RunFolder(tmp_path)
    folder.summary.write_bytes(content)
    assert find_summary(folder) is None
    with pytest.raises(RunFolderError, match=r"summary\.json is missing or damaged"):
        read_summary(folder)


def test_of_a_missing_provenance_nothing_is_known(tmp_path):
    assert find_provenance(RunFolder(tmp_path)) == Provenance()
    with pytest.raises(RunFolderError, match=r"provenance\.json is missing or damaged"):
        read_provenance(RunFolder(tmp_path))
