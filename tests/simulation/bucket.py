"""An object storage: objects that appear whole, a server that refuses, is slow to list, or does not answer."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from pyarrow.fs import FileSelector, FileType

from simulation.world import World

ADDRESS = "lab/runs"  # bucket and folder of all runs
_REQUEST_S, _STALE_S = 0.02, 1.0


class Store:
    """The objects of a bucket.

    Attributes:
        fault: what is wrong with the server now: refusing, late, lost, away, stale; None: nothing.
        on_change: called after each change: (what, name, content).
    """

    def __init__(self, world: World) -> None:
        self.world, self.fault = world, None
        self.objects: dict[str, bytes] = {}
        self.listed: list[tuple[float, dict[str, int]]] = []  # what a list said, and when
        self.on_change: list[Callable[[str, str, bytes], None]] = []

    def get(self, name: str) -> bytes:
        """An object."""
        self._ask("get", name)
        if name not in self.objects:
            raise FileNotFoundError(errno.ENOENT, "no such object", name)
        return self.objects[name]

    def put(self, name: str, content: bytes) -> None:
        """Puts one, whole; where the answer is lost it is there all the same."""
        self._ask("put", name)
        self._change("put", name, content)
        self._lose_answer(name)

    def delete(self, name: str) -> None:
        """Removes one."""
        self._ask("delete", name)
        if name not in self.objects:
            raise FileNotFoundError(errno.ENOENT, "no such object", name)
        self._change("delete", name, None)
        self._lose_answer(name)

    def list(self, below: str) -> dict[str, int]:
        """{name: bytes}; of a stale server how it was a moment ago."""
        self._ask("list", below)
        now = {name: len(content) for name, content in sorted(self.objects.items())}
        found = now
        if self.fault == "stale" and self.listed and self.listed[-1][0] > self.world.now - _STALE_S:
            found = self.listed[-1][1]
        self.listed = [(self.world.now, now)]
        return {name: size for name, size in found.items() if name.startswith(f"{below}/")}

    def _ask(self, what: str, name: str) -> None:
        luck = self.world.random
        self.world.step(f"{what} {name}", _REQUEST_S * (0.2 + luck.random()))
        if self.fault == "away" or (self.fault == "refusing" and luck.random() < 0.5):
            if self.fault == "away":
                self.world.step(f"no answer for {name}", 5.0)
            raise OSError(f"{what} of {name}: 503 Slow Down")  # without a number, as pyarrow's are

    def _change(self, what: str, name: str, content: bytes | None) -> None:
        if content is None:
            del self.objects[name]
        else:
            self.objects[name] = bytes(content)
        for tell in self.on_change:
            tell(what, name, content or b"")

    def _lose_answer(self, name: str) -> None:
        if self.fault == "lost" and self.world.random.random() < 0.5:
            self.world.step(f"the answer for {name} is lost", 5.0)
            raise OSError(f"{name}: time-out")


class PyarrowFiles:
    """The store as pyarrow's file systems look."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def get_file_info(self, asked: Any) -> Any:
        """Of an object, or of all below a folder."""
        if isinstance(asked, FileSelector):
            found = self.store.list(asked.base_dir)
            return [SimpleNamespace(path=name, size=size, type=FileType.File) for name, size in found.items()]
        if "/" not in asked:
            self.store._ask("look at", asked)
            return SimpleNamespace(type=FileType.Directory)
        self.store._ask("look at", asked)
        content = self.store.objects.get(asked)
        kind = FileType.NotFound if content is None else FileType.File
        return SimpleNamespace(path=asked, size=len(content or b""), type=kind)

    def open_input_stream(self, name: str) -> io.BytesIO:
        """An object's content."""
        return io.BytesIO(self.store.get(name))

    def open_output_stream(self, name: str) -> _Upload:
        """Puts what is written when it is closed without an error."""
        return _Upload(self.store, name)

    def delete_file(self, name: str) -> None:
        """Removes an object."""
        self.store.delete(name)


class _Upload:
    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name, self.parts = store, name, list[bytes]()

    def __enter__(self) -> _Upload:
        return self

    def write(self, part: Any) -> int:
        """A part of it."""
        self.parts.append(bytes(part))
        return len(part)

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.store.put(self.name, b"".join(self.parts))


class OneAfterAnother:
    """Stands for a pool of threads."""

    def __init__(self, most: int) -> None: ...
    def __enter__(self) -> OneAfterAnother:
        return self

    def __exit__(self, *_: object) -> None: ...

    map = staticmethod(map)
