"""Pictures that only break when they are decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def break_on_decoding(folder: Path, row_id: str) -> None:
    """Replaces a row's picture by a PNG whose header and end are whole and whose data are not."""
    (folder / f"{row_id}.jpg").unlink()
    path = folder / f"{row_id}.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
