"""Writes the pictures and reports of recorded trainings, under names with a stamp: nothing is ever overwritten."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from ensemble.figure_style import to_png
from ray_jobs.reporting.analysis import compare_runs, write_text_report
from ray_jobs.reporting.analysis_figures import draw_batches, draw_comparison, draw_stats, draw_training
from ray_jobs.reporting.curves import Curve
from trainers.storage.whole_files import write_whole

_FIGURES = {"training_analysis": draw_training, "training_stats": draw_stats, "batch_analysis": draw_batches}


def write_analysis(title: str, curves: Sequence[Curve], output: Path, console: Console) -> None:
    """Pictures and text report of one run or file.

    Args:
        title: what is analysed.
        curves: its folds.
        output: the folder of the files.
        console: shows the report and the files' paths.
    """
    stamp = find_free_stamp(output)
    report = write_text_report(title, curves)
    write_whole(output / f"training_report_{stamp}.txt", report.encode())
    for name, draw in _FIGURES.items():
        if figure := draw(curves):
            write_whole(output / f"{name}_{stamp}.png", to_png(figure))
    console.print(report)
    for path in sorted(output.glob(f"*_{stamp}.*")):
        console.print(str(path))


def write_comparison(runs: Mapping[str, Sequence[Curve]], output: Path, console: Console) -> None:
    """One picture of several runs, and a table of them on the console."""
    path = output / f"training_comparison_{find_free_stamp(output)}.png"
    write_whole(path, to_png(draw_comparison(runs)))
    console.print(compare_runs(runs))
    console.print(str(path))


def find_free_stamp(output: Path) -> str:
    """Now, or the first later second that no file in the folder is named by."""
    at = time.time()
    while any(output.glob(f"*_{(stamp := time.strftime('%Y%m%d_%H%M%S', time.localtime(at)))}.*")):
        at += 1
    return stamp
