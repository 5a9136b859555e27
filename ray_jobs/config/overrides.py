"""Flags of a command and fields of a config, from words to values. The only module that imports tyro."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from ray_jobs.config.run import SECTIONS, RunConfig
from ray_jobs.config.words import Said, show_flag, take_apart
from ray_jobs.errors import RunError
from trainers.families import load_recipes_module

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


def override(config: RunConfig, words: Sequence[str], sections: Sequence[str] = ()) -> RunConfig:
    """A config with `field=value` (or `--field value`) applied.

    Args:
        config: where to start from.
        words: the overrides.
        sections: the only sections that may be changed; empty: all.

    Raises:
        RunError: an unknown field or a value that is not allowed.
    """
    config = with_own_sections(config, words)
    offered = {name: value for name, value in find_sections(config).items() if not sections or name in sections}
    alone, said = take_apart(words, {}, list_fields(offered))
    if alone:
        raise RunError(f"unexpected {alone[0]!r}: fields are written as field=value")
    return with_sections(config, _ask_tyro(None, offered, _as_options(said)))


def with_sections(config: RunConfig, changed: Mapping[str, Any]) -> RunConfig:
    """A config with other sections.

    Raises:
        RunError: they do not go together.
    """
    own = {name: value for name, value in changed.items() if name in SECTIONS}
    of_trainer = {name: value for name, value in changed.items() if name not in SECTIONS}
    try:
        return dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, **of_trainer), **own)
    except ValueError as error:
        raise RunError(str(error)) from None


def with_own_sections(config: RunConfig, words: Sequence[str]) -> RunConfig:
    """The config with the sections that its family has because of what is typed.

    Raises:
        RunError: the family cannot use what is typed.
    """
    prepare = getattr(load_recipes_module(config.family), "prepare", None)
    if prepare is None:
        return config
    try:
        return dataclasses.replace(config, trainer=prepare(config.trainer, words))
    except ValueError as error:
        raise RunError(str(error)) from None


def find_sections(config: RunConfig) -> dict[str, Any]:
    """The sections of a config: the family's first."""
    owned = {f.name: getattr(config.trainer, f.name) for f in dataclasses.fields(config.trainer)}
    return owned | {name: getattr(config, name) for name in SECTIONS}


def list_fields(sections: Mapping[str, Any]) -> dict[str, str]:
    """The type of each field, as it is written, by the field's whole name."""
    return {
        f"{name}.{field}": kind for name, section in sections.items() for field, kind in list_types(section).items()
    }


def list_types(of: Any) -> dict[str, str]:
    """The type of each field of a dataclass, as it is written."""
    types = {field.name: field.type for field in dataclasses.fields(of)}
    return {
        name: kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind)) for name, kind in types.items()
    }


def read_arguments(
    arguments: type[Any], sections: Mapping[str, Any], alone: Sequence[str], said: Sequence[Said]
) -> dict[str, Any]:
    """What was typed, as a command's own dataclass wants it.

    Args:
        arguments: the dataclass. Fields without a default are words that stand alone, the others are flags.
        sections: whose fields may be among what was typed.
        alone, said: see `take_apart`.

    Returns:
        `arguments` and the sections, by name.

    Raises:
        RunError: a value that is not allowed.
    """
    return _ask_tyro(arguments, sections, [*alone, *_as_options(said, {f.name for f in dataclasses.fields(arguments)})])


def describe_options(arguments: type[Any], sections: Mapping[str, Any]) -> str:
    """The flags of a command and the fields of sections, each with its help and its value, in boxes."""
    text = io.TextIOWrapper(io.BytesIO(), encoding=sys.stdout.encoding)  # which decides how boxes are drawn
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        _call_tyro(arguments, sections, ["--help"])
    text.seek(0)
    boxes = text.read().partition("\n\n")[2]
    for flag in dataclasses.fields(arguments):
        boxes = re.sub(rf"--{flag.name}\b", show_flag(flag.name), boxes)
    return boxes.strip("\n")


def _as_options(said: Iterable[Said], flags: Iterable[str] = ()) -> list[str]:
    """As tyro wants them."""
    options: list[str] = []
    for one in said:
        is_switch = one.name in flags and one.values in (["True"], ["False"])
        if not is_switch:
            options += [f"--{one.name}", *one.values]
        elif one.values == ["True"]:
            options.append(f"--{one.name}")
    return options


def _ask_tyro(arguments: type[Any] | None, sections: Mapping[str, Any], options: Sequence[str]) -> dict[str, Any]:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed = _call_tyro(arguments, sections, options)
    except SystemExit:
        raise RunError(_without_frame(errors.getvalue())) from None
    except ValueError as error:
        raise RunError(str(error)) from None
    return {field.name: getattr(parsed, field.name) for field in dataclasses.fields(parsed)}


def _call_tyro(arguments: type[Any] | None, sections: Mapping[str, Any], options: Sequence[str]) -> Any:
    import tyro  # 0.2 s

    own = (
        tyro.conf.arg(name=""),
        tyro.conf.PositionalRequiredArgs,
        tyro.conf.PositionalMetavarFromFieldName,
        tyro.conf.FlagCreatePairsOff,
    )
    fields: list[Any] = [] if arguments is None else [("arguments", Annotated[(arguments, *own)])]
    fields += [
        (
            name,
            Annotated[type(value), tyro.conf.FlagConversionOff],
            dataclasses.field(default_factory=partial(_as, value)),
        )
        for name, value in sections.items()
    ]
    shape = dataclasses.make_dataclass("Fields", fields, frozen=True)
    return tyro.cli(shape, args=options, prog="", description="", use_underscores=True)


def _as(value: Any) -> Any:
    """A default that may be of a class whose objects can be changed, as a dataclass of somebody else's may be."""
    return value


def _without_frame(text: str) -> str:
    """tyro's message without its box, its heading and its hints."""
    lines = [re.sub(r"^[│|]\s?|\s*[│|]$", "", line).strip() for line in text.splitlines()]
    message = " ".join(line for line in lines if line and not re.match(r"^[╭╰─]", line))
    message = re.sub(r"\[/?bold\]", "", message)
    message = re.sub(r"\s*(Argument helptext:|For full helptext).*", "", message)
    return re.sub(r"^Error parsing \w+: ", "", message)
