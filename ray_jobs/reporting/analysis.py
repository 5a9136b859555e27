"""The numbers of recorded trainings, the text report of one run and the table that compares several.

Tables in, numbers and text out: it reads no file and draws nothing (see `curves.py` and `analysis_figures.py`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.table import Table

from ray_jobs.reporting.curves import Curve
from ray_jobs.tracking.csv_files import EPOCH_COLUMNS

_NUM_BEST = 5
_WIDTH = 16


@dataclass(frozen=True)
class Series:
    """First, last and lowest of a loss or score; NaN where no epoch has a finite one. Epochs count from 1."""

    initial: float
    final: float
    best: float
    best_epoch: float

    @property
    def improvement(self) -> float:
        """By how much the last value is below the first."""
        return self.initial - self.final

    @property
    def improvement_percent(self) -> float:
        """The same in percent of the first."""
        return 100 * self.improvement / self.initial if self.initial else np.nan


@dataclass(frozen=True)
class Statistics:
    """The numbers of one training. Times in seconds and hours; NaN where they were not recorded."""

    num_epochs: int
    total_hours: float
    mean_epoch_seconds: float
    initial_rate: float
    final_rate: float
    train: Series
    validation: Series | None
    score: Series | None


def measure_curve(curve: Curve) -> Statistics:
    """The statistics of one training."""
    epochs = curve.epochs
    seconds, rates = epochs["Epoch_Time_Seconds"].dropna(), epochs["Learning_Rate"].dropna()
    series = {name: _measure_series(epochs, name) for name in ("Avg_Loss", curve.validation_loss, "score")}
    return Statistics(
        num_epochs=len(epochs),
        total_hours=float(seconds.sum()) / 3600 if len(seconds) else np.nan,
        mean_epoch_seconds=float(seconds.mean()),
        initial_rate=float(rates.iloc[0]) if len(rates) else np.nan,
        final_rate=float(rates.iloc[-1]) if len(rates) else np.nan,
        train=series["Avg_Loss"] or Series(np.nan, np.nan, np.nan, np.nan),
        validation=series.get(curve.validation_loss),
        score=series["score"],
    )


def find_best_epochs(epochs: pd.DataFrame, column: str) -> pd.DataFrame:
    """The five epochs with the lowest value of a column, best first."""
    return epochs[np.isfinite(epochs[column])].nsmallest(_NUM_BEST, column)


def name_score(curve: Curve) -> str:
    """The metric by which best is chosen: the trainer's column that equals `score` in every epoch, or `score`."""
    epochs = curve.epochs
    own = [name for name in epochs if name not in EPOCH_COLUMNS and name != "score"] if "score" in epochs else []
    return next((name for name in own if epochs[name].equals(epochs["score"])), "score")


def write_text_report(title: str, curves: Sequence[Curve]) -> str:
    """The text report: one column a fold, then the best epochs of each."""
    measured = [measure_curve(curve) for curve in curves]
    lines = [f"Training report: {title}", f"made {time.strftime('%Y-%m-%d %H:%M:%S')}", ""]
    lines += [f"{curve.label}: {curve.source}" + (f" ({curve.note})" if curve.note else "") for curve in curves]
    lines += ["", _line("", [curve.label for curve in curves])]
    lines.append(_line("epochs", [str(m.num_epochs) for m in measured]))
    for label, name in (("total hours", "total_hours"), ("mean epoch seconds", "mean_epoch_seconds")):
        lines.append(_line(label, [_number(getattr(m, name)) for m in measured]))
    for label, name in (("initial learning rate", "initial_rate"), ("final learning rate", "final_rate")):
        lines.append(_line(label, [_number(getattr(m, name)) for m in measured]))
    headings = {"train": "training loss", "validation": "validation loss", "score": f"score ({name_score(curves[0])})"}
    for name, heading in headings.items():
        lines += _describe_series(heading, [getattr(m, name) for m in measured])
    for curve in curves:
        lines += _list_best_epochs(curve)
    return "\n".join(lines) + "\n"


def compare_runs(runs: Mapping[str, Sequence[Curve]]) -> Table:
    """A table of several runs: means over their folds, and the standard deviation of the best scores."""
    # No frame: it fits into 80 columns.
    table = Table(title="means over folds; lower is better", title_justify="left", title_style="bold", box=None)
    for name in ("run", "folds", "epochs", "s/epoch", "train loss", "lowest val", "best score", "± folds"):
        left = name == "run"
        table.add_column(name, justify="left" if left else "right", header_style="underline", no_wrap=not left,
                         overflow="fold")  # fmt: skip
    for name, curves in runs.items():
        measured = [measure_curve(curve) for curve in curves]
        scores = [m.score.best if m.score else np.nan for m in measured]
        columns = (
            [m.num_epochs for m in measured],
            [m.mean_epoch_seconds for m in measured],
            [m.train.final for m in measured],
            [m.validation.best if m.validation else np.nan for m in measured],
            scores,
        )
        table.add_row(name, str(len(curves)), *(_mean(values) for values in columns), _mean([float(np.std(scores))]))
    return table


def _measure_series(epochs: pd.DataFrame, column: str | None) -> Series | None:
    known = epochs[np.isfinite(epochs[column])] if column in epochs else epochs.iloc[:0]
    if known.empty:
        return None
    values, best = known[column], known.loc[known[column].idxmin()]
    return Series(float(values.iloc[0]), float(values.iloc[-1]), float(best[column]), float(best["Epoch"]))


def _describe_series(heading: str, series: Sequence[Series | None]) -> list[str]:
    if not any(series):
        return []
    values = {"initial": "initial", "final": "final", "best": "best", "best epoch": "best_epoch"}
    values |= {"improvement": "improvement", "improvement %": "improvement_percent"}
    lines = [
        _line(f"  {label}", [_number(getattr(one, name)) if one else "" for one in series])
        for label, name in values.items()
    ]
    return ["", heading, *lines]


def _list_best_epochs(curve: Curve) -> list[str]:
    columns = [name for name in ("score", "Avg_Loss", curve.validation_loss) if name and name in curve.epochs]
    best = find_best_epochs(curve.epochs, columns[0])
    by = f"score ({name_score(curve)})" if columns[0] == "score" else "training loss"
    lines = ["", f"{curve.label}: {_NUM_BEST} best epochs by {by}"]
    lines.append(_line("  epoch", [{"Avg_Loss": "train loss"}.get(name, name) for name in columns]))
    return lines + [
        _line(f"  {row['Epoch']:.0f}", [_number(row[name]) for name in columns]) for _, row in best.iterrows()
    ]


def _line(label: str, cells: Sequence[str]) -> str:
    return f"{label:24s}" + "".join(f"{cell:>{_WIDTH}s}" for cell in cells)


def _mean(values: Sequence[float]) -> str:
    mean = np.mean(values)
    return f"{mean:.4g}" if np.isfinite(mean) else ""


def _number(value: float) -> str:
    return "" if not np.isfinite(value) else f"{value:.6g}"
