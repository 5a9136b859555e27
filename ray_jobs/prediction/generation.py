"""Makes something new with a run's models, in this process: no cluster is started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_jobs.cli.console import open_console
from ray_jobs.cli.places import refuse_unwritable
from ray_jobs.config.run import RunConfig
from ray_jobs.errors import EXIT_OK, RunError
from ray_jobs.prediction.models import read_models, refuse_unusable
from ray_jobs.results.run_files import list_combined_folds
from ray_jobs.runs.folder import RunFolder
from trainers.interface import load_generate_module


@dataclass(frozen=True)
class GenerateRequest:
    """What the user wants: with one fold's model or, where it is None, with all that are combined; the family's
    options, the folder for files (None: a new one in the run's), device and threads."""

    fold: int | None
    options: Any
    output: Path | None
    device: str
    num_threads: int


def generate(folder: RunFolder, config: RunConfig, request: GenerateRequest) -> int:
    """The job.

    Raises:
        RunError, ValueError: nothing was made; the message says why.
    """
    families = {folder.of_member(name).read_config().family for name in config.combined_members}
    if families != {config.family}:
        raise RunError(
            f"the run's ensemble has models of {', '.join(sorted(families))}: expected those of {config.family} alone, "
            "as models of several families make nothing together; name members of that family in ensemble.members"
        )
    refuse_unusable(folder, config)
    folds = _choose_folds(folder, config, request.fold)
    output = request.output or _name_output(folder)
    if output.exists() and (output.is_file() or any(output.iterdir())):
        raise RunError(f"--output={output} exists and is not empty: expected a new or an empty folder")
    refuse_unwritable(output.parent if not output.exists() else output, "--output FOLDER names another place")
    module, device = load_generate_module(config.family), choose_device(request.device)
    assert module is not None  # its options were asked for
    models = read_models(folder, config, folds)
    console = open_console()
    num = len(models)
    console.print(f"run {folder.root.name}: {num} model{'s' * (num > 1)} of {_name_members(config)}", highlight=False)
    output.mkdir(parents=True, exist_ok=True)
    for line in module.generate(models, request.options, output, device, request.num_threads):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if any(output.iterdir()):
        console.print(f"written: {output}", soft_wrap=True)
    else:
        output.rmdir()
    return EXIT_OK


def _choose_folds(folder: RunFolder, config: RunConfig, fold: int | None) -> tuple[int, ...]:
    combined = list_combined_folds(folder, config)
    if fold is None:
        return combined
    if fold not in combined:
        raise RunError(f"--fold={fold}: expected one of {', '.join(map(str, combined))}")
    return (fold,)


def _name_members(config: RunConfig) -> str:
    names = config.combined_members
    return f"member{'s' * (len(names) > 1)} {', '.join(names)}"


def _name_output(folder: RunFolder) -> Path:
    taken = [int(path.name) for path in folder.generated.glob("*") if path.name.isdecimal()]
    return folder.generated / f"{max(taken, default=-1) + 1:03d}"


def choose_device(device: str) -> str:
    """The device that is meant by `auto`: a GPU where there is one.

    Raises:
        RunError: there is no such device.
    """
    import torch

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RunError(f"--device={device}: expected cpu, cuda:0 or auto ({error!s:.100})") from None
    return device
