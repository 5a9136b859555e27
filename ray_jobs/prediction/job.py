"""Predicts new rows with a run's models: checks what is wanted, and writes the blocks that come back through Ray Data,
in the table's order. `models.py` reads the models, `stream.py` passes blocks of rows to them, the kind of the
predictions combines (`new_rows.py`)."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from ensemble.predictions import PredictionError
from ray_jobs.cli.connection import on_cluster
from ray_jobs.cli.console import open_console, report_pending_nodes
from ray_jobs.cli.places import is_writable, refuse_unwritable
from ray_jobs.cli.progress import RowProgress
from ray_jobs.cluster.heartbeat import interrupted_when_lost
from ray_jobs.cluster.placement import Placement, place_folds
from ray_jobs.cluster.signals import in_submitted_job
from ray_jobs.cluster.start import RayStart
from ray_jobs.config.resources import ResourcesConfig
from ray_jobs.config.run import RunConfig
from ray_jobs.errors import EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_OK, ClusterLostError, RunError
from ray_jobs.prediction.families import find_rows
from ray_jobs.prediction.models import as_soup, describe_soup, refuse_unusable, settle_run, settle_soup
from ray_jobs.prediction.output import SUMMARY, appearing_output, refuse_foreign, write_row_files
from ray_jobs.prediction.stream import PredictionJob, stream_predictions
from ray_jobs.prediction.tables import TABLE_SUFFIXES, open_table
from ray_jobs.results.run_files import combines_folds, describe_run, list_combined_folds
from ray_jobs.results.wording import describe_part_of_folds, describe_submission
from ray_jobs.runs.folder import RunFolder
from trainers.interface import DataError


@dataclass(frozen=True)
class PredictRequest:
    """What the user wants: the rows at a place, predicted into a file or, where each row gets files, a folder (None:
    one below the run's folder), and whether to show what each model says; where it is looked for, the folder with the
    truth, if it is not the usual one; whether the mean of the fold models' weights predicts."""

    place: Path
    output: Path | None = None
    shows_models: bool = False
    truth: Path | None = None
    is_soup: bool = False


def predict_rows(folder: RunFolder, config: RunConfig, request: PredictRequest) -> int:
    """The job.

    Raises:
        RunError, DataError: nothing was launched, and nothing written; the message says why.
    """
    console = open_console()
    work = check_request(folder, config, request)
    said = describe_soup(folder, work.config) if work.is_soup else _describe(folder, config)
    console.print(f"run {folder.root.name}: {said}; {work.num_rows:,} rows of {work.rows.path}")
    for note in getattr(work.rows, "notes", ()):
        console.print(note, style="yellow")
    log = choose_log(folder, work)
    try:
        with on_cluster(RayStart.for_run(config, "predict"), log, console) as (cluster, _):
            placement = place_folds(config.resources, cluster.resources, config.folds.count)
            report_pending_nodes(console, placement.waits_for)
            with interrupted_when_lost(cluster.heartbeat), _failures_told():
                _predict_and_write(work, placement, _count_workers(placement, config.resources), console)
    except KeyboardInterrupt:
        console.print("\ninterrupted: nothing was written")
        return EXIT_INTERRUPTED
    except (ClusterLostError, _FailedError) as error:
        console.print(f"{error}\nnothing was written; the log: {log}", style="bold red")
        if isinstance(error, ClusterLostError):
            console.file.flush()
            os._exit(EXIT_INCOMPLETE)  # what is left of Ray would print over the message, or hang
        return EXIT_INCOMPLETE
    return EXIT_OK


class _FailedError(Exception):
    """Something went wrong after workers were launched."""


@contextlib.contextmanager
def _failures_told() -> Iterator[None]:
    """Any error as _FailedError; its traceback goes to the log."""
    try:
        yield
    except Exception as error:  # of a worker, Ray, or the disk
        traceback.print_exc()
        raise _FailedError(f"error: {explain(error)}") from None


def explain(error: Exception) -> str:
    """An error of a worker, without what Ray puts around it and adds to it; what to do when workers die."""
    cause = getattr(error, "cause", None) or error
    text = str(cause).partition("\nFailed to apply UDF")[0]
    if isinstance(cause, (RunError, DataError, PredictionError, OSError)):
        return text
    advice = ""
    if "Died" in type(cause).__name__:
        advice = ". If memory ran out, resources.max_folds_at_once=1 has one worker, which holds all models once"
    return f"{type(cause).__name__}: {text.strip():.300}{advice}"


def check_request(folder: RunFolder, config: RunConfig, request: PredictRequest) -> PredictionJob:
    """Everything that can be found out before anything is launched.

    Raises:
        RunError, DataError: the message says what is wrong.
    """
    for option, path in {"data": request.place, "output": request.output, "masks": request.truth}.items():
        if path is not None and in_submitted_job() and not path.is_absolute():
            raise RunError(
                f"--{option}={path} is a relative path: a submitted job runs in a temporary copy of the working "
                "directory. Set the absolute path as the cluster's machines see it"
            )
    # Workers are elsewhere.
    request = replace(request, place=request.place.absolute(), truth=request.truth and request.truth.absolute())
    if request.is_soup:
        config = as_soup(folder, config)
    kind, looks_for_truth = config.kind, "truth" in config.kind.offers
    if request.truth is not None and not looks_for_truth:
        raise RunError(f"--masks={request.truth}: expected none for {kind.title}, which this run predicts")
    output = (request.output or _name_output(folder, config, request)).absolute()
    if not kind.row_files and (output.suffix not in TABLE_SUFFIXES or output.is_dir()):
        raise RunError(f"--output={output}: expected a file that ends in {' or '.join(TABLE_SUFFIXES)}")
    advice = f"--output={request.output}: name another file" if request.output else "--output FILE names another place"
    refuse_unwritable(output.parent, advice)
    refuse_unusable(folder, config)
    truth = (request.truth,) if looks_for_truth else ()
    family, rows = find_rows(folder, config, request.place, *truth)
    if kind.row_files:
        refuse_foreign(output, (rows.path, getattr(rows, "masks", None)), kind.row_files)
        output = output / SUMMARY
    if rows.path == output:
        raise RunError(f"--output={output} is the table to be predicted: expected another file; set another --output")
    num_rows, combiner = rows.check(), (settle_soup if request.is_soup else settle_run)(folder, config)
    run, shows_models = describe_run(folder, config), request.shows_models
    columns = ("ID", *combiner.list_columns(run.target, shows_models=shows_models))
    return PredictionJob(
        folder.root, config, run.folds, combiner, family, rows, num_rows, output, columns, shows_models, request.is_soup
    )


def choose_log(folder: RunFolder, work: PredictionJob) -> Path:
    """The run's log of Ray; beside the output where the run may only be read."""
    if is_writable(folder.log) and (not folder.ray_log.exists() or os.access(folder.ray_log, os.W_OK)):
        return folder.ray_log
    output = work.output.parent if work.config.kind.row_files else work.output
    return output.with_name(f"{output.stem}.log")


def _name_output(folder: RunFolder, config: RunConfig, request: PredictRequest) -> Path:
    place, how = request.place.resolve(), "soup" if request.is_soup else config.ensemble.method
    name = place.stem if place.is_file() or place.suffix in TABLE_SUFFIXES else place.name
    return folder.predictions / f"{name}_{how}{'' if config.kind.row_files else '.csv'}"


def _describe(folder: RunFolder, config: RunConfig) -> str:
    ensemble, num_members, folds = config.ensemble, len(config.combined_members), list_combined_folds(folder, config)
    facts: dict[str, object] = {"method": ensemble.method, "space": ensemble.space, "checkpoints": ensemble.checkpoint}
    facts |= describe_part_of_folds(folds, config.folds.count)
    if combines_folds(config):
        return describe_submission(config.kind, facts | {"n_models": len(folds)})
    return describe_submission(config.kind, facts | {"n_models": num_members, "fold_method": ensemble.fold_method})


def _predict_and_write(work: PredictionJob, placement: Placement, num_workers: int, console: Console) -> None:
    row_files, most = work.config.kind.row_files, work.config.kind.most_rows_of_a_block
    block_rows = choose_block_rows(work.num_rows, num_workers, work.rows.batch_rows, most)
    num_workers = min(num_workers, -(-work.num_rows // block_rows))
    device = f"{placement.gpus_per_worker:g} GPU" if placement.gpus_per_worker else "no GPU"
    console.print(
        f"{num_workers} worker(s), each with all models, {placement.cpus_per_worker:g} CPU "
        f"({placement.threads_per_worker} threads) and {device}; blocks of {block_rows:,} rows"
    )
    began = time.monotonic()
    with RowProgress(console, work.num_rows) as progress:
        blocks = stream_predictions(work, placement, num_workers, block_rows)
        with appearing_output(work.output.parent, row_files) if row_files else nullcontext() as staged:
            there = work if staged is None else replace(work, output=staged / work.output.name)
            num_flawed = _write(there, blocks, progress)
    seconds = time.monotonic() - began
    if num_flawed:
        console.print(
            f"{num_flawed:,} rows have {work.rows.PROBLEMS}; all are listed in {_place_of_bad_rows(work)}",
            style="yellow",
        )
    rate = work.num_rows / seconds
    console.print(f"predicted {work.num_rows:,} rows in {seconds:.1f} s ({rate:,.0f} rows/s): {work.output}")


def _write(work: PredictionJob, blocks: Iterator[pa.Table], progress: RowProgress) -> int:
    """Writes the predictions and, where there are any, the list of rows that could not be used whole; returns how many
    these are.

    Raises:
        RunError: the table is not the one that was checked.
    """
    num_flawed, note = 0, None
    with contextlib.ExitStack() as listing, open_table(work.output, work.columns) as write:
        for block in blocks:
            write_row_files(block, work.output.parent, work.config.kind.row_files)
            write(block.select([name for name in block.column_names if name.isdecimal()]))
            flawed = block.filter(block["problem"].is_valid()).select(["0", "problem"])
            if len(flawed):
                note = note or listing.enter_context(open_table(_place_of_bad_rows(work), ["id", "problem"]))
                note(flawed)
                num_flawed += len(flawed)
            progress.advance(len(block))
        if progress.done != work.num_rows:
            raise RunError(
                f"{work.rows.path} had {work.num_rows:,} rows when it was checked and {progress.done:,} when it was "
                "read: it was changed meanwhile; the same command predicts it as it is now"
            )
    if not num_flawed:
        _place_of_bad_rows(work).unlink(missing_ok=True)  # of an earlier prediction
    return num_flawed


def _place_of_bad_rows(work: PredictionJob) -> Path:
    return work.output.with_name(f"{work.output.stem}_bad_rows.csv")


def _count_workers(placement: Placement, resources: ResourcesConfig) -> int:
    """As many as folds would train at once, each with what a fold has, and therefore its bits; or one on each GPU's
    share."""
    if placement.gpus_per_worker:
        most = max(placement.slots, placement.folds_at_once * placement.num_workers)
        return min(most, (resources.max_folds_at_once or most) * placement.num_workers)
    return placement.folds_at_once * placement.num_workers


def choose_block_rows(num_rows: int, num_workers: int, batch_rows: int, most: int = 1024) -> int:
    """Rows of a block: a multiple of `batch_rows`, and not so many that a worker has nothing to do."""
    share = min(most, -(-num_rows // num_workers))
    return -(-share // batch_rows) * batch_rows
