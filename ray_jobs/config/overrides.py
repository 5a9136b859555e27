"""Overrides of a config's fields, `field=value` or `--field value`. The only module that imports tyro."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ray_jobs.config.run import SECTIONS, RunConfig, flatten
from ray_jobs.errors import RunError

# W&B's older names of modes.
WANDB_MODE_NAMES = {"run": "online", "dryrun": "offline"}


def with_wandb_environment(config: RunConfig, environment: Mapping[str, str]) -> RunConfig:
    """The recipe's config with what W&B's own variables say; what is typed comes after and wins.

    Raises:
        RunError: WANDB_MODE has a value that W&B does not know.
    """
    names = {"WANDB_PROJECT": "project", "WANDB_ENTITY": "entity", "WANDB_NAME": "name", "WANDB_MODE": "wandb"}
    values: dict[str, Any] = {
        field: environment[variable] for variable, field in names.items() if environment.get(variable)
    }
    if "wandb" in values:
        values["wandb"] = WANDB_MODE_NAMES.get(values["wandb"], values["wandb"])
    try:
        return dataclasses.replace(config, tracking=dataclasses.replace(config.tracking, **values))
    except ValueError as error:
        raise RunError(f"{error} (from the environment: {', '.join(v for v in names if environment.get(v))})") from None


def override(config: RunConfig, words: Sequence[str], description: str = "", sections: Sequence[str] = ()) -> RunConfig:
    """A config with `field=value` (or `--field value`) applied.

    Args:
        config: where to start from.
        words: the overrides.
        description: heading of `--help`.
        sections: the only sections that may be changed; empty: all.

    Raises:
        RunError: an unknown field or a value that is not allowed.
    """
    return override_all(config, {}, words, description, sections)[0]


def override_all(
    config: RunConfig,
    others: Mapping[str, Any],
    words: Sequence[str],
    description: str = "",
    sections: Sequence[str] = (),
) -> tuple[RunConfig, dict[str, Any]]:
    """As `override`, with further sections that are none of a run's; returns them, too."""
    owned = {f.name: getattr(config.trainer, f.name) for f in dataclasses.fields(config.trainer)}
    owned |= {name: getattr(config, name) for name in SECTIONS}
    offered = {name: value for name, value in owned.items() if not sections or name in sections}
    offered |= others
    known = flatten({name: dataclasses.asdict(value) for name, value in offered.items()})
    words = [part for word in words for part in _as_flags(word)]
    for word in words:
        _refuse_unknown(word, known)
    changed = _parse_with_tyro(offered, words, description)
    others = {name: changed.pop(name) for name in others}
    trainer_sections = {name: value for name, value in changed.items() if name not in SECTIONS}
    own_sections = {name: value for name, value in changed.items() if name in SECTIONS}
    try:
        trainer = dataclasses.replace(config.trainer, **trainer_sections)
        return dataclasses.replace(config, trainer=trainer, **own_sections), others
    except ValueError as error:
        raise RunError(str(error)) from None


def suggest(name: str, known: Sequence[str] | dict[str, Any]) -> str:
    """ "; nearest: a, b" or nothing."""
    nearest = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    return f"; nearest: {', '.join(nearest)}" if nearest else ""


def _as_flags(word: str) -> list[str]:
    """`folds.only=[0,2]` to `--folds.only 0 2`; what is no `field=value` stays as it is."""
    name, equals, value = word.partition("=")
    if not equals:
        return [word]
    name = "--" + name.lstrip("-")
    if (value.startswith("[") and value.endswith("]")) or (value.startswith("(") and value.endswith(")")):
        return [name, *split_list(value)]
    if value.lower() in ("true", "false", "none", "null"):
        value = {"true": "True", "false": "False"}.get(value.lower(), "None")
    return [name, value]


def split_list(value: str) -> tuple[str, ...]:
    """`[a, b x=[1,2]]` to its parts; a comma inside further brackets divides nothing."""
    inside = value[1:-1] if value[:1] in ("[", "(") and value[-1:] in ("]", ")") else value
    parts = re.split(r",(?![^\[(]*[\])])", inside)
    return tuple(part for part in (part.strip().strip("'\"") for part in parts) if part)


def _refuse_unknown(word: str, known: dict[str, Any]) -> None:
    if not word.startswith("--") or word in ("--help",):
        return
    name = word[2:].replace("-", "_")
    if name in known:
        return
    raise RunError(f"no field {name!r}{suggest_field(name, known) or '; --help lists them all'}")


def suggest_field(name: str, known: Iterable[str]) -> str:
    """As `suggest`; `lr` finds `optimizer.lr`: whole names are compared, and their last parts."""
    known = list(known)
    short = {full.rpartition(".")[2]: full for full in known}
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    nearest += [
        short[part] for part in difflib.get_close_matches(name.rpartition(".")[2], list(short), n=2, cutoff=0.6)
    ]
    return f"; nearest: {', '.join(dict.fromkeys(nearest))}" if nearest else ""


def _parse_with_tyro(sections: dict[str, Any], words: list[str], description: str) -> dict[str, Any]:
    import tyro  # 0.2 s: jobs without overrides do not wait for it

    fields = [(name, type(value), dataclasses.field(default=value)) for name, value in sections.items()]
    shape = dataclasses.make_dataclass("Fields", fields, frozen=True)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed = tyro.cli(
                shape,
                args=words,
                description=description,
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff,),
                default=shape(),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise RunError(_without_frame(errors.getvalue())) from None
    return {name: getattr(parsed, name) for name in sections}


def _without_frame(text: str) -> str:
    """tyro's message without its box, its heading and its hints."""
    lines = [re.sub(r"^[│|]\s?|\s*[│|]$", "", line).strip() for line in text.splitlines()]
    message = " ".join(line for line in lines if line and not re.match(r"^[╭╰─]", line))
    message = re.sub(r"\[/?bold\]", "", message)
    message = re.sub(r"\s*(Argument helptext:|For full helptext).*", "", message)
    return re.sub(r"^Error parsing \w+: ", "", message)
