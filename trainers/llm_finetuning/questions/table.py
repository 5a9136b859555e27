"""Reads the user's tables of questions, JSONL or Parquet, checks each row, and writes and reads those that folds learn
from. No torch."""

from __future__ import annotations

import io
import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainers.interface import FORMULA, DataError
from trainers.llm_finetuning.config import Config, DataConfig
from trainers.llm_finetuning.scoring.answers import Gold, extract_answer, find_kind
from trainers.values import describe_missing

_SHOWN = 3
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "prompt", "response", "gold_answer", "type", "group")),
        ("choices", pa.list_(pa.string())),
        ("tolerance", pa.float64()),
        ("fold", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        id: its name.
        prompt: as the model is asked, without the chat's marks.
        type: by which accuracies are shown.
        response: what the supervised stage learns to say; None: nothing.
        gold_answer: the right answer; None: nobody knows it.
        group: what it stays together with; None: nothing.
        choices: of a multiple choice.
        tolerance: of a number, relative.
        fold: the user's own; None: there is none.
    """

    id: str
    prompt: str
    type: str
    response: str | None = None
    gold_answer: str | None = None
    group: str | None = None
    choices: tuple[str, ...] = ()
    tolerance: float = 0.0
    fold: int | None = None

    @property
    def gold(self) -> Gold:
        """The right answer and how answers are compared with it."""
        assert self.gold_answer is not None, "asked only of questions whose answer is known"
        return Gold(self.gold_answer, find_kind(self.gold_answer, self.choices), self.tolerance, self.choices)


@dataclass(frozen=True)
class ReadTable:
    """Questions of a table, and its rows that cannot be used: table, id, problem, done."""

    questions: tuple[Question, ...]
    bad_rows: tuple[Mapping[str, str], ...]


def place_table(data: DataConfig, table: str) -> Path:
    """Where a table of `data.root` is, in either form."""
    assert data.root is not None, "resolved"
    path = Path(data.root, table)
    other = path.with_suffix(".parquet" if path.suffix == ".jsonl" else ".jsonl")
    return other if other.exists() and not path.exists() else path


def read_questions(path: Path, config: Config, *, needs: Sequence[str]) -> ReadTable:
    """The questions of a table.

    Args:
        path: .jsonl or .parquet.
        config: says what its columns mean.
        needs: what each row must have: `gold_answer`, `response`, or nothing of both.

    Raises:
        DataError: the table, or a row of it, cannot be used.
    """
    rows, data = _read_rows(path), config.data
    if not rows:
        raise DataError(f"{path}: no rows: expected questions")
    _check_columns(path, rows, data)
    questions, problems = [], []
    for number, row in enumerate(rows):
        question = _build(row, number, config, path)
        problem = _find_problem(question, needs)
        if problem:
            problems.append({"table": path.name, "id": question.id, "problem": problem, "done": "dropped"})
        else:
            questions.append(question)
    if problems and data.on_bad_row == "error":
        shown = "; ".join(f"{one['id']}: {one['problem']}" for one in problems[:_SHOWN])
        raise DataError(
            f"{path}: {len(problems):,} of {len(rows):,} questions cannot be used: {shown}; correct them, or set "
            "data.on_bad_row=drop"
        )
    if not questions:
        raise DataError(f"{path}: none of its {len(rows):,} questions can be used: {problems[0]['problem']}")
    _check_ids(path, questions)
    return ReadTable(tuple(questions), tuple(problems))


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                rows: list[dict[str, Any]] = file.read().to_pylist()
                return rows
        return [_parse(path, number, line) for number, line in enumerate(_read_lines(path), start=1) if line.strip()]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def _read_lines(path: Path) -> list[str]:
    if path.suffix not in (".jsonl", ".json"):
        raise DataError(f"{path}: expected a .jsonl or .parquet table")
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no UTF-8 text (byte {error.start:,})") from None


def _parse(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: is no JSON ({error})") from None
    if not isinstance(row, dict):
        raise DataError(f'{path}, line {number}: is {type(row).__name__}: expected an object, {{"id": ...}}')
    return row


def _check_columns(path: Path, rows: Sequence[Mapping[str, Any]], data: DataConfig) -> None:
    """Raises DataError where a column that is named has no row."""
    known = list(dict.fromkeys(name for row in rows for name in row))
    defaults = DataConfig()
    wanted = {"prompt_column": data.prompt_column}
    for name in ("context_column", "choices_column", "type_column", "group_column", "fold_column"):
        value = getattr(data, name)
        if value and value != getattr(defaults, name):
            wanted[name] = value
    missing = [(value, f"data.{name}") for name, value in wanted.items() if value not in known]
    if missing:
        raise DataError(f"{path}: {describe_missing(missing, known)}")


def _build(row: Mapping[str, Any], number: int, config: Config, path: Path) -> Question:
    data, scoring = config.data, config.scoring
    choices = _list_choices(row, data, path)
    kind = _text(row, data.type_column) or "question"
    response, gold = _text(row, data.response_column), _text(row, data.answer_column)
    rationale = _text(row, data.rationale_column)
    if gold is None and response is not None:
        gold = extract_answer(response) or None
    if response is None and gold is not None and rationale is not None:
        response = f"<think>{rationale}</think><answer>{gold}</answer>"
    row_id = row.get(data.id_column)
    return Question(
        id=str(number) if row_id is None else str(row_id),
        prompt=_join_prompt(_text(row, data.context_column), _text(row, data.prompt_column), choices),
        type=kind,
        response=response,
        gold_answer=gold,
        group=_text(row, data.group_column),
        choices=choices,
        tolerance=scoring.tolerance if kind in scoring.tolerant_types else 0.0,
        fold=_read_fold(row, data, path),
    )


def _text(row: Mapping[str, Any], column: str | None) -> str | None:
    value = row.get(column) if column else None
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _list_choices(row: Mapping[str, Any], data: DataConfig, path: Path) -> tuple[str, ...]:
    value = row.get(data.choices_column) if data.choices_column else None
    if value is None:
        return ()
    if not isinstance(value, list):
        raise DataError(f"{path}: {data.choices_column}={value!r:.80}: expected a list of choices in each row")
    return tuple(map(str, value))


def _read_fold(row: Mapping[str, Any], data: DataConfig, path: Path) -> int | None:
    if data.fold_column is None:
        return None
    value = row.get(data.fold_column)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{path}: {data.fold_column}={value!r}: expected a whole number in each row, from -2")
    return value


def _join_prompt(context: str | None, prompt: str | None, choices: Sequence[str]) -> str:
    lines = [context] if context else []
    lines.append(prompt or "")
    lines += [f"{chr(ord('A') + place)}. {choice}" for place, choice in enumerate(choices)]
    return "\n".join(lines) if len(lines) > 1 else lines[0]


def _find_problem(question: Question, needs: Sequence[str]) -> str:
    if not question.prompt.strip():
        return "no prompt"
    if FORMULA.search(question.id):
        return "its id would be run as a formula by spreadsheets"
    if "gold_answer" in needs and not (question.gold_answer or "").strip():
        return "no right answer"
    if "response" in needs and not (question.response or "").strip():
        return "no response"
    if question.choices and question.gold_answer is not None and question.gold.kind == "choice":
        last = chr(ord("A") + len(question.choices) - 1)
        if not "A" <= question.gold_answer.strip().upper() <= last:
            return f"right answer {question.gold_answer!r}: expected a letter from A to {last}"
    return ""


def _check_ids(path: Path, questions: Sequence[Question]) -> None:
    times = Counter(one.id for one in questions)
    twice = [row_id for row_id, number in times.items() if number > 1]
    if twice:
        raise DataError(
            f"{path}: id {twice[0]!r} stands there more than once ({len(twice):,} such rows): expected each once"
        )


def normalise_prompt(prompt: str) -> str:
    """A prompt without what does not matter: case, the number of blanks, and Unicode's compatibility forms."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def to_parquet(questions: Sequence[Question]) -> bytes:
    """Questions as a Parquet file."""
    buffer = io.BytesIO()
    rows = [{name: getattr(one, name) for name in _SCHEMA.names} for one in questions]
    rows = [row | {"choices": list(row["choices"])} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), buffer)
    return buffer.getvalue()


def from_table(table: pa.Table) -> list[Question]:
    """Questions of a table of `to_parquet`, or of a part of it."""
    return [Question(**row | {"choices": tuple(row["choices"])}) for row in table.to_pylist()]


def read_prepared(path: Path) -> list[Question]:
    """Questions of a file of `to_parquet`."""
    with pq.ParquetFile(path) as file:
        return from_table(file.read())
