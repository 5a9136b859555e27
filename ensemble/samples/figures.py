"""Pictures of how good generative models are. Arrays in, matplotlib figures out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
from matplotlib.figure import Figure
from PIL import Image

from ensemble.figure_style import COLOURS, GREY, describe_panel, new_figure
from ensemble.pictures import MissingDataError, Picture, Results
from ensemble.samples.outcome import describe_losses

_MOST_GRIDS = 4
_SERIES = {
    "model": ("models, on rows that they did not see", COLOURS[0], "-", "o"),
    "floor": ("best possible model", COLOURS[2], "--", "v"),
    "memoriser": ("training rows by heart", COLOURS[1], "--", "^"),
    "zero": ("always the mean grey", GREY, ":", "s"),
}


def draw_loss_by_time(losses: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """The loss in each bin of times with its standard error, beside those of others on the same rows."""
    figure, (axes,) = new_figure(4.6)
    handles, labels = [], []
    for name, (label, colour, line, marker) in _SERIES.items():
        if name not in losses:
            continue
        bins = [one for one in losses[name][1:] if one["v_loss"] is not None]
        middle = [(one["low"] + one["high"]) / 2 for one in bins]
        values = np.maximum([one["v_loss"] for one in bins], 1e-4)
        handles.append(
            axes.errorbar(
                middle,
                values,
                [one["standard_error"] for one in bins] if name == "model" else None,
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=4,
                capsize=3,
            )
        )
        whole = losses[name][0]
        labels.append(
            f"{label}: {whole['v_loss']:.4g}" + (f" ± {whole['standard_error']:.2g}" if name == "model" else "")
        )
    axes.set_yscale("log")
    axes.set_xlim(0, 1)
    describe_panel(
        axes, "v-loss by time", "time t, from noise (0) to the clean row (1)", "v-loss (below 0.0001 as 0.0001)"
    )
    axes.legend(handles, labels, fontsize="small", frameon=False)
    return figure


def _read_losses(results: Results) -> dict[str, list[dict[str, Any]]]:
    return describe_losses(results.oof.filter(pc.equal(results.oof["member"], "main")))


def show_file(results: Results, name: str, title: str) -> Figure:
    """A picture of `samples/`."""
    path = results.root / "samples" / name
    if not path.is_file():
        raise MissingDataError("the folds have made no samples (sampling.num_samples=0)")
    picture = np.asarray(Image.open(path))
    figure, (axes,) = new_figure(float(np.clip(0.5 + 8 * picture.shape[0] / picture.shape[1], 1.5, 12)))
    axes.axis("off")
    axes.imshow(picture, interpolation="nearest")
    axes.set_title(title, fontsize="small")
    return figure


def draw_progress(results: Results) -> Figure:
    """Grids of the first fold's samples as it was trained, evenly spread over the steps."""
    paths = sorted((results.root / "folds" / "0" / "pictures").glob("samples_grid_*.png"))
    if not paths:
        raise MissingDataError("no grid was made while the folds were trained (sampling.every_epochs=0)")
    chosen = [paths[place] for place in np.unique(np.linspace(0, len(paths) - 1, _MOST_GRIDS).round().astype(int))]
    figure, panels = new_figure(0.5 + 8 / len(chosen), 1, len(chosen))
    for axes, path in zip(panels, chosen, strict=True):
        axes.axis("off")
        axes.imshow(np.asarray(Image.open(path)), interpolation="nearest")
        axes.set_title(f"step {int(path.stem.rpartition('_')[2]):,}", fontsize="small")
    return figure


def _read_facts(results: Results) -> dict[str, Any]:
    path = results.root / "samples" / "samples.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _describe_samples(results: Results) -> str:
    """What was measured of the first fold's samples, in lines."""
    facts = _read_facts(results)
    folds = {name.removeprefix("fold_"): one for name, one in facts.items() if name.startswith("fold_")}
    first: Mapping[str, Any] = next(iter(folds.values()), {})
    parts = [f"fold {name}: {one['valid']:.0%} valid" for name, one in folds.items() if "valid" in one]
    for name in first:
        if name.startswith("kid_") and f"{name}_se" in first:
            values = " / ".join(f"{one[name]:.1f} ± {one[name + '_se']:.1f}" for one in _list_folds(facts, name))
            parts.append(f"1000 · {name}: {values}")
    if "distance" in first:
        parts.append("distances to real pictures: not measured")
    return "\n".join(parts)


def _list_folds(facts: Mapping[str, Any], name: str) -> list[Any]:
    return [one for fold, one in facts.items() if fold.startswith("fold_") and name in one]


def _describe_nearness(results: Results) -> str:
    found = _list_folds(_read_facts(results), "nearer_to_training")
    shares = " / ".join(f"{one['nearer_to_training']:.0%}" for one in found)
    of_real = " / ".join(f"{one['nearer_to_training_of_real']:.0%}" for one in found)
    return f"nearer to a training than to an unseen picture: {shares} of the samples, {of_real} of unseen pictures"


def _describe_agreement(results: Results) -> str:
    facts = _read_facts(results).get("agreement")
    if facts is None:
        return "one fold"
    return (
        f"root mean square difference of two folds' pictures of one noise: {facts['same_noise']:.3g}; of different "
        f"noise: {facts['other_noise']:.3g}"
    )


PICTURES: tuple[str | Picture, ...] = (
    Picture(
        "loss_by_time",
        "Loss by time",
        "Between the best possible model, where it is known, and one that has the training rows by heart: what is "
        "below the latter has learned more than its rows. Bars are standard errors over rows.",
        lambda run: draw_loss_by_time(_read_losses(run)),
    ),
    Picture(
        "samples",
        "Samples",
        "What the first fold's model has made, in the order of their numbers, none left out.",
        lambda run: show_file(run, "fold_0.png", _describe_samples(run)),
    ),
    Picture(
        "samples_over_steps",
        "Samples over the steps",
        "What the first fold's model made of the same noise as it was trained.",
        draw_progress,
    ),
    Picture(
        "closest_pairs",
        "Closest pairs",
        "In threes: a sample, its nearest training picture and its nearest unseen one, of those that are nearest to a "
        "training picture. Copies would be alike in the first two alone.",
        lambda run: show_file(run, "closest_pairs.png", _describe_nearness(run)),
    ),
    Picture(
        "agreement_of_folds",
        "What folds make of the same noise",
        "A row for each fold, a column for each noise. Folds that agree have learned what their rows have in common.",
        lambda run: show_file(run, "agreement.png", _describe_agreement(run)),
    ),
    "members_and_combinations",
    "seeds",
    "performance_by_fold",
    "loss_of_all_folds",
    "score_of_all_folds",
    "timings",
)
