"""Gauges of the folds for Ray's metrics endpoint, from which Prometheus and Grafana take them.

Owns the gauges' names and what their values mean; `deploy/grafana_kfold.json` shows them. It only repeats what the
coordinator knows: it stores nothing, and a gauge that fails is warned of once and never hurts the run.

Prometheus sees each name with the prefix `ray_` and the labels `run`, `member` and `fold`. A series lives as long as
the coordination actor and ends some seconds after the driver: nothing stays `training` for ever. On a cluster that goes
on, its last state is how the fold ended, or `training` where the driver was interrupted. A cluster that the driver
started ends with it, often before the last scrape: how a run ended is for its folder to tell. After an actor's restart
the old series and the new ones overlap for some seconds; a query takes `max by (run, member, fold)`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray_jobs.runs.json_files.status import FoldState, FoldStatus

logger = logging.getLogger(__name__)

# A number rather than a series for each state: a fold is one row of Grafana's state timeline, named by value mappings.
STATE_NUMBERS = {
    FoldState.WAITING: 0,
    FoldState.TRAINING: 1,
    FoldState.COMPLETED: 2,
    FoldState.FAILED: 3,
    FoldState.INTERRUPTED: 4,
}
# Ray sends a value once, every `metrics_report_interval_ms` (10 s, at least 1 s), and drops it two intervals later
# unless it was set again.
REFRESH_INTERVAL_S = 1.0


@dataclass(frozen=True)
class FoldGauge:
    """A gauge that each fold sets: its name, its meaning, and its value (None: no value now)."""

    name: str
    description: str
    read: Callable[[FoldStatus], float | None]


GAUGES = (
    FoldGauge(
        "kfold_fold_state",
        "State of the fold: " + ", ".join(f"{number} {state}" for state, number in STATE_NUMBERS.items()) + ".",
        lambda status: STATE_NUMBERS[status.state],
    ),
    FoldGauge("kfold_epoch", "Epochs that the fold has finished.", lambda status: status.epoch),
    FoldGauge("kfold_train_loss", "Training loss of the last finished epoch.", lambda status: status.train_loss),
    FoldGauge("kfold_val_loss", "Validation loss after the last finished epoch.", lambda status: status.val_loss),
    FoldGauge("kfold_score", "Validation score after the last finished epoch; lower is better.", lambda s: s.score),
    FoldGauge(
        "kfold_samples_per_second",
        "Training rows per second in the last finished epoch, all workers together; only while the fold trains.",
        lambda status: status.samples_per_second if status.state == FoldState.TRAINING else None,
    ),
)


class FoldGauges:
    """Sets the gauges of all folds of a run, again and again.

    Args:
        run: the run's name.
        members: the coordinator's statuses by member and fold; read anew each time.
    """

    def __init__(self, run: str, members: Mapping[str, Mapping[int, FoldStatus]]) -> None:
        self.run, self.members = run, members
        self.gauges: dict[str, Any] = {}
        self.works = True

    def start(self) -> None:
        """Sets the gauges and goes on refreshing them, in a thread that ends with its process or the first failure."""
        self.export()
        threading.Thread(target=self._refresh, name="gauges", daemon=True).start()

    def export(self) -> None:
        """Sets every gauge that has a value now."""
        if not self.works:
            return
        try:
            self._set_all()
        except Exception:
            self.works = False
            logger.warning("the gauges of run %s fail and are not set any more", self.run, exc_info=True)

    def _refresh(self) -> None:
        while self.works:
            time.sleep(REFRESH_INTERVAL_S)
            self.export()

    def _set_all(self) -> None:
        from ray.util.metrics import Gauge

        for gauge in GAUGES:
            if gauge.name not in self.gauges:
                self.gauges[gauge.name] = Gauge(gauge.name, gauge.description, tag_keys=("run", "member", "fold"))
            for member, folds in self.members.items():
                for fold, status in folds.items():
                    value = gauge.read(status)
                    if value is not None:
                        self.gauges[gauge.name].set(value, {"run": self.run, "member": member, "fold": str(fold)})
