"""Packages that only some users need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def told_which_extra(extra: str) -> Iterator[None]:
    """Within it a package that is missing is told with the command that installs it.

    Args:
        extra: of the project, that brings the package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        text = (
            f"no package {error.name!r}: expected it on every machine; `pip install 'ray-kfold[{extra}]'` installs it"
        )
        raise ModuleNotFoundError(text, name=error.name) from None
