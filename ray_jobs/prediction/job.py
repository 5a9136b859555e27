"""Predicts new rows with a run's models: checks what is wanted, and writes the blocks that come back through Ray Data, in the
table's order."""

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
from ray_jobs.cli.console import chatter_to, open_console, say_what_is_awaited, warn_of_open_cluster
from ray_jobs.cli.progress import RowProgress
from ray_jobs.cluster.heartbeat import interrupted_when_lost
from ray_jobs.cluster.placement import Placement, place_folds
from ray_jobs.cluster.signals import in_submitted_job, listening
from ray_jobs.cluster.start import RayStart, connect
from ray_jobs.config.resources import ResourcesConfig
from ray_jobs.config.run import RunConfig
from ray_jobs.errors import ClusterLostError, RunError
from ray_jobs.prediction.maps import (
    PICTURES,
    SUMMARY,
    MapEnsemble,
    appearing_output,
    refuse_foreign,
    settle_map_run,
    write_pictures,
)
from ray_jobs.prediction.models import RunEnsemble, refuse_unusable, settle_run
from ray_jobs.prediction.stream import Work, stream_predictions
from ray_jobs.prediction.tables import TABLE_SUFFIXES, open_table
from ray_jobs.results.columns import combines_folds
from ray_jobs.results.wording import describe_submission
from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from trainers.interface import DataError, load_new_rows_module

EXIT_OK, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130
_MOST_MAPS_OF_A_BLOCK = 16  # each takes a while
_MOST_ROWS_OF_A_BLOCK = 1024  # so that Ray's part in a block is small, and each has its turn


@dataclass(frozen=True)
class Wish:
    """What the user wants: the rows at a place, predicted into a file or, of maps, a folder (None: one below the run's folder), and
    whether to show what each model says; of maps also the folder with the truth, if it is not the usual one."""

    place: Path
    output: Path | None = None
    shows_models: bool = False
    truth: Path | None = None


def predict_rows(folder: RunFolder, config: RunConfig, wish: Wish) -> int:
    """The job.

    Raises:
        RunError, DataError: nothing was launched, and nothing written; the message says why.
    """
    console = open_console()
    work = check_wish(folder, config, wish)
    console.print(f"run {folder.root.name}: {_describe(work.ensemble)}; {work.num_rows:,} rows of {work.rows.path}")
    log = folder.ray_log
    try:
        with (
            listening() as interrupts,
            chatter_to(log),
            connect(RayStart.for_run(config, "predict")) as cluster,
        ):
            interrupts.listen()
            placement = place_folds(config.resources, cluster.resources, config.folds.count)
            if not cluster.asks_for_token:
                warn_of_open_cluster(console, is_own=cluster.is_own)
            say_what_is_awaited(console, placement.waits_for)
            with interrupted_when_lost(cluster.heartbeat), _failures_told():
                _predict_and_write(work, placement, _count_workers(placement, config.resources), console)
    except KeyboardInterrupt:
        console.print("\ninterrupted: nothing was written")
        return EXIT_INTERRUPTED
    except (ClusterLostError, _FailedError) as error:
        console.print(f"{error}\nnothing was written; {log} has the details", style="bold red")
        if isinstance(error, ClusterLostError):
            console.file.flush()
            os._exit(EXIT_FAILED)  # what is left of Ray would print over the message, or hang
        return EXIT_FAILED
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


def check_wish(folder: RunFolder, config: RunConfig, wish: Wish) -> Work:
    """Everything that can be found out before anything is launched.

    Raises:
        RunError, DataError: the message says what is wrong.
    """
    for option, path in {"data": wish.place, "output": wish.output, "masks": wish.truth}.items():
        if path is not None and in_submitted_job() and not path.is_absolute():
            raise RunError(
                f"--{option} {path} is a relative path: a submitted job runs in a temporary copy of the working directory. "
                "Give the absolute path as the cluster's machines see it"
            )
    # Workers are elsewhere.
    wish = replace(wish, place=wish.place.absolute(), truth=wish.truth and wish.truth.absolute())
    if config.predicts_maps:
        return _check_map_wish(folder, config, wish)
    if wish.truth is not None:
        raise RunError("--masks is for runs that predict maps; this one predicts numbers")
    output = (wish.output or _name_output(folder, config, wish.place)).absolute()
    if output.suffix not in TABLE_SUFFIXES or output.is_dir():
        raise RunError(f"--output {output}: expected a file that ends in {' or '.join(TABLE_SUFFIXES)}")
    _refuse_unwritable(output)
    refuse_unusable(folder, config)
    configs = [folder.of_member(name).read_config().trainer for name in config.combined_members]
    rows = load_new_rows_module(config.family).find_new_rows(configs, wish.place)
    if rows.path == output:
        raise RunError(f"--output {output} is the table that is predicted; name another file")
    num_rows, ensemble = rows.check(), settle_run(folder, config)
    named = ensemble.list_columns(read_json(folder.provenance)["target"], shows_models=wish.shows_models)
    return Work(folder.root, ensemble, rows, num_rows, output, ("ID", *named), wish.shows_models)


