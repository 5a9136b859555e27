"""Lets a finished run's models make something new: text that goes on from a prompt, pictures; nothing is trained.

    python ray_jobs/generate.py tales --prompt "Once upon a time" --tokens 100
    python ray_jobs/generate.py tales --fold 0 --output drawn

All models of the run's ensemble work together, or with --fold one of them. RUN stands first: it says which family is
asked, and so which further flags there are; `RUN --help` lists them.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ensemble.config import EnsembleConfig
from ray_jobs.cli.arguments import OfRun, parse
from ray_jobs.cli.entry import main_with_errors
from ray_jobs.cli.own_flags import find_named_run, join_flags
from ray_jobs.config.overrides import override
from ray_jobs.errors import RunError
from ray_jobs.runs.folder import RunFolder
from trainers.values import check_number, refuse


@dataclass(frozen=True)
class Arguments(OfRun):
    """What is typed besides the family's options and fields."""

    fold: int | None = None
    """One fold's model instead of the ensemble's."""
    output: str | None = None
    """Folder of the files that are made, which must be empty or absent; by default generated/<number> in the run's
    folder."""
    device: str = "auto"
    """cpu, cuda:0, ...; auto: a GPU where there is one."""
    threads: int = os.cpu_count() or 1
    """Threads of the CPU; other numbers may change last bits."""

    def __post_init__(self) -> None:
        check_number("--threads", self.threads, least=1)


def main(argv: list[str]) -> int:
    offered = {"ensemble": EnsembleConfig()}
    folder = find_named_run(argv)
    options = None if folder is None else _find_options(folder)
    typed = parse(
        "generate.py", argv, __doc__, Arguments if options is None else join_flags(Arguments, options), offered
    )
    assert folder is not None  # else a word was missing
    assert options is not None
    given, config = typed.arguments, override(folder.read_config(), typed.fields, sections=("ensemble",))
    wanted = options(**{field.name: getattr(given, field.name) for field in fields(options)})
    from ray_jobs.prediction.generation import GenerateRequest, generate

    output = Path(os.path.expanduser(given.output)).absolute() if given.output else None
    request = GenerateRequest(given.fold, wanted, output, given.device, given.threads)
    return generate(folder, config, request)


def _find_options(folder: RunFolder) -> type[Any]:
    """The options of the run's family.

    Raises:
        RunError: it makes nothing.
    """
    from trainers.interface import load_generate_module

    family = folder.read_config().family
    module = load_generate_module(family)
    if module is None:
        raise RunError(
            f"{folder.root.name} is a run of {family}, and its models make nothing new: expected a run of a family "
            "with a generate.py; `predict.py` predicts rows with this one"
        )
    options: type[Any] = module.Options
    if shared := {field.name for field in fields(options)} & {field.name for field in fields(Arguments)}:
        raise refuse("Options", sorted(shared), f"of trainers/{family}/generate.py no names of the command's own flags")
    return options


if __name__ == "__main__":
    main_with_errors(main)
