"""A finished run as a notebook shows it: the scores as a table, and below it the first figure of the report."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

from ray_jobs.reporting.html_parts import build_paragraph, build_table
from ray_jobs.reporting.report_figures import choose_pictures

if TYPE_CHECKING:
    import pandas as pd

    from ray_jobs.runs.folder import RunFolder
    from ray_jobs.runs.json_files.summary import Scores, Summary


def show_run(folder: RunFolder, summary: Summary, scores: Scores, fold_scores: pd.DataFrame) -> str:
    """A run as a piece of HTML, without scripts and without a style of its own.

    Args:
        folder: of the run.
        summary: what it has in `summary.json`.
        scores: out of fold.
        fold_scores: a row for each fold, as `Run.fold_scores`.
    """
    names = [name for name in fold_scores.columns if name not in ("fold", "num_rows")]
    rows = [
        [str(int(row["fold"])), f"{int(row['num_rows']):,}", *(_show(row[name]) for name in names)]
        for _, row in fold_scores.iterrows()
    ]
    rows.append(["all", f"{scores.out_of_fold.num_rows:,}", *(_show(scores.chosen.get(name)) for name in names)])
    lead = f"Run {summary.run}, {summary.outcome}: scores of the rows that each fold did not train on"
    parts = [build_paragraph(lead), build_table(["fold", "rows", *names], rows, has_total=True)]
    return "\n".join([*parts, *_show_figure(folder, summary), f"<p><code>{escape(str(folder.report))}</code></p>"])


def _show(score: float | None) -> str:
    return "" if score is None or score != score else f"{score:.4g}"


def _show_figure(folder: RunFolder, summary: Summary) -> list[str]:
    """The first of the report's figures that was drawn."""
    for picture in choose_pictures(folder, folder.read_config(), summary):
        path = folder.figures / f"{picture.name}.png"
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            return [f'<img style="max-width: 100%" alt="{escape(picture.title)}" src="data:image/png;base64,{data}">']
    return []