def _check_map_wish(folder: RunFolder, config: RunConfig, wish: Wish) -> Work:
    name = wish.place.resolve().stem if wish.place.is_file() else wish.place.resolve().name
    output = (wish.output or folder.predictions / f"{name}_{config.ensemble.method}").absolute()
    _refuse_unwritable(output)
    refuse_unusable(folder, config)
    rows = load_new_rows_module(config.family).find_new_rows([config.trainer], wish.place, wish.truth)
    refuse_foreign(output, (rows.path, rows.masks))
    num_rows, ensemble = rows.check(), settle_map_run(folder, config)
    named = ensemble.list_columns(read_json(folder.provenance)["target"], shows_models=wish.shows_models)
    return Work(folder.root, ensemble, rows, num_rows, output / SUMMARY, ("ID", *named), wish.shows_models)


def _refuse_unwritable(output: Path) -> None:
    above = next(path for path in output.parents if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise RunError(f"--output {output}: {above} is no folder that can be written to; name another file")


def _name_output(folder: RunFolder, config: RunConfig, place: Path) -> Path:
    place = place.resolve()
    name = place.stem if place.suffix in TABLE_SUFFIXES else place.name
    return folder.predictions / f"{name}_{config.ensemble.method}.csv"


def _describe(ensemble: RunEnsemble | MapEnsemble) -> str:
    config = ensemble.config.ensemble
    if ensemble.config.predicts_maps:
        facts = {"method": config.method, "checkpoints": config.checkpoint, "n_models": len(ensemble.names)}
        return describe_submission(facts)
    facts = {"method": config.method, "space": config.space, "checkpoints": config.checkpoint}
    facts["n_models"] = len(ensemble.names)
    return describe_submission(
        facts if combines_folds(ensemble.config) else {**facts, "fold_method": config.fold_method}
    )


def _predict_and_write(work: Work, placement: Placement, num_workers: int, console: Console) -> None:
    predicts_maps = work.ensemble.config.predicts_maps
    most = _MOST_MAPS_OF_A_BLOCK if predicts_maps else _MOST_ROWS_OF_A_BLOCK
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
        with appearing_output(work.output.parent) if predicts_maps else nullcontext() as staged:
            there = work if staged is None else replace(work, output=staged / work.output.name)
            num_mended = _write(there, blocks, progress)
    seconds = time.monotonic() - began
    if num_mended:
        console.print(
            f"{num_mended:,} rows have {work.rows.PROBLEMS}; all are listed in {_place_of_bad_rows(work)}",
            style="yellow",
        )
    rate = work.num_rows / seconds
    console.print(f"predicted {work.num_rows:,} rows in {seconds:.1f} s ({rate:,.0f} rows/s): {work.output}")


def _write(work: Work, blocks: Iterator[pa.Table], progress: RowProgress) -> int:
    """Writes the predictions and, where there are any, the list of rows that could not be used whole; returns how many these are.

    Raises:
        RunError: the table is not the one that was checked.
    """
    num_mended, note = 0, None
    with contextlib.ExitStack() as listing, open_table(work.output, work.columns) as write:
        for block in blocks:
            if PICTURES[0] in block.column_names:
                write_pictures(block, work.output.parent)
            write(block.select([name for name in block.column_names if name.isdecimal()]))
            mended = block.filter(block["problem"].is_valid()).select(["0", "problem"])
            if len(mended):
                note = note or listing.enter_context(open_table(_place_of_bad_rows(work), ["id", "problem"]))
                note(mended)
                num_mended += len(mended)
            progress.advance(len(block))
        if progress.done != work.num_rows:
            raise RunError(
                f"{work.rows.path} had {work.num_rows:,} rows when it was checked and {progress.done:,} when it was read: it was "
                "changed meanwhile; the same command predicts it as it is now"
            )
    if not num_mended:
        _place_of_bad_rows(work).unlink(missing_ok=True)  # of an earlier prediction
    return num_mended


def _place_of_bad_rows(work: Work) -> Path:
    return work.output.with_name(f"{work.output.stem}_bad_rows.csv")


def _count_workers(placement: Placement, resources: ResourcesConfig) -> int:
    """As many as folds would train at once, each with what a fold has, and therefore its bits; or one on each GPU's share."""
    if placement.gpus_per_worker:
        most = max(placement.slots, placement.folds_at_once * placement.num_workers)
        return min(most, (resources.max_folds_at_once or most) * placement.num_workers)
    return placement.folds_at_once * placement.num_workers


def choose_block_rows(num_rows: int, num_workers: int, batch_rows: int, most: int = _MOST_ROWS_OF_A_BLOCK) -> int:
    """Rows of a block: a multiple of `batch_rows`, and not so many that a worker has nothing to do."""
    share = min(most, -(-num_rows // num_workers))
    return -(-share // batch_rows) * batch_rows
