"""What a fold's workers do where a run is on object storage: bring what the fold needs to their machine, and put what
it has come to.

The record of a fold grows; objects do not. So it is put in segments, `metrics/segments/fold_<i>/<attempt>-<offset>`,
before each checkpoint or resume point. An attempt's first segment holds all that it keeps of the attempts before, whose
segments then go. The whole record is put before the fold's manifest."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ray_jobs.errors import SupersededError
from ray_jobs.runs.checkpoints import find_needed, is_part
from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.outages import Storage
from ray_jobs.runs.remote.lease import read_fence
from ray_jobs.runs.remote.mirror import Mirror
from ray_jobs.runs.remote.object_names import by_importance, counts, find_fold, is_derived, is_local, split_segment
from trainers.storage.whole_files import write_whole

logger = logging.getLogger(__name__)
POLL_S = 2.0  # between two looks for a request to stop and a later attempt, where the driver is on another machine
_SHARE_OF_AGE = (
    0.01  # so much of an attempt's age passes between two segments that only keep the driver's view of it fresh
)
_MOST_SEGMENTS = 100


class FoldMirror(Mirror):
    """The files of one fold on this machine, and their objects.

    Args:
        folder: of the fold's member.
        uri: of the run.
        fold, attempt: which.
    """

    def __init__(self, folder: RunFolder, uri: str, fold: int, attempt: int) -> None:
        super().__init__(folder, uri)
        self.fold, self.attempt, self.began = fold, attempt, time.monotonic()
        self.mine = (self.prefix(folder), fold)
        self.offset, self.num_segments, self.has_begun = 0, 0, False
        self.is_over = threading.Event()

    @contextlib.contextmanager
    def at_work(self, storage: Storage) -> Iterator[None]:
        """Holds the fold on this machine while it trains; brings what it needs first, and puts its logs last.

        Args:
            storage: waits while the objects cannot be had.
        """
        with self.holding(self._lock_name()) as is_alone:
            if not is_alone:
                logger.warning("an earlier attempt of fold %d still lives on this machine", self.fold)
            storage.retry_while_unavailable("bringing the fold's files", self.bring, by_name=False)
            watcher = threading.Thread(target=self._follow_driver, name="mirror", daemon=True)
            if not self.folder.is_locked():
                watcher.start()
            try:
                yield
            finally:
                self.is_over.set()
                if watcher.is_alive():
                    watcher.join()
                # What counts was put before; of a fold that has failed the last lines are new.
                with contextlib.suppress(OSError):
                    self.push_record()
                    self._push(self._list_derived, [])

    def bring(self) -> None:
        """Makes this machine's files of the fold as the objects are, and what the driver left for it."""
        self.fence = read_fence(self.bucket)
        if not self.folder.is_locked():  # otherwise its driver is on this machine
            with self.holding():
                self.pull_launched()
            self._bring_word()
        self.pull_fold(self.folder, self.fold)

    def bring_beside(self, bring: Callable[[], None]) -> None:
        """On a node where rank 0 is not: brings, unless rank 0 works in this very folder, as where two nodes are one
        machine."""
        with self.holding(self._lock_name(), 0.0) as is_alone:
            if is_alone:
                bring()

    def bring_checkpoint(self, name: str) -> None:
        """Makes a checkpoint as its objects are, and leaves the rest."""
        listed = self.bucket.list(self.name(self.folder.fold(self.fold).checkpoint(name)))
        self._replace(list(listed), listed, {})

    def begin_record(self) -> None:
        """Puts what the attempt keeps of the record, and takes away what it does not keep of the fold."""
        self.offset, self.num_segments, self.has_begun = 0, 0, True
        with self.lock:
            self.push_record()
            self.refuse_if_superseded()
            self._push(self._list_files, self._list_gone())

    def push(self) -> None:
        """Puts the fold's record, then what is new of its checkpoints and other files; removes what of a checkpoint was
        replaced. Whatever else is gone from this machine is brought back.

        Raises:
            SupersededError: a later attempt of the fold has begun.
            OSError: the storage does not take it.
        """
        with self.lock:
            self.push_record()
            self.refuse_if_superseded()
            self.bring_back()
            self._push(self._list_files, filter(self._is_replaced, self._list_gone()))

    def bring_back(self) -> None:
        """Brings what somebody who clears old temporary files has taken from this machine. The fold itself removes
        nothing while it trains but parts of checkpoints that it has replaced."""
        with self.lock:
            gone = self._list_gone()
            # What names parts comes first: only then it can be seen which parts were replaced.
            for name in sorted(gone, key=counts, reverse=True):
                if self._is_replaced(name):
                    continue
                size = self.bucket.measure(name)
                if size is None:
                    del self.pushed[name]
                    continue
                logger.warning("%s was removed from %s by somebody: it is brought back", name, self.root)
                self._replace([name], {name: size}, {})

    def push_record(self) -> None:
        """Puts the lines that are new in the record."""
        with self.lock:
            if not self.has_begun:
                return
            with self.folder.fold_record(self.fold).open("rb") as file:
                file.seek(self.offset)
                content = file.read()
            if not content and self.num_segments:
                return
            self.bucket.write(self._segment(self.offset), content)
            if self.num_segments == 0:
                self._remove_segments(lambda attempt, _: attempt < self.attempt)
            self.offset, self.num_segments = self.offset + len(content), self.num_segments + 1
            if self.num_segments > _MOST_SEGMENTS:
                self._join_segments()

    def push_end(self) -> None:
        """Puts everything but the manifest, which is not written yet."""
        with self.lock:
            self.push()
            self._push(lambda: [*self._list_derived(), self.name(self.folder.fold_record(self.fold))], [])

    def clean_up(self) -> None:
        """The fold is complete and its record whole: resume points and segments are not needed any more, nor is what
        was put during an outage without an answer and replaced since."""
        with contextlib.suppress(OSError):
            self.refuse_if_superseded()
            lasting = self._list_lasting()
            listed = self.bucket.list(self.name(self.folder.fold(self.fold).root))
            for name in sorted(listed, key=by_importance, reverse=True):
                if lasting and find_fold(name) == self.mine and name not in lasting:
                    self.bucket.delete([name])
                    self.pushed.pop(name, None)
            self._remove_segments(lambda attempt, _: attempt <= self.attempt)

    def push_shared(self, path: Path) -> None:
        """Puts tensors that all folds share, unless another fold has."""
        if self.bucket.measure(self.name(path)) != path.stat().st_size:
            self.bucket.write(self.name(path), path)

    def push_part(self, path: Path) -> None:
        """Puts what a rank on another machine than rank 0 has written of a checkpoint.

        Raises:
            SupersededError: a later attempt of the fold has begun.
            OSError: the storage does not take it.
        """
        self.refuse_if_superseded()
        self.bucket.write(self.name(path), path)

    def remove_part(self, path: Path) -> None:
        """Takes away what `push_part` has put."""
        self.bucket.delete([self.name(path)])

    def bring_parts(self, paths: Iterable[Path]) -> None:
        """Brings what ranks on other machines have put, where it is not on this one."""
        with self.lock:
            for path in paths:
                if not path.exists():
                    name = self.name(path)
                    self._replace([name], {name: self.bucket.measure(name) or 0}, {})

    def refuse_if_superseded(self) -> None:
        """Raises SupersededError where the objects tell of a later attempt, or of another driver."""
        if read_fence(self.bucket) > self.fence > 0:
            raise SupersededError(f"another driver has taken over the run; attempt {self.attempt} stops")
        content = self.bucket.find(self._status_name())
        with contextlib.suppress(ValueError):
            attempt = json.loads(content or b"{}").get("attempt", 0)
            if attempt > self.attempt:
                raise SupersededError(f"attempt {attempt} of fold {self.fold} has begun; attempt {self.attempt} stops")

    def refuse_if_lost(self) -> None:
        """See `Mirror`."""
        self.refuse_if_superseded()

    def _follow_driver(self) -> None:
        """Brings what a driver on another machine says, and puts the record now and then so that it can be followed
        there."""
        put_at = time.monotonic()
        while not self.is_over.wait(POLL_S):
            with contextlib.suppress(OSError):  # the fold waits when it has something to put
                self.hear_driver()
                if time.monotonic() - put_at > _SHARE_OF_AGE * (time.monotonic() - self.began):
                    self.push_record()
                    put_at = time.monotonic()

    def hear_driver(self) -> None:
        """Brings what a driver on another machine asks the fold to do.

        Raises:
            OSError: the storage does not give it.
        """
        self.pull_request()
        self._bring_word()

    def _bring_word(self) -> None:
        """Makes what the driver says of the fold as its objects are: its status, and a request to leave."""
        files = self.folder.fold(self.fold)
        for path in (files.status, files.leave_request):
            content = self.bucket.find(self.name(path))
            if content is None:
                path.unlink(missing_ok=True)
            else:
                write_whole(path, content)

    def _join_segments(self) -> None:
        """One segment instead of many: whoever comes next has to list and read them."""
        content = self.folder.fold_record(self.fold).read_bytes()[: self.offset]
        self.bucket.write(self._segment(0), content)
        self._remove_segments(lambda attempt, offset: attempt == self.attempt and offset > 0)
        self.num_segments = 1

    def _remove_segments(self, is_old: Callable[[int, int], bool]) -> None:
        listed = self.bucket.list(self.segments(self.folder, self.fold))
        self.bucket.delete(name for name in listed if is_old(*split_segment(name)))

    def _segment(self, offset: int) -> str:
        return f"{self.segments(self.folder, self.fold)}{self.attempt:06d}-{offset:012d}"

    def _list_files(self) -> list[str]:
        """Names of the fold's own files."""
        place = self.folder.fold(self.fold).root
        names = (self.name(path) for path in place.rglob("*") if path.is_file())
        return [name for name in names if find_fold(name) == self.mine and not is_local(name)]

    def _list_derived(self) -> list[str]:
        """Names of its logs, and of files made from its record."""
        return [name for name in self._walk() if is_derived(name) and find_fold(name) == self.mine]

    def _list_gone(self) -> list[str]:
        """Names of the fold's own files that have objects and are not on this machine any more."""
        return [name for name in list(self.pushed) if find_fold(name) == self.mine and not (self.root / name).exists()]

    def _list_lasting(self) -> set[str]:
        """Names of what stays of a complete fold; of another nothing."""
        files = self.folder.fold(self.fold)
        manifest = read_json(files.manifest, default={"files": {}})
        return {self.name(files.root / name) for name in ("manifest.json", *manifest["files"]) if manifest["files"]}

    def _is_replaced(self, name: str) -> bool:
        """Whether a file is part of a checkpoint and nothing names it any more; of a complete fold, in which resume
        points count no more, whether its manifest does not name it."""
        if lasting := self._list_lasting():
            return name not in lasting
        checkpoints = self.folder.fold(self.fold).checkpoint("")
        place = (self.root / name).relative_to(self.folder.fold(self.fold).root).parts
        if place[0] != checkpoints.name or len(place) < 3 or not is_part(place[2]):
            return False
        return place[2] not in find_needed(checkpoints / place[1])

    def _status_name(self) -> str:
        return self.name(self.folder.fold(self.fold).status)

    def _lock_name(self) -> str:
        return f"{self.folder.member}_fold_{self.fold}"
