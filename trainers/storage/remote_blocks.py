"""Blocks of rows in object storage, by which machines without a shared folder share what they have computed.

An object is a block's file, byte for byte, under the same name below a URI. It appears whole, and since its name stands
for its content, it does not matter who of several writes it last. Whoever fetches one verifies the checksum in it; a
damaged one is computed again and put anew.

Nothing here is ever waited for: what cannot be asked, fetched or put now is as if it were not there, and said.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from trainers.interface import DataError
from trainers.storage.remote_files import list_objects, put_object, read_object
from trainers.storage.whole_files import write_whole

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")
PATIENCE_S = 5.0  # for one question
PAUSE_S = 60.0  # without questions after one that was not answered


class RemoteBlocks:
    """The blocks below a URI."""

    def __init__(self, uri: str) -> None:
        self.uri, self.silent_until = uri, 0.0

    def list_names(self) -> set[str]:
        """The names of the blocks that are there."""
        return set(self._ask(lambda: list_objects(self.uri, PATIENCE_S)) or ())

    def fetch(self, path: Path) -> bool:
        """Brings the block of this name to this path, if it is there; its content is not looked at.

        Raises:
            OSError: the file system does not take it.
        """
        content = self._ask(lambda: read_object(f"{self.uri}/{path.name}", PATIENCE_S))
        if content is None:
            return False
        write_whole(path, content)
        return True

    def put(self, path: Path) -> None:
        """Puts a block that was computed here."""
        content = path.read_bytes()
        self._ask(lambda: put_object(f"{self.uri}/{path.name}", content, PATIENCE_S))

    def _ask(self, ask: Callable[[], Answer]) -> Answer | None:
        if time.monotonic() < self.silent_until:
            return None
        try:
            return ask()
        except FileNotFoundError:
            return None
        except (OSError, DataError) as error:
            self.silent_until = time.monotonic() + PAUSE_S
            logger.warning("blocks are not shared through %s for the next %g s: %s", self.uri, PAUSE_S, error)
            return None
