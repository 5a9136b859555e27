"""What the driver asks of this family before it launches anything: the questions, and the model to begin with. No
torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainers.interface import (
    DataError,
    Inventory,
    RowKeys,
    Spread,
    call_here,
)
from trainers.llm_finetuning.config import Config, DataConfig
from trainers.llm_finetuning.questions.base_model import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    find_base,
    find_source,
    hash_source,
)
from trainers.llm_finetuning.questions.made_questions import make_data
from trainers.llm_finetuning.questions.table import Question, normalise_prompt, place_table, read_questions, to_parquet
from trainers.reading.data_folder import prepare_folder
from trainers.reading.near_texts import find_near_texts
from trainers.storage.whole_files import write_whole


@dataclass(frozen=True)
class Tables:
    """The questions of each table by its name (train, test, sft), and the files beside them."""

    questions: dict[str, tuple[Question, ...]]
    files: dict[str, bytes]


def take_inventory(
    config: Config, folder: Path, cache: Path | None = None, spread: Spread = call_here
) -> tuple[Config, Inventory]:
    """Reads and checks all questions, and finds the model.

    Args:
        config: as the user gave it.
        folder: where to put made-up questions if `data.root` is not given.
        cache, spread: not used.

    Returns:
        The config with absolute paths and the model's checksum, and the inventory.

    Raises:
        DataError: with what is wrong with the tables, or with the model.
    """
    data = _resolve(config.data, folder)
    model = replace(config.model, sha256=hash_source(find_source(config.model)))
    config = replace(config, data=data, model=model)
    train = read_questions(place_table(data, data.train_table), config, needs=("gold_answer",))
    questions = {"train": train.questions[: data.max_rows]}
    bad_rows = train.bad_rows
    for name, table, needs in (("test", data.test_table, ()), ("sft", data.sft_table, ("response",))):
        if table and (name == "sft" or place_table(data, table).exists()):
            read = read_questions(place_table(data, table), config, needs=needs)
            questions[name], bad_rows = read.questions, bad_rows + read.bad_rows
    test = questions.get("test", ())
    _check_test(data, test)
    tables = Tables(questions, _read_files(config))
    return config, _describe(config, tables, bad_rows)


def _describe(config: Config, tables: Tables, bad_rows: Sequence[Mapping[str, str]]) -> Inventory:
    train, test = tables.questions["train"], tables.questions.get("test", ())
    has_groups = config.data.group_column is not None
    return Inventory(
        ids=_array([one.id for one in train]),
        target=_array([one.gold_answer for one in train]),
        target_name=config.data.answer_column,
        num_test=len(test),
        fingerprint=_hash(tables),
        groups=_array([one.group or one.id for one in train]) if has_groups else None,
        predefined_fold=None if train[0].fold is None else np.array([one.fold for one in train]),
        bad_rows=tuple(bad_rows),
        test_ids=_array([one.id for one in test]) if test else None,
        row_keys=_collect_keys(train, test, config.data.near_duplicates),
        tables=tables,
        notes=_note(config, tables),
        strata=_array([one.type for one in train]),
    )


def _array(values: Sequence[str | None]) -> np.ndarray:
    return np.array(values, dtype=str)


def _resolve(data: DataConfig, folder: Path) -> DataConfig:
    """The section with the whole path of the folder, and the training table's name, where `root` is this table."""
    path = Path(os.path.expanduser(data.root)).absolute() if data.root else make_data(folder)
    if path.is_file():
        return replace(data, root=str(path.parent), train_table=path.name)
    if not path.is_dir():
        raise DataError(f"data.root={path}: no such file or folder")
    return replace(data, root=str(path))


def _check_test(data: DataConfig, test: Sequence[Question]) -> None:
    """Raises DataError where some test questions have a right answer and others have none."""
    without = [one.id for one in test if one.gold_answer is None]
    if without and len(without) < len(test):
        raise DataError(
            f"{place_table(data, data.test_table)}: {len(without):,} of {len(test):,} questions have no right answer, "
            f"such as {without[0]!r}: expected one of each ({data.answer_column}), or of none"
        )


