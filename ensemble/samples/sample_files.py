"""Files of samples: pictures that each fold's model has made of the same noise, each with its nearest rows.

| column     | meaning |
|---|---|
| id, member, repeat, fold, checkpoint, in_sample | as in `ensemble.predictions`; samples are numbered |
| label      | what the picture is to show; empty: anything |
| picture    | PNG |
| training_id, training_distance, training_picture | the nearest of some pictures that trained the model |
| held_out_id, held_out_distance, held_out_picture | the nearest of as many that did not |

What was measured of all samples of the fold stands in the schema's metadata as `facts` (JSON).

Shape suffixes: N samples, H height, W width.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ensemble.predictions import PredictionError, build_row_columns, read_table

Image.preinit()  # else Pillow imports its modules when a thread first writes a picture
SIDES = ("training", "held_out")
_FACTS = b"facts"


@dataclass(frozen=True)
class FoldSamples:
    """What a fold's model has made.

    Attributes:
        ids, labels: (N,) str.
        pictures: (N, H, W, 3) uint8.
        distance, near: of each side root mean square differences (N,) and pictures (N, H, W, 3).
        facts: what was measured of all.
    """

    ids: list[str]
    labels: list[str]
    pictures: np.ndarray
    distance: Mapping[str, np.ndarray]
    near: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]


def build_sample_table(samples: Any, *, fold: int, checkpoint: str, member: str = "main") -> pa.Table:
    """A table of samples, `trainers.interface.MadeSamples`."""
    columns: dict[str, Any] = build_row_columns(
        samples.ids, fold=fold, checkpoint=checkpoint, in_sample=False, member=member, repeat=0
    )
    columns |= {"label": pa.array(samples.labels.tolist(), pa.string()), "picture": _encode(samples.pictures)}
    for side, (ids, distance_N, pictures) in samples.nearest.items():
        columns |= {f"{side}_id": pa.array(ids.tolist(), pa.string()), f"{side}_distance": pa.array(distance_N)}
        columns[f"{side}_picture"] = _encode(pictures)
    return pa.table(columns, metadata={_FACTS: json.dumps(samples.facts).encode()})


def read_samples(path: Path) -> FoldSamples | None:
    """The samples of a fold; None: it has made none.

    Raises:
        PredictionError: the file is damaged, or no such file.
    """
    if not path.exists():
        return None
    table = read_table(path)
    if missing := [
        name for name in ("label", "picture", *(f"{s}_picture" for s in SIDES)) if name not in table.column_names
    ]:
        raise PredictionError(f"{path}: no column {', '.join(map(repr, missing))}: expected a file of samples")
    return FoldSamples(
        table["id"].to_pylist(),
        table["label"].to_pylist(),
        _decode(table["picture"]),
        {side: table[f"{side}_distance"].to_numpy() for side in SIDES},
        {side: _decode(table[f"{side}_picture"]) for side in SIDES},
        json.loads((table.schema.metadata or {}).get(_FACTS, b"{}")),
    )


def to_png(picture_HW3: np.ndarray) -> bytes:
    """A picture as a PNG file."""
    content = io.BytesIO()
    Image.fromarray(picture_HW3).save(content, "PNG")
    return content.getvalue()


def _encode(pictures_N3HW: np.ndarray) -> pa.Array:
    return pa.array([to_png(np.ascontiguousarray(one.transpose(1, 2, 0))) for one in pictures_N3HW], pa.binary())


def _decode(column: pa.ChunkedArray) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(content))) for content in column.to_pylist()])
