"""Starting the project's jobs as processes of their own."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def clean_environment(**values: str) -> dict[str, str]:
    """This process's environment without what would point Ray elsewhere, and with these values."""
    dropped = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "PYTHONPATH", "NETRC")
    return {
        name: value for name, value in os.environ.items() if name not in dropped and not name.startswith("WANDB_")
    } | values
