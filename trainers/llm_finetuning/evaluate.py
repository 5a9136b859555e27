"""Answers questions whose right answers are known with a finished run's models: those that the folds came to, the
models before them, and the soup, one model whose weights are the mean of the folds'."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.interface import DataError, TrainedModel
from trainers.predictions import Answer, AnsweredQuestion

if TYPE_CHECKING:
    from trainers.llm_finetuning.predict import Predictor
    from trainers.llm_finetuning.questions.table import Question


@dataclass(frozen=True)
class Options:
    """What is typed of an evaluation."""

    eval_sft: bool = False
    """The supervised stage's models instead of those that the run has come to."""
    no_judge: bool = False
    """Do not ask the judge of the run's config."""
    model_path: str | None = None
    """Another model in the place of the run's, asked as the run asks: a folder in Hugging Face's form, a .gguf file,
    or a tag of the hub."""
    merge: str | None = None
    """Folder to write the evaluated models to, adapters merged, in Hugging Face's form: `fold_<i>` and `soup`."""
    adapters: str | None = None
    """Folder to write their adapters to, in PEFT's form: `fold_<i>`; `model.adapter` takes such a one."""

    @property
    def model(self) -> str:
        """What the evaluated models are called; empty: as their checkpoint."""
        if self.model_path is not None:
            return Path(self.model_path).stem
        return "sft_only" if self.eval_sft else ""


def evaluate(
    read_models: Callable[[str], Sequence[TrainedModel]],
    rows: Any,
    options: Options,
    cache: Path,
    device: str,
    num_threads: int,
    *,
    is_ablation: bool = False,
) -> Iterator[tuple[str, list[AnsweredQuestion]]]:
    """The answers of each fold's model, fold after fold, then those of the soup of all.

    Args:
        read_models: the models of a checkpoint: sft, or that of the run's ensemble where the name is empty.
        rows: of `find_new_rows`.
        options: of the user.
        cache: folder of the judge's replies.
        device, num_threads: as `Predictor` has them.
        is_ablation: the models before are asked, too.

    Yields:
        `TrainedModel.name` or `soup`, or the name of a model of `--model_path`, and the answers.

    Raises:
        DataError: a question has no right answer.
        JudgeError: too many answers could not be judged.
    """
    from trainers.llm_finetuning.predict import SOUP, Predictor
    from trainers.llm_finetuning.questions.table import from_table

    questions = [one for block in rows.read(rows.batch_rows) for one in from_table(block)]
    without = [one.id for one in questions if one.gold_answer is None]
    if without:
        raise DataError(f"{rows.path}: {len(without):,} questions have no right answer, such as {without[0]!r}")
    models = list(read_models("sft" if options.eval_sft else ""))
    if options.model_path is not None:
        other = read_other(models[0], options.model_path)
        predictor = Predictor([other], rows, device, num_threads)
        with predictor.model.without_adapter():
            answered = predictor.answer(None, questions, options.model, {})
        yield options.model, _judge(predictor, other, questions, answered, options, cache)
        return
    predictor = Predictor(models, rows, device, num_threads)
    before = _ask_before(predictor, models, read_models, questions) if is_ablation else [{} for _ in models]
    for model, earlier in zip(models, before, strict=True):
        name = "sft_only" if options.eval_sft else model.description["model"]
        answered = predictor.answer(model, questions, name, earlier)
        answered = _judge(predictor, model, questions, answered, options, cache)
        if options.merge is not None:
            predictor.save_merged([model], Path(options.merge).expanduser() / model.name)
        if options.adapters is not None:
            predictor.save_adapter(model, Path(options.adapters).expanduser() / model.name)
        yield model.name, answered
    own = [model for model in models if model.is_own]
    if len(own) > 1:
        with predictor.with_soup(own):
            answered = predictor.answer(None, questions, SOUP, {})
        if options.merge is not None:
            predictor.save_merged(own, Path(options.merge).expanduser() / SOUP)
        yield SOUP, _judge(predictor, own[0], questions, answered, options, cache)


def read_other(model: TrainedModel, path: str) -> TrainedModel:
    """A model that the run did not train, with the config of one that it did: it is asked in the same way.

    Raises:
        DataError: there is none.
    """
    from trainers.llm_finetuning.config import ModelConfig
    from trainers.llm_finetuning.network.language_model import list_ends, load_base, prepare_libraries
    from trainers.llm_finetuning.questions.base_model import find_base

    prepare_libraries()
    folder = find_base(ModelConfig(path))
    base = load_base(folder, None)
    files = {one.name: one.read_bytes() for one in folder.iterdir() if one.suffix in (".json", ".jinja", ".model")}
    own = {"base": base.config.to_dict(), "end_ids": list_ends(base), "shared_tensors": {}}
    return replace(model, description={**model.description, **own}, shared=base.state_dict(), files=files)


def _ask_before(
    predictor: Predictor,
    models: Sequence[TrainedModel],
    read_models: Callable[[str], Sequence[TrainedModel]],
    questions: Sequence[Question],
) -> list[dict[str, list[Answer]]]:
    """Of each fold the answers of the base, which is one, and of its supervised stage's model."""
    base = predictor.ask_base(questions)
    names = [str(model.description["reference"]) for model in models]
    if "sft" not in models[0].description["config"]["training"]["stages"] or names[0] == "base_model":
        return [{"base_model": base} for _ in models]
    earlier = [predictor.ask(one, questions) for one in read_models("sft")]
    return [{"base_model": base, name: own} for name, own in zip(names, earlier, strict=True)]


def _judge(
    predictor: Predictor,
    model: TrainedModel,
    questions: Sequence[Question],
    answered: list[AnsweredQuestion],
    options: Options,
    cache: Path,
) -> list[AnsweredQuestion]:
    from trainers.llm_finetuning.scoring.judge import build_judge
    from trainers.llm_finetuning.stages.evaluation import judge_or_fail

    config = predictor.read_config(model)
    judge = None if options.no_judge else build_judge(config.judge, cache)
    if judge is None:
        return answered
    judged = judge_or_fail(judge, questions, [one.answer for one in answered], config.judge.most_failures)
    return [replace(one, answer=answer) for one, answer in zip(answered, judged, strict=True)]
