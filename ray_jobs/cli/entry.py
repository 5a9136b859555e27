"""The entry of every command: expected errors become one message and exit code 2."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

from ray_jobs.cli.screen import guard_screen
from ray_jobs.errors import EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_REFUSED, RunError, is_refused_by_machine, printable


def main_with_errors(main: Any) -> None:
    """Runs a job's main function and ends the process.

    Errors that are meant for the user (the project's own) and what a disk or network refuses are one message, with exit
    code 2. Whatever else comes up here nobody has expected: one sentence, then where it came from, with exit code 1.
    """
    guard_screen()
    from ensemble.predictions import PredictionError
    from trainers.interface import DataError

    try:
        code = main(sys.argv[1:])
        if "ray_jobs.runs.remote.run_mirror" in sys.modules:
            sys.modules["ray_jobs.runs.remote.run_mirror"].push_fetched()
        sys.exit(code)
    except (RunError, DataError, PredictionError) as error:
        message = getattr(error, "cause", None) or error  # without Ray's frame around it
        print(f"error: {printable(str(message))}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if isinstance(error, OSError) and is_refused_by_machine(error):
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            print(f"error: {printable(what)}. Check disk, permissions and network", file=sys.stderr)
            sys.exit(EXIT_REFUSED)
        print(f"{describe_unexpected(error)}\n\n{printable(traceback.format_exc())}", file=sys.stderr)
        sys.exit(EXIT_INCOMPLETE)


def describe_unexpected(error: Exception) -> str:
    """What to say of an error that nobody has written a message for."""
    job, what = Path(sys.argv[0]).name, printable(f"{type(error).__name__}: {error}")
    return (
        f"error: {job} met an unexpected error: {what}. Nothing that was saved is lost. Report it as a bug of this "
        "project, with your command and these lines, which show where it came from:"
    )
