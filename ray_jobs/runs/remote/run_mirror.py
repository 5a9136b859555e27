"""A run on object storage as its driver, or another job of the user, holds it: the lease, what is brought first, what
is put while folds train, and what is put last."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ray_jobs.errors import RunBusyError, RunError, RunFolderError, StorageError
from ray_jobs.runs.file_table import Owner, RunFiles, find_file
from ray_jobs.runs.files import append_whole
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.status import FoldState, read_status
from ray_jobs.runs.location import find_place, find_uri, note_put, split_run
from ray_jobs.runs.remote.bucket import Bucket
from ray_jobs.runs.remote.lease import SILENCE_S, Lease, read_lease
from ray_jobs.runs.remote.mirror import Mirror
from ray_jobs.runs.remote.no_mirror import NO_MIRROR, NoMirror
from ray_jobs.runs.remote.object_names import find_chain, find_fold, is_of_driver, split_segment

INTERVAL_S = 3.0  # between two looks at what is to be put, and at folds that train on other machines
_OF_DIVISION = [vars(RunFiles)[name] for name in ("config", "provenance", "own_fold_plan")]
_fetched: list[RunMirror] = []  # by this process
_seen: dict[str, tuple[object, float]] = {}  # by URI the last lease, and when it was first seen so


class RunMirror(Mirror):
    """The driver's side of a run: its files, and those of folds that it brings."""

    def __init__(self, folder: RunFolder, uri: str) -> None:
        super().__init__(folder, uri)
        self.lease = Lease(self.bucket)
        self.followed: dict[tuple[str, int], tuple[int, int]] = {}  # attempt and end of records

    def pull_all(self, *, whole: bool = True, may_begin: bool = False) -> None:
        """Brings the run: with `whole` the finished folds' checkpoints and predictions, else their records only.

        Raises:
            RunError: see `pull_run`.
        """
        listed = self.pull_run(may_begin=may_begin)
        for prefix, fold in sorted({found for found in map(find_fold, listed) if found is not None}):
            member = RunFolder(self.root / prefix)
            with self.holding(f"{member.member}_fold_{fold}", 0.0) as is_free:
                if not is_free:  # it trains on this machine
                    continue
                if whole and f"{self.name(member.fold(fold).manifest)}" in listed:
                    self.pull_fold(member, fold, listed)
                else:
                    self.pull_record(member, fold)
        self._note_put()

    def bring_fold(self, member: RunFolder, fold: int) -> None:
        """Brings what an attempt that has ended has come to; whoever trained it here may need a moment to let go."""
        with self.holding(f"{member.member}_fold_{fold}"):
            self.pull_fold(member, fold)

    def follow(self, members: list[RunFolder], num_folds: int) -> None:
        """Brings new lines of the records of folds that train on other machines."""
        for member in members:
            for fold in range(num_folds):
                if read_status(member, fold).state == FoldState.TRAINING:
                    with self.holding(f"{member.member}_fold_{fold}", 0.0) as is_free:
                        if is_free:
                            self._follow_record(member, fold)

    def push_run(self, *, logs: bool = False) -> None:
        """As a mirror does, as long as no other driver has taken over.

        Raises:
            RunBusyError: one has.
        """
        self.refuse_if_lost()
        if logs and self.lease.follows_silent:
            self._forget_replaced()
        super().push_run(logs=logs)
        self._note_put()

    def refuse_if_lost(self) -> None:
        """Asks the storage whose the run is: this machine may just have woken up.

        Raises:
            RunBusyError: another driver has taken over.
        """
        if self.lease.beat:
            self.lease.confirm()
        self.lease.check()

    def check(self) -> None:
        """Raises RunBusyError where another driver was seen to have taken over."""
        self.lease.check()

    def keeping(self, members: list[RunFolder], num_folds: int, say: Callable[[str], None]) -> BackgroundPusher:
        """Keeps the objects up to date while the folds of these members train; says so where it cannot."""
        return BackgroundPusher(self, members, num_folds, say)

    def release(self) -> None:
        """Puts what can be put, and lets the next driver begin at once."""
        with contextlib.suppress(OSError, RunBusyError):
            self.push_run(logs=True)
        self.lease.release()

    def push_results(self) -> None:
        """Puts what a job has made that does not hold the run."""
        self._push(lambda: [name for name in self._walk() if find_file(name).file.owner is Owner.COMMAND], [])

    def _note_put(self) -> None:
        """Several threads put, so that the last word has to be the newest."""
        with self.lock:
            pushed = list(self.pushed.items())  # folds are brought meanwhile
            note_put(self.folder, {name: size for name, (_, size) in pushed if name.endswith(".jsonl")})

    def _forget_replaced(self) -> None:
        """Puts anew what the driver before, which was silent, has put or removed after this one had looked. It could do
        so only with objects that this one had not put yet."""
        listed = self.bucket.objects.list()
        for name in filter(is_of_driver, list(self.versions)):
            if name not in listed or not listed[name].version.is_same(self.versions[name]):
                self.pushed.pop(name, None)

    def _follow_record(self, member: RunFolder, fold: int) -> None:
        key, path = (self.prefix(member), fold), member.fold_record(fold)
        segments = self.bucket.list(self.segments(member, fold))
        chain = find_chain(segments)
        if not chain:
            return
        attempt, end = split_segment(chain[0])[0], self.followed.get(key, (0, 0))[1]
        new = [name for name in chain if split_segment(name)[1] + segments[name] > end]
        is_same = self.followed.get(key, (0, 0))[0] == attempt and path.exists() and path.stat().st_size == end
        if is_same and all(split_segment(name)[1] >= end for name in new):
            content = b"".join(self._read_segment(name, segments[name]) for name in new)
            with path.open("ab", buffering=0) as file:
                append_whole(file.fileno(), content, path)
        else:
            self.pull_record(member, fold)
        self.followed[key] = (attempt, path.stat().st_size)


