"""Data that the project makes itself, so that a first run needs no download: pictures, texts and dates with a known
formula in which each modality matters.

    log1p(views) = 7 + 1.0 * warmth + 1.0 * topic + 1.0 * growth + 0.3 * noise

`warmth`, `topic` and `growth` are standardised, so each of the three explains a third of what can be explained:
`warmth` is how red rather than blue the picture is (image), `topic` the mean weight of the title's words (text), and
`growth` the logarithm of the video's age (age). The best possible MSLE is 0.3² = 0.09, a constant predictor has 3.09.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from trainers.reading.data_folder import MADE_DATA
from trainers.storage.whole_files import write_whole

NUM_TRAIN, NUM_TEST = 600, 120
PICTURE_SIZE = 64
NEWEST_DAY = pd.Timestamp("2025-06-01")
INTERCEPT, NOISE = 7.0, 0.3
TOPIC_WEIGHTS = {
    "lecture": -2.0, "minutes": -1.6, "archive": -1.2, "manual": -0.8, "notes": -0.4, "walk": 0.0,
    "recipe": 0.4, "concert": 0.8, "football": 1.2, "trailer": 1.6, "challenge": 2.0,
}  # fmt: skip
NUM_CLASS_TRAIN, NUM_CLASS_TEST, CLASS_NOISE = 480, 96, 0.1
CLASS_SHARES = {"boat": 0.4, "fish": 0.3, "truck": 0.2, "bird": 0.1}
WET_WORDS, DRY_WORDS = ("harbour", "waves", "river", "island"), ("street", "forest", "meadow", "bridge")
FILLERS = ("the", "a", "new", "my", "our", "full", "part two", "from home", "live", "again")


def make_data(folder: Path) -> Path:
    """Writes train_val.csv, test.csv and their pictures below `folder/made_data`, always the same ones.

    Returns:
        The folder to use as `data.root`. If it is already there and whole, it is left as it is.
    """
    root = folder / MADE_DATA
    if (root / "README.txt").exists():
        return root
    rng = np.random.default_rng(20_250_601)
    total = NUM_TRAIN + NUM_TEST
    warmth, picture_rgb = _draw_colours(rng, total)
    topic, titles = _draw_titles(rng, total)
    age_days = rng.integers(1, 12 * 365, total)
    growth = _standardise(np.log1p(age_days / 365.25))
    log_views = INTERCEPT + warmth + topic + growth + NOISE * rng.standard_normal(total)
    frame = pd.DataFrame(
        {
            "id": [f"video{number:05d}" for number in range(total)],
            "channel": [f"channel{number:02d}" for number in rng.integers(0, 40, total)],
            "title": titles,
            "date": (NEWEST_DAY - pd.to_timedelta(age_days, unit="D")).strftime("%Y-%m-%d"),
            "description": "made-up video, see https://example.org/" + pd.Series(range(total)).astype(str),
            "views": np.round(np.expm1(np.maximum(log_views, 0))).astype(np.int64),
        }
    )
    for name, rows in (("train_val", slice(0, NUM_TRAIN)), ("test", slice(NUM_TRAIN, total))):
        _write_pictures(root / name, frame["id"].iloc[rows], picture_rgb[rows], rng)
        table = frame.iloc[rows]
        write_whole(
            root / f"{name}.csv",
            (table if name == "train_val" else table.drop(columns="views")).to_csv(index=False).encode(),
        )
    write_whole(root / "README.txt", __doc__.encode())
    return root


def make_class_data(folder: Path) -> Path:
    """As `make_data`, with a class of four to predict: the picture's colour and the title's word each tell half of it.

    Blue or red, and a word of water or land: `boat`, `fish`, `truck`, `bird`, of uneven shares. A tenth of the labels
    is drawn anew, so that no model is right more often than in 0.93 of the rows.
    """
    root = folder / MADE_DATA
    if (root / "README.txt").exists():
        return root
    rng = np.random.default_rng(20_260_101)
    total = NUM_CLASS_TRAIN + NUM_CLASS_TEST
    number_N = rng.choice(len(CLASS_SHARES), total, p=list(CLASS_SHARES.values()))
    is_red_N, is_wet_N = number_N % 2 == 1, number_N < 2
    words = [rng.choice(WET_WORDS if is_wet else DRY_WORDS) for is_wet in is_wet_N]
    fillers = rng.choice(FILLERS, (total, 2))
    shade_N = rng.uniform(0, 0.35, total)
    share_N = np.where(is_red_N, 1 - shade_N, shade_N)
    rgb_N3 = np.stack([40 + 180 * share_N, 60 + 120 * rng.random(total), 220 - 180 * share_N], axis=1)
    label_N = np.where(rng.random(total) < CLASS_NOISE, rng.integers(0, len(CLASS_SHARES), total), number_N)
    frame = pd.DataFrame(
        {
            "id": [f"picture{number:05d}" for number in range(total)],
            "title": [f"{first} {word} {last}" for (first, last), word in zip(fillers, words, strict=True)],
            "label": np.array(list(CLASS_SHARES))[label_N],
        }
    )
    for name, rows in (("train_val", slice(0, NUM_CLASS_TRAIN)), ("test", slice(NUM_CLASS_TRAIN, total))):
        _write_pictures(root / name, frame["id"].iloc[rows], rgb_N3[rows], rng)
        table = frame.iloc[rows]
        table = table if name == "train_val" else table.drop(columns="label")
        write_whole(root / f"{name}.csv", table.to_csv(index=False).encode())
    write_whole(root / "README.txt", (make_class_data.__doc__ or "").encode())
    return root


def _standardise(values: np.ndarray) -> np.ndarray:
    z: np.ndarray = (values - values.mean()) / values.std()
    return z


def _draw_colours(rng: np.random.Generator, total: int) -> tuple[np.ndarray, np.ndarray]:
    share = rng.random(total)
    rgb = np.stack([40 + 180 * share, 60 + 120 * rng.random(total), 220 - 180 * share], axis=1)
    return _standardise(share), rgb


def _draw_titles(rng: np.random.Generator, total: int) -> tuple[np.ndarray, list[str]]:
    words, weights = list(TOPIC_WEIGHTS), np.array(list(TOPIC_WEIGHTS.values()))
    drawn = rng.integers(0, len(words), (total, 2))
    fillers = rng.integers(0, len(FILLERS), (total, 2))
    titles = [
        f"{FILLERS[f[0]]} {words[w[0]]} {FILLERS[f[1]]} {words[w[1]]}" for w, f in zip(drawn, fillers, strict=True)
    ]
    return _standardise(weights[drawn].mean(axis=1)), titles


def _write_pictures(folder: Path, ids: pd.Series, rgb: np.ndarray, rng: np.random.Generator) -> None:
    """A field of the row's colour with noise and a grey disc that means nothing."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    yy, xx = np.mgrid[:PICTURE_SIZE, :PICTURE_SIZE]
    for row_id, colour in zip(ids, rgb, strict=True):
        picture = colour + 12 * rng.standard_normal((PICTURE_SIZE, PICTURE_SIZE, 3))
        cx, cy, radius = rng.integers(8, PICTURE_SIZE - 8, 3)
        picture[(xx - cx) ** 2 + (yy - cy) ** 2 < (radius / 4) ** 2] = 128
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(folder / f"{row_id}.jpg", quality=90)
