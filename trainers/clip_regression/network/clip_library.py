"""open_clip, loaded without W&B's client, which is not used here.

open_clip loads timm, and timm loads wandb where it is installed. That makes two folders in TMPDIR, which stay behind
when Ray ends a worker.
"""

from __future__ import annotations

import sys

__all__ = ["open_clip"]

_is_hidden = "wandb" not in sys.modules
if _is_hidden:
    # An import of it fails like that of a package that is not installed.
    sys.modules["wandb"] = None  # type: ignore[assignment]
try:
    import open_clip
finally:
    if _is_hidden:
        del sys.modules["wandb"]