class BackgroundPusher:
    """Keeps the objects of a run up to date while its folds train, in a thread.

    Args:
        mirror: of the run, whose lease is held.
        members, num_folds: its folds.
        say: tells the user that the storage is away, and that it is back.
    """

    def __init__(self, mirror: RunMirror, members: list[RunFolder], num_folds: int, say: Callable[[str], None]) -> None:
        self.mirror, self.members, self.num_folds, self.say = mirror, members, num_folds, say
        self.is_over, self.is_failing = threading.Event(), False
        self.thread = threading.Thread(target=self._keep, name="pusher", daemon=True)

    def __enter__(self) -> BackgroundPusher:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        self.thread.join()

    def _keep(self) -> None:
        while not self.is_over.wait(INTERVAL_S):
            try:
                self.mirror.push_run()
                self.mirror.follow(self.members, self.num_folds)
            except RunBusyError:
                return  # the driver sees it, too
            except (OSError, RunFolderError) as error:
                if not self.is_failing:
                    self.say(
                        f"the run's storage takes no files. {self.mirror.bucket.advise(error)}; what must be put is "
                        "tried again for checkpoint.storage_patience_s"
                    )
                self.is_failing = True
                continue
            if self.is_failing:
                self.say("the run's storage works again")
            self.is_failing = False


