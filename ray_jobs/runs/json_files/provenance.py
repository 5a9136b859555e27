"""`provenance.json`: where a run comes from. Written once, before the first fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray_jobs.config.json_fields import IF_ANY
from ray_jobs.runs.files import find_record, read_record, write_record
from ray_jobs.runs.folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a run, a member or a tuning began with. Of a tuning nothing is known of single folds or rows.

    Attributes:
        command: that began it.
        started: when.
        target: the target's name; empty: rows have none.
        data_fingerprint, plan_fingerprint: of what was read, and of how rows were divided.
        constant_predictions: for each fold what a model has to beat, as the kind has it; empty: it finds it otherwise.
        num_train, num_test: rows.
        leaks: by what is shared the number of rows of each table (see `count_leaks`).
        notes: sentences about the data.
        versions: of packages.
    """

    command: str = ""
    started: str = ""
    target: str | None = field(default=None, metadata=IF_ANY)
    data_fingerprint: str = ""
    plan_fingerprint: str = ""
    constant_predictions: tuple[Any, ...] | None = field(default=None, metadata=IF_ANY)
    num_train: int | None = field(default=None, metadata=IF_ANY)
    num_test: int | None = field(default=None, metadata=IF_ANY)
    leaks: Mapping[str, Mapping[str, int]] | None = field(default=None, metadata=IF_ANY)
    notes: tuple[str, ...] | None = field(default=None, metadata=IF_ANY)
    versions: Mapping[str, str] = field(default_factory=dict)


def write_provenance(folder: RunFolder, provenance: Provenance) -> None:
    """Writes `provenance.json`."""
    write_record(folder.provenance, provenance, checksum=True)


def read_provenance(folder: RunFolder) -> Provenance:
    """Reads `provenance.json`; errors as in `read_record`."""
    return read_record(folder.provenance, Provenance)


def find_provenance(folder: RunFolder) -> Provenance:
    """As `read_provenance`; of a missing or damaged file nothing is known."""
    return find_record(folder.provenance, Provenance) or Provenance()
