"""What a user reads a command on: a terminal, a pipe, a file. Nothing depends on it.

It may be closed (`| head`), full, gone with its terminal, or unable to show a character. A command goes on all the
same: what it has done is in the run's folder. It refuses nothing."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Any, TextIO

logger = logging.getLogger(__name__)


class LossyFile(io.FileIO):
    """What it cannot take is lost, and costs whoever wrote it nothing: a line of a log on a full disk, or of a closed
    screen."""

    def write(self, content: Any) -> int:
        try:
            return super().write(content) or len(content)
        except OSError as error:
            self.lose(error)
            return len(content)

    def lose(self, error: OSError) -> None:
        """Called when something is lost."""


class _Screen(LossyFile):
    """Says once, in the log, that it takes nothing."""

    is_lost = False

    def lose(self, error: OSError) -> None:
        if not self.is_lost:
            self.is_lost = True
            logger.warning("the screen takes nothing (%s): the command goes on without it", error)


def open_screen(stream: TextIO) -> TextIO:
    """A stream as it is, by a name of its own: it stays where it is when the stream's file is redirected. It loses what
    it cannot take, and shows `?` for what it has no character for."""
    try:
        number = os.dup(stream.fileno())
    except (AttributeError, OSError):  # there is none, or it is no file
        return stream
    file = io.BufferedWriter(_Screen(number, "w", closefd=False))  # it is there as long as the process
    return io.TextIOWrapper(file, encoding=stream.encoding, errors="replace", line_buffering=True)


def guard_screen() -> None:
    """To be called first of all: what this process shows goes through `open_screen`, and what libraries warn of is not
    shown unless Python is asked to (`-W`, PYTHONWARNINGS)."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would become the screen
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = open_screen(sys.stdout), open_screen(sys.stderr)
    if not sys.warnoptions:
        logging.captureWarnings(True)
