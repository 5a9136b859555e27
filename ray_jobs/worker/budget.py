"""The time that a run gives a fold: whether what comes next still fits."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class TimeBudget:
    """Of one attempt, on rank 0.

    Attributes:
        seconds: that the fold may train; None: as long as it likes.
        ended_at: the step at which an earlier attempt was told that its time is up; None: none was.
        used_s: by the attempts that this one goes on from.
        began: when this attempt began, by the monotonic clock.
    """

    seconds: float | None = None
    ended_at: int | None = None
    used_s: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def measure_used(self) -> float:
        """Seconds that the fold has trained, without what was lost in a kill."""
        return self.used_s + time.monotonic() - self.began

    def is_over(self, global_step: int, next_s: float) -> bool:
        """Whether so many seconds more are too many. What was decided once stays decided: a fold that comes to the
        step again ends there again, however fast it is now."""
        if self.ended_at is not None:
            return global_step >= self.ended_at
        return self.seconds is not None and self.measure_used() + next_s > self.seconds
