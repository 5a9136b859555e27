"""What a job says of an error, and with which code it ends: the user's, the machine's, a bug's."""

from __future__ import annotations

import errno

import pytest

from ensemble.predictions import PredictionError
from ray_jobs import errors
from ray_jobs.cli.entry import main_with_errors
from ray_jobs.errors import RunError
from trainers.interface import DataError


def run(error, capsys):
    def main(argv):
        raise error

    with pytest.raises(SystemExit) as ended:
        main_with_errors(main)
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize("kind", [RunError, DataError, PredictionError])
def test_an_error_that_is_meant_for_the_user_is_one_message(kind, capsys):
    assert run(kind("data.root=x: no such folder"), capsys) == (2, "error: data.root=x: no such folder\n")


def test_what_a_disk_refuses_is_one_message(capsys):
    code, said = run(OSError(errno.ENOSPC, "No space left on device", "/runs/a"), capsys)
    assert code == 2
    assert said == "error: /runs/a: No space left on device. Check disk, permissions and network\n"


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "No such file", "plan.parquet"), KeyError("column")])
def test_a_bug_shows_where_it_came_from_and_is_not_taken_for_the_users_mistake(error, capsys):
    code, said = run(error, capsys)
    assert code == 1
    assert "met an unexpected error" in said.splitlines()[0]
    assert type(error).__name__ in said.splitlines()[0]
    assert "Traceback (most recent call last)" in said
    assert "in main" in said
    assert "Report it as a bug" in said


def test_terminal_codes_in_an_unexpected_error_do_nothing(capsys):
    assert "\x1b" not in run(ValueError("\x1b[31mred"), capsys)[1]


def test_an_interrupt_has_its_code(capsys):
    assert run(KeyboardInterrupt(), capsys) == (130, "")


def test_every_error_of_the_project_is_in_the_tree():
    named = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    assert all(f"── {name} " in errors.__doc__ for name in named)
    users = {name for name in named if issubclass(getattr(errors, name), RunError)}
    ends = errors.__doc__.partition("OSError")[0]
    assert {name for name in named if name in ends} == users