def _collect_keys(train: Sequence[Question], test: Sequence[Question], least: float | None) -> dict[str, RowKeys]:
    """Which questions are the same but for blanks and case, which are nearly the same, and which share a group."""
    asked, tested = [one.prompt for one in train], [one.prompt for one in test]
    keys = {"question": _build_keys(asked, tested)}
    if least is not None:
        near = find_near_texts([*asked, *tested], least=least, masks_numbers=True)
        keys["near_question"] = near.to_row_keys([*asked, *tested], len(asked))
    if any(one.group for one in train):
        keys["group"] = _build_keys([one.group or "" for one in train], [one.group or "" for one in test])
    return keys


def _build_keys(train: Sequence[str], test: Sequence[str]) -> RowKeys:
    shown: dict[int, str] = {}

    def find_key(text: str) -> int:
        plain = normalise_prompt(text)
        if not plain:
            return 0
        key = int.from_bytes(hashlib.blake2b(plain.encode(), digest_size=8).digest(), "big") | 1
        shown.setdefault(key, text[:60])
        return key

    found = [np.array([find_key(text) for text in texts], np.uint64) for texts in (train, test)]
    return RowKeys(found[0], found[1], shown)


def _note(config: Config, tables: Tables) -> tuple[str, ...]:
    train = tables.questions["train"]
    notes = []
    without = sum(one.response is None for one in train)
    if without and "sft" in config.training.stages:
        notes.append(f"{without:,} of {len(train):,} questions have no response: the supervised stage leaves them out")
        if without == len(train) and not tables.questions.get("sft"):
            raise DataError(
                f"no question has a response ({config.data.response_column} or {config.data.rationale_column}), from "
                "which the supervised stage learns: add a column, name it, give data.sft_table, or set "
                "training.stages=[grpo]"
            )
    test = tables.questions.get("test", ())
    if test and test[0].gold_answer is None:
        notes.append("the test questions have no right answers: theirs are submitted, and not scored")
    return tuple(notes)


def _read_files(config: Config) -> dict[str, bytes]:
    """The chat template and the adapter that the model begins with."""
    files: dict[str, bytes] = {}
    if config.model.chat_template:
        files["chat_template.jinja"] = _read(config.model.chat_template, "model.chat_template")
    if config.model.adapter:
        folder = Path(os.path.expanduser(config.model.adapter))
        needed = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
        if missing := [name for name in needed if not (folder / name).is_file()]:
            raise DataError(
                f"model.adapter={config.model.adapter}: no {' and no '.join(missing)} there: expected a folder in "
                "PEFT's form, such as `evaluate.py RUN --adapters FOLDER` writes for each fold of a run"
            )
        for name in needed:
            files[f"adapter/{name}"] = _read(os.path.join(config.model.adapter, name), "model.adapter")
    return files


def _read(place: str, field: str) -> bytes:
    try:
        return Path(os.path.expanduser(place)).read_bytes()
    except OSError as error:
        raise DataError(f"{field}: {error}") from None


def _hash(tables: Tables) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(_list_contents(tables).items()):
        digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def _list_contents(tables: Tables) -> dict[str, bytes]:
    return {f"{name}.parquet": to_parquet(rows) for name, rows in tables.questions.items()} | tables.files


def write_inputs(config: Config, inventory: Inventory, folder: Path) -> None:
    """Writes the questions, the adapter and the chat template for the folds."""
    for name, content in _list_contents(inventory.tables).items():
        write_whole(folder / name, content)


def describe_inputs(config: Config) -> object:
    """What of a config decides what is read and left for the folds."""
    return config.data, config.model, config.scoring, "sft" in config.training.stages


def prepare_node(config: Config) -> None:
    """Fetches the model, and converts a GGUF file. Looks whether this machine sees the questions' folder.

    Raises:
        DataError: the model cannot be had here.
    """
    if config.data.root is not None:
        prepare_folder(config.data.root, make_data)
    find_base(config.model)
