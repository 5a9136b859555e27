"""The search of `sweep.py`: candidates go to Ray Tune in batches, a trial each, since a trial costs a second and a
candidate milliseconds. What a batch comes to lies in the run's folder, so an interrupted search goes on with the
others.

Predictions of candidates are nowhere kept: a batch holds as many as fit into BATCH_BYTES, scores them on the rows and
on bootstrap samples of these, and keeps the scores. So memory and disk do not grow with the rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ensemble.config import EnsembleConfig
from ensemble.members.search import Candidate, Choice, Scored, choose_scored, list_candidates
from ensemble.run import Combinable
from ray_jobs.cli.connection import on_cluster
from ray_jobs.cli.console import report_pending_nodes
from ray_jobs.cluster.start import RayStart
from ray_jobs.cluster.versions import COMMON_PACKAGES, package_versions
from ray_jobs.config.run import RunConfig
from ray_jobs.results.headline import find_metric
from ray_jobs.results.run_files import combines_folds, describe_run
from ray_jobs.results.wording import explain_outcome
from ray_jobs.runs.checkpoints import CHECKPOINTS
from ray_jobs.runs.files import write_csv, write_record
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.sweep_outcome import SweepOutcome
from ray_jobs.runs.location import find_uri
from ray_jobs.runs.record import log_news
from trainers.interface import CheckpointName

BATCH_BYTES = 2**28  # of predictions, which a trial holds a few times while it scores them
_BATCHES_PER_CPU, _LEAST_BATCH = 4, 8
_SHOWN, _RECORDED = 12, 100
COLUMNS = (
    "rank", "members", "checkpoint", "method", "space", "trim", "weight_power", "error", "low", "high", "improvement",
    "improvement_low",
)  # fmt: skip


@dataclass(frozen=True)
class Search:
    """What was tried and what came out; `label` is of the error, for people."""

    candidates: list[Candidate]
    choice: Choice
    metric: str
    label: str
    num_rows: int
    all_members: tuple[str, ...]
    num_trials: int
    seconds: float

    def as_config(self, ensemble: EnsembleConfig) -> EnsembleConfig:
        """The winner as the `ensemble` section of a config."""
        winner = self.candidates[self.choice.winner]
        is_everyone = set(winner.members) == set(self.all_members)
        return dataclasses.replace(
            ensemble,
            method=winner.how.method,
            space=winner.how.space or ensemble.space,
            weights=winner.how.weights,
            trim=winner.how.trim,
            weight_power=winner.how.weight_power,
            checkpoint=winner.checkpoint,
            members=None if is_everyone else winner.members,
        )


def search(folder: RunFolder, config: RunConfig, console: Console) -> Search:
    """Evaluates all candidates.

    Args:
        folder: the run, all folds finished.
        config: its config, whose ensemble is the default that a winner has to beat.
        console: where to show how far it is.

    Raises:
        PredictionError: there is nothing to combine, or files do not belong together.
    """
    began = time.monotonic()
    ensemble, kind = config.ensemble, config.kind
    everyone = dataclasses.replace(config, ensemble=dataclasses.replace(ensemble, members=None))
    if combines_folds(config):
        everyone = config
    run = describe_run(folder, everyone)
    columns: dict[str, Combinable] = {checkpoint: kind.read_columns(run, checkpoint) for checkpoint in CHECKPOINTS}
    names = columns["best"].names
    default = Candidate(_find_default(config, names), ensemble.checkpoint, kind.read_combination(ensemble))
    hows = kind.list_combinations(ensemble, for_sweep=True)
    listed = list_candidates(names, CHECKPOINTS, hows, with_subsets=not combines_folds(config))
    candidates = list(dict.fromkeys([default, *listed]))
    row_bytes = predict(columns, default).nbytes
    batches = _divide(candidates, row_bytes)
    console.print(
        f"{len(candidates)} combinations of {len(names)} models on {len(columns['best'].ids_N):,} rows, in "
        f"{len(batches)} batches of up to {len(batches[0]) * row_bytes / 2**20:,.1f} MiB of predictions"
    )
    mark = f"{_hash_columns(columns)} {ensemble.metric}"
    paths = [folder.root / "sweep" / f"{_hash_batch(batch, mark)}.npz" for batch in batches]
    todo = [number for number, path in enumerate(paths) if not path.exists()]
    if todo:
        _evaluate_in_trials(
            folder, config, {number: (batches[number], paths[number]) for number in todo}, columns, console
        )
    choice = choose_scored(
        kind,
        _read(paths, len(candidates)),
        0,
        columns["best"],
        ensemble.metric,
        lambda index: predict(columns, candidates[index]),
    )
    for path in folder.root.glob("sweep/*.npz"):  # of what was tried before on other columns
        if path not in paths:
            path.unlink()
    return Search(
        candidates,
        choice,
        ensemble.metric,
        find_metric(folder, config).error_label,
        len(columns["best"].ids_N),
        names,
        len(todo),
        time.monotonic() - began,
    )


def _find_default(config: RunConfig, names: tuple[str, ...]) -> tuple[str, ...]:
    """Which of all models the run combines now."""
    if combines_folds(config):
        return names
    chosen = config.ensemble.members
    elsewhere = (name for name in names if name not in config.member_names and (chosen is None or name in chosen))
    return (*config.combined_members, *elsewhere)


def predict(columns: Mapping[CheckpointName, Combinable], candidate: Candidate) -> np.ndarray:
    """The cross-fitted predictions of a candidate, (N,)."""
    (evaluation,) = columns[candidate.checkpoint].evaluate([(candidate.members, candidate.how)])
    return evaluation.cross_fitted_N


def _divide(candidates: Sequence[Candidate], row_bytes: int) -> list[list[Candidate]]:
    """Batches of equal work: neighbours in the list cost alike, so each batch takes every so many.

    Args:
        candidates: all.
        row_bytes: of what one of them predicts.
    """
    number = max(1, min(len(candidates) // _LEAST_BATCH, _BATCHES_PER_CPU * (os.cpu_count() or 1)))
    number = max(number, min(len(candidates), -(-len(candidates) * row_bytes // BATCH_BYTES)))
    return [list(candidates[start::number]) for start in range(number)]


def _hash_columns(columns: Mapping[CheckpointName, Combinable]) -> str:
    """What the evaluation of any candidate depends on: predictions and packages."""
    digest = hashlib.sha256(json.dumps(package_versions(COMMON_PACKAGES)).encode())
    for one in columns.values():
        digest.update(one.sum_up().encode())
    return digest.hexdigest()


def _hash_batch(batch: Sequence[Candidate], mark: str) -> str:
    """A name for what a batch comes to: another one for other candidates, predictions or packages."""
    candidates = json.dumps([dataclasses.asdict(one) for one in batch])
    return hashlib.sha256(f"{mark}{candidates}".encode()).hexdigest()[:16]


def _evaluate_in_trials(
    folder: RunFolder,
    config: RunConfig,
    todo: Mapping[int, tuple[list[Candidate], Path]],
    columns: Mapping[CheckpointName, Combinable],
    console: Console,
) -> None:
    scratch = folder.sweep_scratch
    with (
        on_cluster(RayStart.for_run(config, "sweep"), folder.ray_log, console) as (cluster, _),
        _progress(console, [path for _, path in todo.values()]),
    ):
        import ray
        from ray import tune

        from ray_jobs.results.sweep.trial import SweepTrial

        resources = {"cpu": 1.0}
        has_room = any(node.cpus >= 1 for node in cluster.resources.nodes)
        report_pending_nodes(console, None if has_room else "a node with a CPU, which each batch of combinations wants")
        if find_uri(folder) is not None:  # the files of the trials lie on this machine only
            resources[f"node:{ray.util.get_node_ip_address()}"] = 0.001
        trial = tune.with_parameters(SweepTrial, todo=todo, columns=columns, how=(config.kind, config.ensemble.metric))
        tuner = tune.Tuner(
            tune.with_resources(trial, resources),
            param_space={"batch": tune.grid_search(list(todo))},
            tune_config=tune.TuneConfig(metric="error", mode="min", reuse_actors=False),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(scratch),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        results = tuner.fit()
        for error in results.errors:
            raise error
    shutil.rmtree(scratch, ignore_errors=True)


def _read(paths: Sequence[Path], number: int) -> Scored:
    """What all batches come to, in the order of the candidates before they were divided."""
    parts = []
    for path in paths:
        with np.load(path, allow_pickle=False) as stored:
            parts.append(Scored(stored["error_C"], stored["drawn_DC"], stored["inner_CF"]))
    error_C = np.empty(number)
    drawn_DC = np.empty((len(parts[0].drawn_DC), number))
    inner_CF = np.empty((number, parts[0].inner_CF.shape[1]))
    for start, part in enumerate(parts):
        own = slice(start, None, len(parts))
        error_C[own], drawn_DC[:, own], inner_CF[own] = part.error_C, part.drawn_DC, part.inner_CF
    return Scored(error_C, drawn_DC, inner_CF)


@contextmanager
def _progress(console: Console, paths: Sequence[Path]) -> Iterator[None]:
    """Shows how many batches lie in the folder, while trials put them there."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    ended = threading.Event()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("batches tried", total=len(paths))

        def follow() -> None:
            while not ended.wait(0.3):
                progress.update(task, completed=sum(path.exists() for path in paths))

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            progress.update(task, completed=sum(path.exists() for path in paths))


