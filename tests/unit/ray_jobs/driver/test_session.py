"""How the drivers of runs and tunings end, and what the user is told."""

import errno
import io
import os

import pytest

from ray_jobs.cli.console import NamedConsole, RunConsole
from ray_jobs.config.recipes import RECIPES
from ray_jobs.driver.session import EXIT_INCOMPLETE, EXIT_INTERRUPTED, Session
from ray_jobs.errors import ClusterLostError, RunFolderError
from ray_jobs.runs.folder import RunFolder

HOW = "every fold goes on from its last checkpoint. The same command continues run a"


@pytest.fixture
def session(tmp_path):
    return Session("run a", RunFolder(tmp_path), RECIPES["clip_multimodal_small"](), None, RunConsole(io.StringIO()))


def raise_it(error):
    raise error


def test_what_the_work_returns_is_the_exit_code(session):
    assert session.run(lambda: 7) == 7
    assert session.console.file.getvalue() == ""


def test_an_interrupted_driver_says_once_how_to_go_on(session):
    session.say_interrupted()
    assert session.run(lambda: raise_it(KeyboardInterrupt())) == EXIT_INTERRUPTED
    assert session.console.file.getvalue().count(f"interrupted: {HOW}\n") == 1


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RunFolderError("damaged")])
def test_a_storage_that_fails_ends_a_driver_with_a_message(session, error):
    assert session.run(lambda: raise_it(error)) == EXIT_INCOMPLETE
    assert str(error) in session.console.file.getvalue()


def test_a_lost_cluster_ends_the_process_at_once(session, monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    session.run(lambda: raise_it(ClusterLostError("the Ray cluster at h:1 is gone")))
    assert ended == [EXIT_INCOMPLETE]
    assert f"the Ray cluster at h:1 is gone: {HOW}\n" in session.console.file.getvalue()


def test_a_bug_goes_on_to_whoever_called(session):
    with pytest.raises(KeyError):
        session.run(lambda: raise_it(KeyError("x")))


def test_a_part_of_a_job_has_its_name_on_the_screen_and_a_log_of_its_own(session):
    part = NamedConsole(session.console, "trial_001")
    part.print("fold 0 failed", style="yellow")
    assert session.console.take_lines() == ["trial_001: fold 0 failed"]
    assert part.take_lines() == ["fold 0 failed"]
    assert part.take_lines() == []
