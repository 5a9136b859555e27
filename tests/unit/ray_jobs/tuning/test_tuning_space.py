"""What may be tuned, and what a trial is made of."""

import dataclasses
import sys

import numpy as np
import pytest

from ray_jobs.cli.command_line import parse_tune
from ray_jobs.config.recipes import RECIPES
from ray_jobs.config.tune import TuneConfig
from ray_jobs.errors import RunError
from ray_jobs.tuning.decisions import choose_fields, refuse_missing_search
from ray_jobs.tuning.space import count_combinations, list_combinations, parse_space, read_fields, with_fields

LINES = ("optimizer.lr loguniform 1e-5 1e-2", "model.dropout choice 0.00 1e-1 0.3", "training.epochs randint 2 5")


def test_the_command_line_gives_space_and_recipe():
    words = ["--config-name=clip_multimodal_small", "tune.name=search", f"tune.space=[{', '.join(LINES)}]"]
    command, tune = parse_tune([*words, "tune.num_trials=7", "training.batch_size=32", "--dry-run"], "usage")
    assert tune == TuneConfig(name="search", space=LINES, num_trials=7)
    assert command.config.trainer.training.batch_size == 32
    assert command.dry_run


@pytest.mark.parametrize(
    "recipe", [name for name, build in RECIPES.items() if hasattr(build().trainer.model, "dropout")]
)
def test_every_recipe_can_be_tuned(recipe):
    command, _ = parse_tune([f"--config-name={recipe}"], "usage")
    assert command.config.members == ()
    assert len(parse_space(LINES, command.config)) == 3


def test_choices_are_kept_as_the_config_has_them():
    space = parse_space([*LINES, "data.text_columns choice [title] []", "data.date_column choice date none"],
                        RECIPES["clip_multimodal_small"]())  # fmt: skip
    assert space[1].values == ("0.0", "0.1", "0.3")
    assert space[3].values == ("[title]", "[]")
    config = with_fields(
        RECIPES["clip_multimodal_small"](), {"data.text_columns": "[title]", "data.date_column": "none"}
    )
    assert config.trainer.data.text_columns == ("title",)
    assert read_fields(space, config) == {
        "optimizer.lr": "0.004", "model.dropout": "0.3", "training.epochs": "24", "data.text_columns": "[title]",
        "data.date_column": "none",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("optimizer.ler uniform 0 1", ["no field 'optimizer.ler'", "nearest: optimizer.lr"]),
        ("lr uniform 0.1 1", ["no field 'lr'", "optimizer.lr"]),
        ("optimizer.lr logunifrom 1e-5 1", ["kind 'logunifrom': expected one of", "nearest: loguniform"]),
        ("optimizer.lr", ["expected `field kind values`"]),
        ("optimizer.lr loguniform 0 1", ["expected low above 0 for loguniform"]),
        ("optimizer.lr loguniform 1 0.1", ["the lower one first"]),
        ("optimizer.lr uniform 0.1 nan", ["two finite numbers"]),
        ("optimizer.lr uniform 0.1", ["1 value: expected low and high"]),
        ("optimizer.lr uniform low high", ["expected numbers"]),
        ("model.dropout uniform 0.5 1.5", ["model.dropout=1.5", "expected a share"]),
        ("model.dropout choice 0.1 0.10", ["a choice is given twice"]),
        ("optimizer.schedule choice cosine linear", ["optimizer.schedule=linear"]),
        ("training.epochs uniform 2 5", ["training.epochs=2.0"]),
        ("training.epochs randint 0 5", ["training.epochs=0"]),
        ("folds.count choice 3 5", ["can be compared"]),
        ("data.target choice views likes", ["can be compared"]),
        ("ensemble.method choice mean median", ["does not change what is trained", "sweep.py"]),
        ("run.name choice a b", ["does not change what is trained"]),
    ],
)
def test_what_cannot_be_tuned_is_told_at_once(line, words):
    with pytest.raises(RunError) as error:
        parse_space([line], RECIPES["clip_multimodal_small"]())
    assert all(word in str(error.value) for word in words), error.value


def test_a_field_is_tuned_once_and_something_is():
    with pytest.raises(RunError, match="is given twice"):
        parse_space([LINES[0], LINES[0]], RECIPES["clip_multimodal_small"]())
    with pytest.raises(RunError, match="empty"):
        parse_space([], RECIPES["clip_multimodal_small"]())


def draw(tune, lines, count, config=None):
    """The fields of the first trials."""
    config = config or RECIPES["clip_multimodal_small"]()
    space, fields = parse_space(lines, config), {}
    for number in range(count):
        chosen = choose_fields(tune, space, config, number, fields)
        if chosen is None:
            break
        fields[number] = chosen
    return fields


def test_random_draws_depend_on_seed_and_number_alone():
    first = draw(TuneConfig(search="random"), LINES, 4)
    assert first == draw(TuneConfig(search="random"), LINES, 4)
    assert first != draw(TuneConfig(search="random", seed=1), LINES, 4)
    assert first[0] == {"optimizer.lr": "0.004", "model.dropout": "0.3", "training.epochs": "24"}
    for fields in list(first.values())[1:]:
        assert 1e-5 <= float(fields["optimizer.lr"]) <= 1e-2
        assert fields["model.dropout"] in ("0.0", "0.1", "0.3")
        assert fields["training.epochs"] in ("2", "3", "4")


def test_a_space_of_choices_ends_when_each_combination_was_tried_once():
    lines = ("model.dropout choice 0.0 0.3", "training.batch_size choice 32 64 128")
    space = parse_space(lines, RECIPES["clip_multimodal_small"]())
    fields = draw(TuneConfig(search="random"), lines, 20)
    assert count_combinations(space) == len(fields) == 6  # the recipe as it is, 0.3 and 64, is one of them
    assert sorted(map(str, fields.values())) == sorted(map(str, list_combinations(space)))


def test_logarithmic_draws_fill_the_decades_alike():
    lines = ("optimizer.lr loguniform 1e-6 1e-2",)
    drawn = [
        float(fields["optimizer.lr"]) for fields in list(draw(TuneConfig(search="random"), lines, 21).values())[1:]
    ]
    counts, _ = np.histogram(np.log10(drawn), bins=[-6, -5, -4, -3, -2])
    assert counts.min() >= 2
    assert max(len(f"{value:.12g}".replace(".", "").strip("0")) for value in drawn) <= 12


def test_values_that_do_not_go_together_are_told_when_they_are_drawn():
    config = dataclasses.replace(RECIPES["clip_multimodal_small"]())
    lines = ("model.freeze choice true false", "model.allow_random_frozen choice true false")
    with pytest.raises(RunError, match="random features"):
        draw(TuneConfig(search="random"), lines, 8, config)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_trials", 0), ("search", "grid"), ("scheduler", "median"), ("reduction_factor", 1.0), ("name", "../x"),
     ("max_trials_at_once", 0), ("seed", -1)],
)  # fmt: skip
def test_an_impossible_tune_section_is_refused(field, value):
    with pytest.raises(ValueError, match=f"tune.{field}="):
        TuneConfig(**{field: value})


def test_a_search_without_its_package_is_refused_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RunError, match=r"tune.search=tpe needs the package optuna: `pip install 'ray-kfold\[tune\]'`"):
        refuse_missing_search(TuneConfig(search="tpe"))
    refuse_missing_search(TuneConfig(search="random"))
