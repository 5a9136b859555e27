"""What is asked of a fold while it trains: to end, at once or after an epoch. All ranks hear it at the same step."""

from __future__ import annotations

import contextlib
import math
import time

from ray_jobs.errors import FoldStoppedError
from ray_jobs.runs.folder import FoldFolder, RunFolder
from ray_jobs.runs.json_files.requests import StopWhen, is_leave_requested, read_stop_request
from ray_jobs.runs.remote.fold_mirror import FoldMirror
from ray_jobs.runs.remote.no_mirror import NO_MIRROR, NoMirror
from ray_jobs.worker.ranks import Ranks

LOOK_INTERVAL_S = 0.1  # between two looks for a request to stop
LOOK_TOGETHER_S = 1.0  # between two of several ranks
LOOK_ELSEWHERE_S = 2.0  # between two of a rank that has to ask the object storage


class Requests:
    """The requests to one attempt of a fold.

    Args:
        folder: of the run.
        files: of the fold.
        attempt: which.
        ranks: that have to agree.
        most_steps: from one look of several ranks to the next, at most.

    Attributes:
        stops_now: whether the fold is to end at this step.
        mirror: of a rank on another machine than rank 0, where the run is on object storage.
    """

    def __init__(self, folder: RunFolder, files: FoldFolder, attempt: int, ranks: Ranks, most_steps: int) -> None:
        self.folder, self.files, self.attempt, self.ranks, self.most_steps = folder, files, attempt, ranks, most_steps
        self.stops_now = False
        self.mirror: FoldMirror | NoMirror = NO_MIRROR
        self.heard_at = -math.inf
        self.last_look, self.last_step, self.stride = 0.0, 0, 1  # in steps: from one look to the next

    def look(self, global_step: int) -> None:
        """Finds out whether the fold is asked to end at this step. Ranks have to agree, so several ask each other only
        now and then: rank 0 says after how many steps."""
        if self.ranks.world_size > 1:
            is_time = global_step >= self.last_step + self.stride
        else:
            is_time = time.monotonic() - self.last_look > LOOK_INTERVAL_S
        if is_time:
            steps, now = global_step - self.last_step, time.monotonic()
            wanted = int(steps * LOOK_TOGETHER_S / max(1e-3, now - self.last_look))
            # Steps may become longer, too: not more at once than what is fetched together.
            (self.stride,) = self.ranks.hear_first(max(1, min(wanted, 2 * self.stride, self.most_steps)))
            self.last_look, self.last_step = now, global_step
            self.stops_now = self.hear() == StopWhen.NOW

    def hear(self) -> StopWhen | None:
        """The request to stop that lies in the folder of the run, or of the fold; rank 0 looks, so that all ranks stop
        at the same step."""
        request = None
        if self.ranks.rank == 0:
            request = read_stop_request(self.folder)
            if request is None and is_leave_requested(self.files, self.attempt):
                request = StopWhen.NOW
        kinds: list[StopWhen | None] = [None, *StopWhen]
        return kinds[self.ranks.hear_first(kinds.index(request))[0]]

    def end_preparation(self, what: str) -> None:
        """Ends what a rank does before the fold trains, where it is asked to. Ranks do not meet here: the context lets
        them end together.

        Raises:
            FoldStoppedError: it is asked to.
        """
        if self.mirror.uri and time.monotonic() - self.heard_at > LOOK_ELSEWHERE_S:
            self.heard_at = time.monotonic()
            with contextlib.suppress(OSError):
                self.mirror.hear_driver()
        if read_stop_request(self.folder) == StopWhen.NOW:
            raise FoldStoppedError(
                f"the run was asked to stop: fold {self.files.number} ends while it prepares ({what})"
            )
        if is_leave_requested(self.files, self.attempt):
            raise FoldStoppedError(f"fold {self.files.number} was asked to end while it prepares ({what})")
