"""Pictures of how good maps are: arrays in, matplotlib figures out; and those that a report has of them.

Shape suffixes: N rows, H height, W width.
"""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
from matplotlib.figure import Figure
from PIL import Image

from ensemble.figure_style import describe_panel, draw_cloud, draw_histogram, new_figure, shorten_name
from ensemble.maps.overlays import spread_ranks
from ensemble.members.figures import draw_gallery
from ensemble.pictures import Picture, Results, require


def draw_dice(dice_N: np.ndarray, share_N: np.ndarray) -> Figure:
    """Each row's Dice against its true share of foreground, and how many rows have which."""
    figure, (cloud, counts) = new_figure(4.2, 1, 2, sharey=True, width_ratios=(3, 1))
    draw_cloud(figure, cloud, share_N, dice_N)
    draw_histogram(counts, dice_N)
    describe_panel(cloud, "Dice of each row", "true share of foreground", "Dice")
    describe_panel(counts, "How many", "rows", "")
    cloud.set_ylim(-0.03, 1.03)
    return figure


def _read_dice(results: Results) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Id, Dice and true share of foreground of each validated row of the run's own recipe."""
    table = results.oof.filter(pc.equal(results.oof["member"], "main"))
    return np.array(table["id"].to_pylist()), table["dice"].to_numpy(), table["target"].to_numpy()


def _read_examples(results: Results, number: int) -> tuple[list[np.ndarray], list[str]]:
    """Out-of-fold overlays, evenly spread from the worst Dice to the best, and a title for each."""
    folder = results.root / "overlays" / "out_of_fold"
    ids, dice_N, _ = _read_dice(results)
    is_drawn = np.array([(folder / f"{row_id}.png").is_file() for row_id in ids])
    require(ids[is_drawn], "no overlay was drawn")
    ids, dice_N = ids[is_drawn], dice_N[is_drawn]
    chosen = spread_ranks(dice_N, number)
    titles = [f"{shorten_name(str(ids[place]))}: Dice {dice_N[place]:.3f}" for place in chosen]
    return [np.asarray(Image.open(folder / f"{ids[place]}.png")) for place in chosen], titles


def _read_test_examples(results: Results, number: int) -> tuple[list[np.ndarray], list[str]]:
    """Of the test rows on which the models differ most, the overlay and then the disagreement; a title for each."""
    results.submission  # noqa: B018 says what is missing
    ids, spread_T = results.test_table["id"].to_pylist(), results.test_table["std"].to_numpy()
    pictures, titles = [], []
    for place in np.argsort(-spread_T, kind="stable")[:number].tolist():
        for folder, what in (("overlays", "ensemble"), ("disagreement", "disagreement")):
            pictures.append(np.asarray(Image.open(results.root / folder / "test" / f"{ids[place]}.png")))
            titles.append(f"{shorten_name(ids[place])}: {what}")
    return pictures, titles


PICTURES: tuple[str | Picture, ...] = (
    "members_and_combinations",
    "seeds",
    "performance_by_fold",
    Picture(
        "example_overlays",
        "Examples, from the worst to the best",
        "What the model that did not see the row says (coloured) and the truth (white lines).",
        lambda run: draw_gallery(*_read_examples(run, 8)),
    ),
    Picture(
        "dice_of_rows",
        "Dice of each row",
        "Low points at the left: small areas are missed. Rows without any foreground have 1 where nothing is said "
        "and else 0.",
        lambda run: draw_dice(*_read_dice(run)[1:]),
    ),
    Picture(
        "disagreement",
        "Where the models differ most",
        "Test rows: what the ensemble says, and the standard deviation of the models' probabilities; bright at edges "
        "is usual, bright areas are uncertain.",
        lambda run: draw_gallery(*_read_test_examples(run, 4)),
    ),
    "suspicious_rows",
    "near_pictures",
    "loss_of_all_folds",
    "score_of_all_folds",
    "timings",
)