def record_search(folder: RunFolder, found: Search) -> None:
    """Writes `sweep/leaderboard.csv` and `sweep/sweep.json`, and the search's row of the submission record."""
    rows = _list_rows(found)
    write_csv(folder.sweep_leaderboard, COLUMNS, rows)
    outcome = describe_outcome(found)
    write_record(folder.sweep_outcome, outcome)
    log_news(
        folder.submission_record,
        {
            "ensemble/sweep_combinations": len(rows),
            "ensemble/sweep_nested_error": outcome.nested_error,
            "ensemble/sweep_winner": outcome.winner,
            "ensemble/sweep_improvement": outcome.improvement,
            "ensemble/sweep_improvement_low": outcome.improvement_low,
            "ensemble/sweep_replaces_default": int(outcome.replaces),
            "ensemble/sweep_leaderboard": {"columns": list(COLUMNS), "data": rows[:_RECORDED]},
        },
    )


def _list_rows(found: Search) -> list[list[Any]]:
    choice, rows = found.choice, []
    for rank, index in enumerate(np.argsort(choice.error_C, kind="stable").tolist(), start=1):
        one, how = found.candidates[index], found.candidates[index].how
        values = (choice.error_C, choice.low_C, choice.high_C, choice.improvement_C, choice.improvement_low_C)
        by_score = how.method == "weighted_mean" and how.weights is None
        parameters = [how.trim if how.method == "trimmed_mean" else None, how.weight_power if by_score else None]
        rows.append([rank, "+".join(one.members), one.checkpoint, how.method, how.space, *parameters])
        rows[-1] += [float(value[index]) for value in values]
    return rows


