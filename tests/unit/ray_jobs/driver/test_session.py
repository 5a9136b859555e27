"""How the drivers of runs and tunings end, and what the user is told."""

import dataclasses
import errno
import io
import os

import pytest

from ray_jobs.cli.console import NamedConsole, RunConsole
from ray_jobs.config.recipes import RECIPES
from ray_jobs.driver import session as session_module
from ray_jobs.driver.session import EXIT_INCOMPLETE, EXIT_INTERRUPTED, Session, no_empty_run, note_memory
from ray_jobs.errors import ClusterError, ClusterLostError, RunFolderError
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


def test_where_ray_was_ended_with_the_driver_it_is_an_interrupt(session, monkeypatch):
    """Of which the user has been told."""
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    session.say_interrupted()
    session.run(lambda: raise_it(ClusterLostError("the Ray cluster at h:1 is gone")))
    assert ended == [EXIT_INTERRUPTED]
    assert "is gone" not in session.console.file.getvalue()


def test_a_run_that_is_refused_before_it_has_begun_leaves_no_folder(tmp_path):
    def make_and_refuse(names):
        for name in names:
            (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / name).touch()
        raise ClusterError("Ray does not start")

    def refuse(*names):
        with pytest.raises(ClusterError), no_empty_run(str(tmp_path), "a"):
            make_and_refuse(names)
        return (tmp_path / "a").exists()

    assert not refuse("config.json", "log/ray.log")
    assert refuse("config.json", "trials/trial_000/events.jsonl")  # folds were launched
    (tmp_path / "a" / "trials" / "trial_000" / "events.jsonl").unlink()
    assert refuse()  # it was there


def test_a_dry_run_says_where_memory_is_short(monkeypatch):
    config = RECIPES["clip_multimodal_small"]()
    for free_gib, said in ((64, None), (4, "without a GPU: there is memory for 1 fold(s) at once, of 1.4 GiB each, ")):
        monkeypatch.setattr(session_module, "find_free_bytes", lambda: free_gib * 2**30)  # noqa: B023
        note = note_memory(config, 3)
        assert note is None if said is None else note.startswith(said)
    gpus = dataclasses.replace(config, resources=dataclasses.replace(config.resources, gpus_per_fold=1))
    assert note_memory(gpus, 3) is None


def test_a_bug_goes_on_to_whoever_called(session):
    with pytest.raises(KeyError):
        session.run(lambda: raise_it(KeyError("x")))


def test_a_part_of_a_job_has_its_name_on_the_screen_and_a_log_of_its_own(session):
    part = NamedConsole(session.console, "trial_001")
    part.print("fold 0 failed", style="yellow")
    assert session.console.take_lines() == ["trial_001: fold 0 failed"]
    assert part.take_lines() == ["fold 0 failed"]
    assert part.take_lines() == []
