"""Pictures of how good maps are. Arrays in, matplotlib figures out.

Shape suffixes: N rows, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ensemble.figure_style import as_text, describe_panel, draw_cloud, draw_histogram, new_figure

_COLUMNS = 4


def draw_gallery(pictures: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """Pictures, (H, W) or (H, W, 3) uint8, beside one another, each with a title."""
    columns = min(_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, panels = new_figure(0.3 + rows * 7.5 / columns, rows, columns)
    for axes in panels:
        axes.axis("off")
    for axes, picture, title in zip(panels, pictures, titles, strict=False):
        axes.imshow(picture, cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=255)
        axes.set_title(as_text(title), fontsize="small")
    return figure


def draw_dice(dice_N: np.ndarray, share_N: np.ndarray) -> Figure:
    """Each row's Dice against its true share of foreground, and how many rows have which."""
    figure, (cloud, counts) = new_figure(4.2, 1, 2, sharey=True, width_ratios=(3, 1))
    draw_cloud(figure, cloud, share_N, dice_N)
    draw_histogram(counts, dice_N)
    describe_panel(cloud, "Dice of each row", "true share of foreground", "Dice")
    describe_panel(counts, "How many", "rows", "")
    cloud.set_ylim(-0.03, 1.03)
    return figure
