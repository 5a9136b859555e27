"""Evaluates a finished run's models on rows whose truth is known; nothing is trained, and no cluster is started.

    python ray_jobs/evaluate.py answers --data test.jsonl
    python ray_jobs/evaluate.py answers --eval-sft --no-judge --output-dir scores

RUN stands first: it says which family is asked, and so which further flags there are; `RUN --help` lists them. Without
--data the run's own test rows are taken, with --blend those of its blend set, on which no fold has trained: what is
chosen there can be scored on the test rows.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ensemble.config import EnsembleConfig
from ray_jobs.cli.arguments import OfRun, parse
from ray_jobs.cli.entry import main_with_errors
from ray_jobs.cli.own_flags import find_named_run, join_flags
from ray_jobs.config.overrides import override
from trainers.values import check_number, refuse


@dataclass(frozen=True)
class Arguments(OfRun):
    """What is typed besides the family's options and fields."""

    data: str | None = None
    """The rows, whose truth is known: what predict.py takes as new rows, with the target."""
    blend: bool = False
    """The rows of the run's blend set (folds.blend_fraction)."""
    output_dir: str | None = None
    """Folder of the files; by default one below evaluation/ in the run's folder."""
    device: str = "auto"
    """cpu, cuda:0, ...; auto: a GPU where there is one."""
    threads: int = os.cpu_count() or 1
    """Threads of the CPU."""

    def __post_init__(self) -> None:
        check_number("--threads", self.threads, least=1)
        if self.blend and self.data is not None:
            raise refuse("--blend", self.data, "no --data: the rows are the run's own")


def main(argv: list[str]) -> int:
    return run_evaluation("evaluate.py", argv, __doc__, is_ablation=False)


def run_evaluation(job: str, argv: list[str], what: str, *, is_ablation: bool) -> int:
    """Reads the command line of an evaluation or an ablation, and does it."""
    offered = {"ensemble": EnsembleConfig()}
    folder = find_named_run(argv)
    if folder is None:
        parse(job, argv, what, Arguments, offered)
        raise AssertionError("a word was missing")
    from ray_jobs.prediction.evaluation import EvaluateRequest, as_options, evaluate, expand, find_options

    options = find_options(folder)
    typed = parse(job, argv, what, join_flags(Arguments, options), offered)
    given, config = typed.arguments, override(folder.read_config(), typed.fields, sections=("ensemble",))
    own = as_options(options, given)
    request = EvaluateRequest(
        place=expand(given.data),
        blend=given.blend,
        options=own,
        output=expand(given.output_dir),
        device=given.device,
        num_threads=given.threads,
        is_ablation=is_ablation,
    )
    return evaluate(folder, config, request)


if __name__ == "__main__":
    main_with_errors(main)
