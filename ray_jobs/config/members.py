"""The members of a run: its recipe, called `main`, and variants of it that are trained on the same folds and combined
with it.

A member is written as `name [recipe] [field=value ...]`, such as `wide model.hidden_dim=128`. What is not said is as in
the run's own config. With `folds.seed=1` it repeats the cross-validation on another division of the rows. A further
member is a run folder inside the run's folder: `members/<name>/`."""

from __future__ import annotations

import dataclasses

from ray_jobs.config.overrides import override
from ray_jobs.config.recipes import find_recipe
from ray_jobs.config.run import MAIN, RunConfig
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
    return configs


def _resolve(config: RunConfig, name: str, words: list[str]) -> RunConfig:
    start = config
    if words and "=" not in words[0] and not words[0].startswith("--"):
        start = _take_recipe(config, words.pop(0))
    sections = [field.name for field in dataclasses.fields(config.trainer)]
    member = override(start, words, sections=[*sections, "folds"])
    _refuse_other_folds(config, member)
    for name in config.trainer.data.ROWS_FROM:
        own, of_run = getattr(member.trainer.data, name), getattr(config.trainer.data, name)
        if own != of_run:
            raise RunError(
                f"data.{name}={show_value(own)}: expected {show_value(of_run)}, as in the run: all members learn from "
                "the same rows"
            )
    return dataclasses.replace(
        member,
        members=(),
        run=dataclasses.replace(config.run, name=name),
        ensemble=dataclasses.replace(
            config.ensemble, method=config.ensemble.fold_method, weights=None, members=None, external=None
        ),
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
        raise RunError(
            f"recipe {recipe} is of family {other.family}: expected one of family {config.family}, as in the run: all "
            "members learn from the same rows"
        )
    trainer = dataclasses.replace(other.trainer, data=config.trainer.data)
    return dataclasses.replace(config, recipe=recipe, trainer=trainer)
