"""How a run ends: report, summary, the last words on the terminal."""

from __future__ import annotations

import hashlib

from rich.console import Console

from ray_jobs.config.run import RunConfig
from ray_jobs.reporting.outcome import print_outcome
from ray_jobs.results.summary import build_summary, save_summary
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.summary import StageResult, Summary, find_summary
from ray_jobs.runs.record import log_news
from ray_jobs.tracking.wandb_sink import WandbSink


def conclude(
    folder: RunFolder,
    config: RunConfig,
    stage: StageResult,
    seconds: dict[str, float],
    sink: WandbSink,
    console: Console,
) -> Summary:
    """Writes summary and report, records the report's pictures, waits for W&B as long as is allowed, says how it went.

    Args:
        folder: the run.
        config: its config.
        stage: what the ensemble stage returned.
        seconds: wall time by phase.
        sink: the run's W&B side.
        console: where to.

    Returns:
        The summary.
    """
    from ray_jobs.reporting.html_report import write_report_or_warn  # matplotlib is not loaded before the folds train

    folder.remove_leftovers()
    summary = build_summary(folder, config, stage, seconds)
    write_report_or_warn(folder, config, summary)
    _record_pictures(folder)
    save_summary(folder, config, summary)  # last: a run that has one is finished
    sink.finish(config.tracking.finish_timeout_s)
    print_outcome(console, folder, summary)
    return summary


def read_times(folder: RunFolder) -> dict[str, float]:
    """The wall times of a run, before a phase is done again: the others keep theirs, and there is no total."""
    known = (find_summary(folder) or Summary()).seconds
    return {name: value for name, value in known.items() if name != "total"}


def _record_pictures(folder: RunFolder) -> None:
    """A row with the report's pictures; each with its checksum, since the next submission draws them anew."""
    pictures = {
        f"ensemble/figures/{path.stem}": {
            "image": f"figures/{path.name}",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.figures.glob("*.png"))
    }
    log_news(folder.submission_record, pictures)
