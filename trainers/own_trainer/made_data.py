"""Data of the family's own: lots of an auction, with their prices and what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from trainers.reading.data_folder import MADE_DATA
from trainers.storage.whole_files import write_whole

NUM_TRAIN, NUM_TEST = 300, 60


def make_data(folder: Path) -> Path:
    """Writes train.csv and test.csv below `folder/made_data`, always the same ones.

    Returns:
        The folder to use as `data.root`. If it is already there and whole, it is left as it is.
    """
    root = folder / MADE_DATA
    if (root / "README.txt").exists():
        return root
    rng, total = np.random.default_rng(20_260_301), NUM_TRAIN + NUM_TEST
    width_cm, height_cm, year = (
        rng.uniform(20, 120, total),
        rng.uniform(20, 120, total),
        rng.integers(1880, 2010, total),
    )
    school = rng.choice(["Antwerp", "Lyon", "Paris", "Vienna"], total)
    worth = np.select([school == "Paris", school == "Vienna"], [400, 150], 0)
    price = 200 + 6 * width_cm + 4 * height_cm + 3 * (1950 - year) + worth + 40 * rng.standard_normal(total)
    frame = pd.DataFrame(
        {
            "id": [f"lot{number:04d}" for number in range(total)],
            "width_cm": width_cm.round(1),
            "height_cm": height_cm.round(1),
            "year": year,
            "school": school,
            "seller": [f"seller{number:02d}" for number in rng.integers(0, 40, total)],
            "price": price.round(2),
        }
    )
    # Large and old ones tend to be paintings, small and late ones prints.
    leaning = (width_cm + height_cm - 140) / 20 + (1945 - year) / 40 + rng.logistic(size=total)
    frame["medium"] = np.select([leaning > 1.5, leaning < -1.5], ["painting", "print"], "drawing")
    write_whole(root / "train.csv", frame[:NUM_TRAIN].to_csv(index=False).encode())
    write_whole(root / "test.csv", frame[NUM_TRAIN:].drop(columns=["price", "medium"]).to_csv(index=False).encode())
    write_whole(root / "README.txt", b"Made-up lots of an auction, written by this project.\n")
    return root
