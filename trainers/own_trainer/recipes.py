"""The named configs of this family. `--config-name=NAME` picks one; its first words of documentation are shown by
`--help`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from trainers.families import Recipe
from trainers.own_trainer.config import Config, DataConfig, ModelConfig, TrainerConfig

# A function that fits for an hour says nothing meanwhile, and targets may be below zero.
_RUN = {"stall_timeout_s": None}
_NUMBERS, _CLASSES = {"metric": "rmse", "space": "raw"}, {"metric": "log_loss"}


def own_trainer() -> Recipe:
    """A function of your own, or an estimator: trainer.path=my_model.py:train_fold. On made-up data unless told."""
    return Recipe(Config(), sections={"run": _RUN, "ensemble": _NUMBERS})


def own_classifier() -> Recipe:
    """As own_trainer for classes: the target may be text, and probabilities of its values are predicted."""
    model = ModelConfig(task="classification")
    data = DataConfig(target="medium")
    return Recipe(Config(data=data, model=model), sections={"run": _RUN, "ensemble": _CLASSES})


def prepare(config: Config, words: Sequence[str]) -> Config:
    """The config with what the function that the words name says itself: its own options, and its source's checksum.

    Raises:
        DataError: the function cannot be loaded, or its options cannot be used.
    """
    path = None
    for word, following in pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name.lstrip("-").replace("-", "_") == "trainer.path":
            path = value if equals else following
    if path is None or path.lower() in ("none", "null"):
        return config
    from trainers.own_trainer.users_code.source import load_source

    source = load_source(path)
    model = replace(config.model, source_sha256=source.sha256)
    trainer = TrainerConfig(path, folder=os.getcwd())
    return replace(config, trainer=trainer, model=model, my=source.default_options())


RECIPES = (own_trainer, own_classifier)
ALIASES = {recipe.__name__: {"trainer": "trainer.path"} for recipe in RECIPES}
# A recipe and fields that train in seconds on any CPU on data that the family makes, for the tests of its contract.
SMALLEST = "own_trainer my.epochs=2 my.batch_size=6"