def describe_outcome(found: Search) -> SweepOutcome:
    """The outcome as `sweep.json` has it."""
    choice = found.choice
    return SweepOutcome(
        metric=found.metric,
        label=found.label,
        num_rows=found.num_rows,
        num_combinations=len(found.candidates),
        num_trials=found.num_trials,
        seconds=found.seconds,
        default=str(found.candidates[choice.default]),
        default_error=float(choice.error_C[choice.default]),
        winner=str(found.candidates[choice.winner]),
        winner_error=float(choice.error_C[choice.winner]),
        improvement=float(choice.improvement_C[choice.winner]),
        improvement_low=float(choice.improvement_low_C[choice.winner]),
        replaces=choice.replaces,
        nested_error=choice.nested_error,
        chosen_in_folds=tuple(str(found.candidates[index]) for index in choice.chosen_F),
        rows=tuple(map(tuple, _list_rows(found)[:_RECORDED])),
        columns=COLUMNS,
    )


def describe_search(console: Console, folder: RunFolder, found: Search) -> None:
    """The best combinations, and what the choice among them is worth."""
    table = Table(
        title=f"{found.label}, the best of {len(found.candidates)} combinations", title_justify="left", box=None
    )
    for name, width in (
        ("", 2),
        ("members", 0),
        ("method", 0),
        ("space", 5),
        ("epoch", 5),
        ("error", 6),
        ("better by", 9),
        ("at least", 8),
    ):
        is_text = name in ("members", "method", "space", "epoch")
        # Texts wrap, numbers keep their width.
        table.add_column(
            name,
            justify="left" if is_text else "right",
            header_style="underline",
            no_wrap=width > 0,
            min_width=width or None,
        )
    choice = found.choice
    for rank, index in enumerate(np.argsort(choice.error_C, kind="stable").tolist(), start=1):
        if rank <= _SHOWN or index == choice.default:
            one = found.candidates[index]
            table.add_row(
                str(rank),
                "all" if one.members == found.all_members else ", ".join(one.members),
                one.how.title,
                one.how.space or "",
                one.checkpoint,
                f"{choice.error_C[index]:.4f}",
                "default" if index == choice.default else f"{choice.improvement_C[index]:+.4f}",
                "" if index == choice.default else f"{choice.improvement_low_C[index]:+.4f}",
                style="bold" if index == choice.default else "",
            )
    console.print(table)
    for line in explain_outcome(describe_outcome(found)):
        console.print(line)
    console.print(f"all of them: {folder.sweep_leaderboard}; {found.seconds:.1f} s, {found.num_trials} trials")
