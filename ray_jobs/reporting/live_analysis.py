"""Follows a run while it trains: redraws one picture and prints a line for each new epoch. Reads the run's folder
only."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from ensemble.figure_style import to_png
from ray_jobs.reporting.analysis_figures import draw_training
from ray_jobs.reporting.curves import Curve, read_run
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.remote.run_mirror import is_at_work
from trainers.storage.whole_files import write_whole

PICTURE = "training_live.png"


def follow_run(folder: RunFolder, output: Path, interval_s: float, console: Console) -> None:
    """Redraws `training_live.png` until the run's driver ends.

    Args:
        folder: the run.
        output: folder of the picture, which appears whole each time.
        interval_s: seconds between two looks at the run.
        console: where the lines go.
    """
    shown: dict[str, tuple[Path, int]] = {}
    console.print(f"following {folder.root.name}; the picture: {output / PICTURE} (Ctrl-C ends this, not the run)")
    while True:
        at_work = is_at_work(folder)  # before reading: what a driver writes last must still be read
        curves = read_run(folder)
        lines = list(_take_new_epochs(curves, shown))
        for line in lines:
            console.print(line)
        if lines:
            write_whole(output / PICTURE, to_png(draw_training(curves)))
        if not at_work:
            console.print("no driver is at work on this run" + ("" if shown else ", and no epoch was recorded"))
            return
        time.sleep(interval_s)


def _take_new_epochs(curves: Sequence[Curve], shown: dict[str, tuple[Path, int]]) -> Iterator[str]:
    """A line for each epoch that was not shown; a fold that began anew has a new file and is shown from its start."""
    for curve in curves:
        source, num_shown = shown.get(curve.label, (curve.source, 0))
        if source != curve.source or num_shown > len(curve.epochs):
            num_shown = 0
        for _, row in curve.epochs.iloc[num_shown:].iterrows():
            cells = {"loss": row["Avg_Loss"], "best": row["Best_Loss_So_Far"]}
            cells |= {"val loss": row[curve.validation_loss]} if curve.validation_loss else {}
            cells |= {"score": row["score"]} if "score" in row else {}
            cells |= {"lr": row["Learning_Rate"], "s": row["Epoch_Time_Seconds"]}
            yield f"{curve.label} epoch {row['Epoch']:.0f}: " + ", ".join(
                f"{name} {v:.5g}" for name, v in cells.items()
            )
        shown[curve.label] = (curve.source, len(curve.epochs))
