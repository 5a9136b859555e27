"""The members of a run: its recipe, called `main`, and variants of it that are trained on the same folds and combined
with it.

A member is written as `name [recipe] [field=value ...]`, such as `wide model.hidden_dim=128`. What is not said is as in
the run's own config. With `folds.seed=1` it repeats the cross-validation on another division of the rows. A further
member is a run folder inside the run's folder: `members/<name>/`. With `ensemble.seeds=3` each is trained with two
other seeds, too, as the members `<name>.seed1` and `<name>.seed2`.

A recipe may be of another family. It then has the run's `data` fields that its own family knows by the same name, and
whether it reads the same rows is found out when it has read them (`planning/member_rows.py`)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ray_jobs.config.overrides import override
from ray_jobs.config.recipes import RECIPES, find_recipe
from ray_jobs.config.run import MAIN, RunConfig, flatten, name_trainings, to_dict
from ray_jobs.errors import RunError
from trainers.values import show_value


def resolve_members(config: RunConfig) -> dict[str, RunConfig]:
    """The config of every member by its name, `main` first.

    Raises:
        RunError: a member names an unknown recipe or field, a value that is not allowed, or other rows to learn from.
    """
    configs = {MAIN: config}
    for text in config.members:
        name, *words = text.split()
        try:
            configs[name] = _resolve(config, name, words)
        except RunError as error:
            raise RunError(f"--members: {name!r}: {error}") from None
    trained = {}
    for name, own in configs.items():
        for number, training in enumerate(name_trainings(name, config.ensemble.seeds)):
            trained[training] = _with_seed(own, number, training) if number else own
    return trained


def _with_seed(config: RunConfig, number: int, name: str) -> RunConfig:
    """A member that is trained with another seed, which follows from its own.

    Raises:
        RunError: its family does not say which field is the seed.
    """
    field: str | None = getattr(config.trainer, "SEED", None)
    if field is None:
        raise RunError(
            f"ensemble.seeds: expected 1, as the family {config.family} does not say which of its fields is the seed "
            "(Config.SEED)"
        )
    section, _, field = field.partition(".")
    own = getattr(config.trainer, section)
    seed = int(np.random.SeedSequence([getattr(own, field), number]).generate_state(1)[0] >> 1)
    trainer = dataclasses.replace(config.trainer, **{section: dataclasses.replace(own, **{field: seed})})
    return _as_member(dataclasses.replace(config, trainer=trainer), config, name)


def list_families(config: RunConfig) -> list[str]:
    """The families of all members, each once, the run's own first. A recipe that is unknown is told elsewhere."""
    words = [[*text.split(), "", ""][1] for text in config.members]
    return list(dict.fromkeys([config.family, *(RECIPES[word]().family for word in words if word in RECIPES)]))


def _resolve(config: RunConfig, name: str, words: list[str]) -> RunConfig:
    start = config
    if words and "=" not in words[0] and not words[0].startswith("--"):
        start = _take_recipe(config, words.pop(0))
    sections = [one.name for one in dataclasses.fields(start.trainer)]
    member = override(start, words, sections=[*sections, "folds"])
    _refuse_other_folds(config, member)
    for field in config.trainer.data.ROWS_FROM if member.family == config.family else ():
        own, of_run = getattr(member.trainer.data, field), getattr(config.trainer.data, field)
        if own != of_run:
            raise RunError(
                f"data.{field}={show_value(own)}: expected {show_value(of_run)}, as in the run: all members learn from "
                "the same rows"
            )
    _refuse_other_task(config, member)
    return _as_member(member, config, name)


def _as_member(member: RunConfig, config: RunConfig, name: str) -> RunConfig:
    """The config with which a member of a run lies in its folder."""
    return dataclasses.replace(
        member,
        members=(),
        run=dataclasses.replace(config.run, name=name),
        ensemble=dataclasses.replace(
            config.ensemble, method=config.ensemble.fold_method, weights=None, members=None, external=None, seeds=1
        ),
    )


def _refuse_other_task(config: RunConfig, member: RunConfig) -> None:
    """Raises RunError where members of one family have scores of different tasks."""
    if member.family != config.family:
        return
    fields, of_run = flatten(to_dict(member)), flatten(to_dict(config))
    for name in getattr(config.trainer, "DECIDES_TASK", ()):
        if fields[name] != of_run[name]:
            raise RunError(
                f"{name}={show_value(fields[name])}: expected {show_value(of_run[name])}, as in the run: it decides "
                "what task scores are of, so that members that differ in it can be neither compared nor combined"
            )


def _refuse_other_folds(config: RunConfig, member: RunConfig) -> None:
    """Another division of the rows is a repetition; other kinds or numbers of folds are another run.

    Raises:
        RunError: more than `folds.seed` differs, or rows would leave the blend set.
    """
    for field in dataclasses.fields(config.folds):
        own, of_run = getattr(member.folds, field.name), getattr(config.folds, field.name)
        if field.name != "seed" and own != of_run:
            raise RunError(
                f"folds.{field.name}={show_value(own)}: expected {show_value(of_run)}, as in the run; of the folds "
                "only "
                "folds.seed may differ, which repeats the cross-validation on another division"
            )
    if member.folds.seed != config.folds.seed and config.folds.blend_fraction:
        raise RunError(
            f"folds.seed={member.folds.seed}: expected {config.folds.seed}, as in the run: it decides which rows "
            f"folds.blend_fraction={config.folds.blend_fraction:g} holds out"
        )


def _take_recipe(config: RunConfig, recipe: str) -> RunConfig:
    """A recipe's model and training on the run's own data."""
    other = find_recipe(recipe)()
    if other.family != config.family:
        _refuse_other_kind(config, other)
    trainer = _with_data_of(config.trainer, other.trainer)
    return dataclasses.replace(config, recipe=recipe, family=other.family, trainer=trainer)


def _with_data_of(run: Any, other: Any) -> Any:
    """A recipe's trainer with what the run's `data` section says; another family's with the fields that it knows, too.

    Raises:
        RunError: its family does not take such a value.
    """
    known = {field.name for field in dataclasses.fields(other.data)}
    said = {field.name: getattr(run.data, field.name) for field in dataclasses.fields(run.data) if field.name in known}
    try:
        return dataclasses.replace(other, data=dataclasses.replace(other.data, **said))
    except ValueError as error:
        raise RunError(f"the run's data section does not suit this recipe: {error}") from None


def _refuse_other_kind(config: RunConfig, other: RunConfig) -> None:
    """Where both families always predict the same. (What a family chooses by its data is known once that was read.)

    Raises:
        RunError: the recipe predicts something else than the run.
    """
    chosen = [type(one.trainer).PREDICTS for one in (config, other)]
    if all(isinstance(kind, str) for kind in chosen) and chosen[0] != chosen[1]:
        raise RunError(
            f"recipe {other.recipe} predicts {other.kind.title} and the run {config.kind.title}: members predict the "
            "same of the same rows. Train it as a run of its own"
        )
