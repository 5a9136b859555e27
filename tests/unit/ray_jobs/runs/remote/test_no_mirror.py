"""What stands in for a mirror is called as a mirror is."""

from __future__ import annotations

import inspect

import pytest

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.remote.fold_mirror import FoldMirror
from ray_jobs.runs.remote.no_mirror import NO_MIRROR, NoMirror
from ray_jobs.runs.remote.run_mirror import RunMirror, hold_run

METHODS = [name for name, value in vars(NoMirror).items() if inspect.isfunction(value)]


@pytest.mark.parametrize("name", METHODS)
def test_each_method_takes_what_that_of_a_mirror_takes(name):
    of_mirror = getattr(RunMirror, name, None) or getattr(FoldMirror, name)
    own, others = (inspect.signature(one).parameters for one in (getattr(NoMirror, name), of_mirror))
    assert {n: (p.kind, p.default) for n, p in own.items()} == {n: (p.kind, p.default) for n, p in others.items()}


def test_a_run_in_a_folder_is_held_with_it(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with hold_run(folder) as mirror:
        assert mirror is NO_MIRROR
        assert mirror.uri is None
        with mirror.keeping([folder], 2, print):
            mirror.push_run(logs=True)
        assert folder.is_locked()
