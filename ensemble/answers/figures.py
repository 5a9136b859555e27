"""Pictures of answers: how often each model of an ablation is right, and examples of what was said before and after."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
from matplotlib.figure import Figure

from ensemble.answers.files import find_answer, list_models
from ensemble.answers.scores import describe_ablation
from ensemble.figure_style import COLOURS, GREY, as_text, describe_panel, new_figure, shorten_name
from ensemble.pictures import Picture, Results, require

_MOST_TYPES = 8
_NUM_EXAMPLES = 6
_WIDTH = 96  # characters of a line of an example
_MOST_LINES = 3


def draw_ablation(ablation: Mapping[str, Any]) -> Figure:
    """Shares of right answers of each model, all and by type, with 95 % intervals; a line at what guessing gets."""
    models = ablation["models"]
    by_type = next(iter(models.values())).get("by_type", {})
    shown = sorted(by_type, key=lambda kind: -by_type[kind]["total"])[:_MOST_TYPES]
    groups = ["all", *shown]
    figure, (axes,) = new_figure(4.4)
    width = 0.8 / len(models)
    for number, (name, own) in enumerate(models.items()):
        parts = [own, *(own["by_type"][kind] for kind in shown)]
        values = np.array([one["answer_accuracy"] for one in parts])
        ends = np.array([[one["answer_low"], one["answer_high"]] for one in parts])
        places = np.arange(len(groups)) + (number - (len(models) - 1) / 2) * width
        errors = np.maximum(np.abs(ends.T - values), 0)
        axes.bar(places, values, 0.92 * width, yerr=errors, capsize=3, color=COLOURS[number], label=as_text(name))
    guess = [ablation["guess"]["answer_accuracy"], *(ablation["guess"]["by_type"].get(kind, 0) for kind in shown)]
    for place, value in enumerate(guess):
        label = "guessing the most frequent" if place == 0 else "_others"
        axes.hlines(value, place - 0.45, place + 0.45, color=GREY, linestyle="--", linewidth=1.5, label=label)
    ordered = [f"{as_text(shorten_name(kind, 18))}\n({by_type[kind]['total']:,})" for kind in shown]
    axes.set_xticks(range(len(groups)), [f"all\n({ablation['num_rows']:,})", *ordered], fontsize="small")
    axes.set_ylim(0, 1.02)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    describe_panel(axes, "Held-out questions that are answered right", "", "share")
    return figure


def draw_examples(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """What each model of an ablation says to the same questions."""
    models, blocks = list_models(lines), []
    for line in lines:
        rows = [(f"{line['type']}: {line['question']}   (right: {line['target']})", "black", "bold")]
        for name in models:
            answer = find_answer(line, name)
            if answer is not None:
                mark = "?" if answer["correct"] is None else "right" if answer["correct"] else "wrong"
                colour = COLOURS[0] if mark == "right" else COLOURS[1] if mark == "wrong" else GREY
                rows.append((f"{name} ({mark}): {' '.join(answer['text'].split()) or '(nothing)'}", colour, "normal"))
        blocks.append([(part, colour, weight) for text, colour, weight in rows for part in _wrap(text)])
    height = sum(len(block) + 1 for block in blocks)
    figure, (axes,) = new_figure(0.4 + 0.19 * height)
    axes.axis("off")
    axes.set_ylim(height, 0)
    place = 0.5
    for block in blocks:
        for text, colour, weight in block:
            axes.text(
                0, place, as_text(text), color=colour, weight=weight, fontsize=8.5, va="center", family="monospace"
            )
            place += 1
        place += 1
    return figure


def _wrap(text: str) -> list[str]:
    lines = textwrap.wrap(text, _WIDTH, subsequent_indent="    ")
    return [*lines[: _MOST_LINES - 1], f"{lines[_MOST_LINES - 1]} …"] if len(lines) > _MOST_LINES else lines


def _read(results: Results) -> list[dict[str, Any]]:
    table = results.oof.filter(pc.equal(results.oof["member"], "main"))
    lines: list[dict[str, Any]] = table.to_pylist()
    return require(lines, "no fold of the run's own recipe is finished")


def _choose_examples(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Questions of each type in turn: first those that the last model alone answers right, then those it does not."""

    def is_won(line: Mapping[str, Any]) -> bool:
        return bool(line["correct"]) and not any(one["correct"] for one in line["before"])

    won = [line for line in lines if is_won(line)]
    lost = [line for line in lines if not line["correct"]]
    chosen: list[dict[str, Any]] = []
    for part, most in ((won, _NUM_EXAMPLES - 2), (lost, 2), (list(lines), _NUM_EXAMPLES)):
        seen: dict[str, int] = {}
        ordered = []
        for line in part:
            seen[line["type"]] = seen.get(line["type"], 0) + 1
            ordered.append((seen[line["type"]], line))
        fresh = [line for _, line in sorted(ordered, key=lambda pair: pair[0]) if line not in chosen]
        chosen += fresh[: max(0, min(most, _NUM_EXAMPLES - len(chosen)))]
    return chosen


PICTURES: tuple[str | Picture, ...] = (
    "members_and_combinations",
    "seeds",
    "performance_by_fold",
    Picture(
        "ablation",
        "What each stage adds",
        "Out of fold: each question was answered by models that did not learn from it. Bars that overlap may still "
        "differ: the summary has the paired differences.",
        lambda run: draw_ablation(describe_ablation(_read(run))),
    ),
    Picture(
        "example_answers",
        "Answers before and after",
        "The same held-out questions, answered by each model: first some that only the last one answers right, then "
        "some that it does not.",
        lambda run: draw_examples(_choose_examples(_read(run))),
    ),
    "loss_of_all_folds",
    "score_of_all_folds",
    "timings",
)