@contextlib.contextmanager
def hold_run(folder: RunFolder, uri: str | None = None, *, pushes: bool = True) -> Iterator[RunMirror | NoMirror]:
    """Holds a run for one job that changes it. One on object storage is brought first, and what the job has made is put
    at the end.

    Args:
        folder: the run's.
        uri: of a run on object storage whose folder may not be there yet.
        pushes: at the end what the job has made; a driver has done so, and told the user, itself.

    Yields:
        The run's mirror.

    Raises:
        RunBusyError: another driver lives.
        StorageError: the object storage cannot be used.
    """
    with folder.lock():
        may_begin, uri = uri is not None, uri or find_uri(folder)
        if uri is None:
            yield NO_MIRROR
            return
        mirror = RunMirror(folder, uri)
        mirror.bucket.check()
        with contextlib.ExitStack() as ending:
            try:
                mirror.lease.take()
                mirror.fence = mirror.lease.fence
                ending.callback(mirror.lease.release)
                with mirror.holding():
                    mirror.pull_all(may_begin=may_begin)
            except OSError as error:
                raise StorageError(mirror.bucket.advise(error)) from None
            try:
                yield mirror
            except BaseException:
                mirror.release()
                raise
            if pushes:
                mirror.push_run(logs=True)
            else:
                mirror.release()


def fetch_run(uri: str, *, whole: bool) -> Path:
    """Brings a run to this machine, unless its driver is at work here; returns its folder, or its member's.

    Raises:
        RunError: there is none.
    """
    storage, name, member = split_run(uri)
    if storage.endswith(":/"):
        raise RunError(f"{uri} names no run; expected {uri}/NAME")
    folder = RunFolder(find_place(storage, name))
    mirror = RunMirror(folder, f"{storage}/{name}")
    mirror.bucket.check()
    with mirror.holding():
        if not folder.is_locked():
            try:
                mirror.pull_all(whole=whole)
            except RunFolderError:
                raise
            except RunError:
                if folder.config.exists():
                    raise
                shutil.rmtree(folder.root)
                return folder.root
    _fetched.append(mirror)
    return folder.root / member


def bring_division(folder: RunFolder, uri: str) -> None:
    """Brings what says how a run and its members were begun, before anybody holds it: the rows are checked on its
    division. Of a run that is not there, or whose driver works here, nothing.

    Raises:
        StorageError: the object storage cannot be used.
    """
    was_there = folder.root.exists()
    mirror = RunMirror(folder, uri)
    mirror.bucket.check()
    try:
        with mirror.holding():
            listed = {} if folder.is_locked() else mirror.bucket.list()
            names = [name for name in listed if find_file(name).file in _OF_DIVISION]
            if "config.json" in names:
                mirror._replace(names, listed, {})
    except OSError as error:
        raise StorageError(mirror.bucket.advise(error)) from None
    if not was_there and not folder.config.exists():
        shutil.rmtree(folder.root)


def bring_run(root: Path, uri: str | None) -> None:
    """Makes sure that a run lies on this machine, too, for a worker of a job that has fetched it elsewhere."""
    folder = RunFolder(root)
    if uri is not None and not folder.is_locked():
        mirror = RunMirror(folder, uri)
        with mirror.holding():
            mirror.pull_all()


def list_runs(storage: str) -> list[str]:
    """Names of all runs in an object storage.

    Raises:
        StorageError: it cannot be used.
    """
    bucket = Bucket(storage)
    bucket.check()
    names = (name.partition("/") for name in bucket.list())
    return sorted(run for run, _, rest in names if rest == "config.json")


def push_fetched() -> None:
    """Puts what this process has made in runs that it has fetched."""
    for mirror in _fetched:
        mirror.push_results()


def is_at_work(folder: RunFolder) -> bool:
    """Whether a driver works on a run, which may be on another machine: then what is new of it is brought."""
    uri = find_uri(folder)
    if uri is None or folder.is_locked():
        return folder.is_locked()
    mirror = RunMirror(folder, uri)
    with contextlib.suppress(OSError):
        lease, now = read_lease(mirror.bucket), time.monotonic()
        with mirror.holding():
            mirror.pull_all(whole=False)
        if lease is None:
            return False
        known, since = _seen.get(uri, (None, now))
        _seen[uri] = (lease, since if known == lease else now)
    return time.monotonic() - _seen.get(uri, (None, 0.0))[1] < SILENCE_S
