"""What the user has told W&B itself: its settings files, which `wandb offline`, `disabled`, `init` and `login` write.

Loads no wandb: a command that only asks for the mode does not wait for W&B's client. A file that cannot be read, or has
a mode that nobody knows, is not passed over: it may forbid what follows, so nothing goes online until it is mended.
"""

from __future__ import annotations

import configparser
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_jobs.config.overrides import WANDB_MODE_NAMES, with_wandb_environment
from ray_jobs.config.run import RunConfig
from ray_jobs.errors import RunError

_SECTION = "default"
_CAREFUL = ("online", "offline", "disabled")


@dataclass(frozen=True)
class WandbSettings:
    """What the files say together.

    Attributes:
        values: the settings by name; of a later file before those of an earlier one.
        sources: the file that each is from.
        problem: why a file does not count; None: all do.
    """

    values: Mapping[str, str]
    sources: Mapping[str, Path]
    problem: str | None

    @property
    def mode(self) -> str | None:
        """`online`, `offline`, `disabled`, or None if no file has a mode."""
        return self.values.get("mode")


def read_wandb_settings(environment: Mapping[str, str] = os.environ) -> WandbSettings:
    """Reads the user's file, and those of the working directory and of WANDB_DIR, which win in this order."""
    values: dict[str, str] = {}
    sources: dict[str, Path] = {}
    problem = None
    for path in _list_files(environment):
        try:
            found = _read_file(path)
        except (OSError, ValueError, configparser.Error) as error:
            problem = f"{path} cannot be read ({' '.join(str(error).split())})"
            continue
        values |= found
        sources |= dict.fromkeys(found, path)
    mode = values.pop("mode", None)
    if mode is not None:
        known = WANDB_MODE_NAMES.get(mode, mode)
        if known in _CAREFUL:
            values["mode"] = known
        else:
            problem = f"{sources['mode']} has mode={mode}: expected one of {', '.join(_CAREFUL)}"
    return WandbSettings(values, sources, problem)


def with_wandb_settings(config: RunConfig, environment: Mapping[str, str]) -> RunConfig:
    """A recipe's config with what W&B's files say, and its variables, which win. What is typed comes after.

    A mode of the files is not written into the config: it becomes `auto`, so that `wandb online` takes it back.

    Raises:
        RunError: a variable or a file has a value that W&B does not take.
    """
    settings = read_wandb_settings(environment)
    values: dict[str, Any] = {
        name: settings.values[name] for name in ("project", "entity") if settings.values.get(name)
    }
    if settings.mode is not None:
        values["wandb"] = "auto"
    try:
        config = dataclasses.replace(config, tracking=dataclasses.replace(config.tracking, **values))
    except ValueError as error:
        raise RunError(f"{error} (from {settings.sources['project']})") from None
    return with_wandb_environment(config, environment)


def keep_wandb_mode(config: RunConfig) -> RunConfig:
    """The config of a run that exists; its mode is `auto` where W&B's files let less out now than it does."""
    mode, told = config.tracking.wandb, read_wandb_settings().mode
    if mode == "auto" or told is None or _CAREFUL.index(told) <= _CAREFUL.index(mode):
        return config
    return dataclasses.replace(config, tracking=dataclasses.replace(config.tracking, wandb="auto"))


def choose_wandb_mode(config: RunConfig, settings: WandbSettings, environment: Mapping[str, str]) -> tuple[str, str]:
    """The mode of a job that begins; and the same for people, with where it comes from."""
    mode: str = config.tracking.wandb
    variable = environment.get("WANDB_MODE", "")
    source = "WANDB_MODE" if WANDB_MODE_NAMES.get(variable, variable) == mode else "tracking.wandb"
    if mode == "auto" and settings.mode is not None:
        mode, source = settings.mode, str(settings.sources["mode"])
    if settings.problem and mode in ("auto", "online"):
        return "offline", f"offline, as {settings.problem}; correct the file to go online"
    if mode == "auto":
        return mode, "online if there is a key, else offline (tracking.wandb=auto)"
    return mode, f"{mode}, as {source} says"


def _list_files(environment: Mapping[str, str]) -> list[Path]:
    user = environment.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    roots = ["."]
    if environment.get("WANDB_DIR"):
        # `wandb offline` writes here, though W&B's client then reads in the working directory alone.
        roots.append(environment["WANDB_DIR"])
    paths = [Path(os.path.abspath(os.path.expanduser(root))) for root in roots]
    folders = [path / (".wandb" if (path / ".wandb").exists() else "wandb") for path in paths]
    return [Path(os.path.abspath(os.path.expanduser(user))) / "settings", *(folder / "settings" for folder in folders)]


def _read_file(path: Path) -> dict[str, str]:
    if not os.path.isfile(path):  # nor where it may not be looked
        return {}
    parser = configparser.ConfigParser()
    with path.open(encoding="utf-8") as file:
        parser.read_file(file)
    return dict(parser.items(_SECTION)) if parser.has_section(_SECTION) else {}
