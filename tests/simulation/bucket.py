"""An object storage: objects that appear whole, conditional puts, a server that refuses, is slow to list, or does not
answer. What stands in the place of `obstore` in the product's client, so that the client's own retries run."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from obstore.exceptions import AlreadyExistsError, GenericError, PreconditionError

from simulation.world import World

ADDRESS = "lab/runs"  # bucket and folder of all runs
FAULTS = ("refusing", "lost", "away", "stale", "conflict")
_REQUEST_S, _STALE_S = 0.02, 1.0
_MODIFIED = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


class Store:
    """The objects of a bucket.

    Attributes:
        fault: what is wrong with the server now: one of `FAULTS`; None: nothing.
        on_change: called after each change: (what, name, content).
        on_stale: called when a list may tell what was.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.fault: str | None = None
        self.objects: dict[str, bytes] = {}
        self.listed: list[tuple[float, dict[str, bytes]]] = []  # what a list said, and when
        self.on_change: list[Callable[[str, str, bytes], None]] = []
        self.on_stale: Callable[[], None] = lambda: None

    def get(self, name: str) -> bytes:
        """An object."""
        self.ask("get", name)
        if name not in self.objects:
            raise FileNotFoundError(name)
        return self.objects[name]

    def put(self, name: str, content: bytes, mode: str | dict[str, str]) -> None:
        """Puts one, whole, if the condition holds; where the answer is lost it is there all the same."""
        self.ask("put", name)
        there = self.objects.get(name)
        if mode != "overwrite" and self.fault == "conflict" and self.world.random.random() < 0.5:
            raise AlreadyExistsError(f"{name}: status code: 409 Conflict: ConditionalRequestConflict")
        if mode == "create" and there is not None:
            raise AlreadyExistsError(f"{name}: status code: 412 Precondition Failed")
        if isinstance(mode, dict) and (there is None or mode["e_tag"] != make_e_tag(there)):
            raise PreconditionError(f"{name}: status code: 412 Precondition Failed")
        self._change("put", name, content)
        self._lose_answer(name)

    def delete(self, name: str) -> None:
        """Removes one; one that is not there is no error, as of S3."""
        self.ask("delete", name)
        if name in self.objects:
            self._change("delete", name, None)
        self._lose_answer(name)

    def list(self, below: str) -> dict[str, bytes]:
        """The objects below a folder; of a stale server how they were a moment ago."""
        self.ask("list", below)
        now = dict(sorted(self.objects.items()))
        found = now
        if self.fault == "stale" and self.listed and self.listed[-1][0] > self.world.now - _STALE_S:
            found = self.listed[-1][1]
            self.on_stale()
        self.listed = [(self.world.now, now)]
        return {name: content for name, content in found.items() if name.startswith(f"{below}/")}

    def ask(self, what: str, name: str) -> None:
        """A request, which the server may refuse or not answer."""
        luck = self.world.random
        self.world.step(f"{what} {name}", _REQUEST_S * (0.2 + luck.random()))
        if self.fault == "away":
            self.world.step(f"no answer for {name}", luck.choice((0.01, 5.0)))  # refused, or not heard
            raise GenericError(f"{what} of {name}: error sending request")
        if self.fault == "refusing" and luck.random() < 0.5:
            raise GenericError(f"{what} of {name}: status code: {luck.choice((429, 500, 503))} Slow Down")

    def _change(self, what: str, name: str, content: bytes | None) -> None:
        if content is None:
            del self.objects[name]
        else:
            self.objects[name] = content
        for tell in self.on_change:
            tell(what, name, content or b"")

    def _lose_answer(self, name: str) -> None:
        if self.fault == "lost" and self.world.random.random() < 0.5:
            self.world.step(f"the answer for {name} is lost", self.world.random.choice((0.1, 5.0)))
            raise GenericError(f"{name}: operation timed out")


def make_e_tag(content: bytes) -> str:
    """As S3 does: the same for the same content."""
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


class Place:
    """A folder of the bucket: what `obstore.store.S3Store` is."""

    def __init__(self, store: Store, folder: str) -> None:
        self.store, self.folder = store, folder

    def name(self, name: str) -> str:
        """Of an object in the bucket."""
        return f"{self.folder}/{name}"

    def describe(self, name: str, content: bytes) -> dict[str, Any]:
        """What a server says of an object."""
        path, e_tag = name.removeprefix(f"{self.folder}/"), make_e_tag(content)
        return {"path": path, "size": len(content), "last_modified": _MODIFIED, "e_tag": e_tag, "version": None}


class Found:
    """What `obstore.get` gives: an object, which comes in two parts and may break off in between."""

    def __init__(self, place: Place, name: str, content: bytes) -> None:
        self.place, self.name, self.content = place, name, content
        self.meta = place.describe(place.name(name), content)

    def stream(self, min_chunk_size: int) -> Iterator[bytes]:
        """Its parts."""
        half = len(self.content) // 2
        yield self.content[:half]
        if half:
            self.place.store.ask("go on with", self.place.name(self.name))
        yield self.content[half:]


class Obstore:
    """Has of the module `obstore` what the product's client calls."""

    @staticmethod
    def get(place: Place, name: str) -> Found:
        """An object."""
        return Found(place, name, place.store.get(place.name(name)))

    @staticmethod
    def put(place: Place, name: str, content: Any, mode: Any = "overwrite", **_: int) -> dict[str, Any]:
        """Puts a file or bytes."""
        content = bytes(content) if isinstance(content, bytes) else content.read_bytes()
        place.store.put(place.name(name), content, mode)
        return {"e_tag": make_e_tag(content), "version": None}

    @staticmethod
    def list(place: Place, start: str | None = None, chunk_size: int = 50) -> list[list[dict[str, Any]]]:
        """The objects below a folder, in pages."""
        found = place.store.list(place.name(start) if start else place.folder)
        return [[place.describe(name, content) for name, content in found.items()]] if found else []

    @staticmethod
    def head(place: Place, name: str) -> dict[str, Any]:
        """An object without its content."""
        place.store.ask("look at", place.name(name))
        content = place.store.objects.get(place.name(name))
        if content is None:
            raise FileNotFoundError(name)
        return place.describe(place.name(name), content)

    @staticmethod
    def delete(place: Place, name: str) -> None:
        """Removes an object."""
        place.store.delete(place.name(name))


class OneAfterAnother:
    """Stands for a pool of threads."""

    def __init__(self, most: int) -> None: ...
    def __enter__(self) -> OneAfterAnother:
        return self

    def __exit__(self, *_: object) -> None: ...

    map = staticmethod(map)
