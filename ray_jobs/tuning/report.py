"""`report.html` of a tuning: what the best trial is worth, all trials, how the score depends on each field."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from ensemble.figure_style import to_png
from ray_jobs.config.run import to_dict
from ray_jobs.reporting.html_parts import (
    build_figure,
    build_fold_out,
    build_link,
    build_page,
    build_paragraph,
    build_section,
    build_table,
)
from ray_jobs.tuning.display import rank_trials
from ray_jobs.tuning.figures import draw_fields, draw_history
from ray_jobs.tuning.outcome import explain_tuning
from ray_jobs.tuning.trials import Result, Trial, TrialState
from trainers.storage.whole_files import write_whole

if TYPE_CHECKING:
    from ray_jobs.tuning.planning import Tuning

logger = logging.getLogger(__name__)


def write_tuning_report_or_warn(
    tuning: Tuning, trials: Mapping[int, Trial], results: Mapping[int, Result], outcome: Mapping[str, Any]
) -> None:
    """Writes `figures/*.png` and `report.html` of a tuning; whatever goes wrong is logged."""
    try:
        _write_report(tuning, trials, results, outcome)
    except Exception as error:  # a report must not hurt a finished tuning
        logger.warning(
            "%s could not be written: %s", tuning.folder.report, error, exc_info=not isinstance(error, OSError)
        )


def _write_report(
    tuning: Tuning, trials: Mapping[int, Trial], results: Mapping[int, Result], outcome: Mapping[str, Any]
) -> None:
    folder, is_found = tuning.folder, outcome["best"] is not None
    lead, *lines = explain_tuning(outcome)
    about = (
        f"Recipe {tuning.config.recipe}, {len(trials)} trials of {tuning.config.folds.count} folds each on the same "
        "rows, "
    )
    about += f"{outcome['seconds']:,.0f} s of training. Finished {outcome['finished']}."
    parts = [
        f"<header><h1>{escape(folder.root.name)} <span class=soft>tuning</span></h1>",
        build_paragraph(lead, "lead good" if outcome.get("is_better") else "lead"),
        *(build_paragraph(line) for line in lines),
        build_paragraph(about, "soft"),
        "</header>",
        _write_best(outcome) if is_found else "",
        _write_figures(tuning, trials, results),
        _write_trials(tuning, trials, results),
        build_section("How", build_fold_out("tune.space", "\n".join(map(str, tuning.space)), is_open=True)
                      + build_fold_out("config of the recipe", json.dumps(to_dict(tuning.config), indent=2))),
    ]  # fmt: skip
    page = build_page(f"{folder.root.name}: tuning", filter(None, parts))
    write_whole(folder.report, page.encode(errors="replace"))


def _write_best(outcome: Mapping[str, Any]) -> str:
    link = build_link(f"trials/{outcome['best']}/report.html")
    return build_section(
        "The best trial", f"<p>{link}</p>", build_fold_out("as a run of its own", outcome["command"], is_open=True)
    )


def _write_figures(tuning: Tuning, trials: Mapping[int, Trial], results: Mapping[int, Result]) -> str:
    found = {number: results[number].score for number in trials}
    score_of = {number: score for number, score in found.items() if score is not None}
    if not score_of:
        return build_paragraph("No trial has a score: there is nothing to draw.")
    scored, scores = list(score_of), list(score_of.values())
    is_whole = [results[number].state == TrialState.COMPLETE for number in scored]
    values = {one.field: [trials[number].fields[one.field] for number in scored] for one in tuning.space}
    log_fields = [one.field for one in tuning.space if one.is_log]
    metric = tuning.config.error_name
    figures = (
        ("score_by_trial", "Score by trial", "A line that is still falling at its end: more trials may help.",
         draw_history(scored, scores, is_whole, metric)),
        ("score_by_field", "Score by field", "The best at an edge of a range: the range may be too narrow.",
         draw_fields(values, log_fields, scores, is_whole, metric)),
    )  # fmt: skip
    shown = []
    for name, title, caption, figure in figures:
        content, path = to_png(figure), tuning.folder.figures / f"{name}.png"
        write_whole(path, content)
        shown.append(build_figure(title, caption, content, f"figures/{path.name}"))
    return build_section("Figures", f'<div class="figures">{"".join(shown)}</div>')


def _write_trials(tuning: Tuning, trials: Mapping[int, Trial], results: Mapping[int, Result]) -> str:
    names = [one.field for one in tuning.space]
    rows = []
    for rank, number in enumerate(rank_trials(results), start=1):
        trial, result = trials[number], results[number]
        score = "" if result.score is None else f"{result.score:.4f}"
        name = trial.name + (" (the recipe as it is)" if number == 0 else "")
        rows.append([name, str(rank), *trial.fields.values(), score, str(len(result.folds)), f"{result.seconds:.0f}"])
        rows[-1].append(f"{result.state.value}{f': {result.reason}' if result.reason else ''}")
    header = ["trial", "rank", *names, tuning.config.error_name, "folds", "seconds", "state"]
    return build_section("Trials", build_table(header, rows), f"<p>{build_link('trials.csv')}</p>")
