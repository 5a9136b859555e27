"""Answers of a model to questions, with what each is worth: by rule and, where there is one, by a judge.

Shape suffixes: B questions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from trainers.llm_finetuning.config import Config
from trainers.llm_finetuning.network.chat import Chat
from trainers.llm_finetuning.network.generation import generate
from trainers.llm_finetuning.network.language_model import LanguageModel, lay_out
from trainers.llm_finetuning.questions.table import Question
from trainers.llm_finetuning.scoring.answers import is_correct, name_answer
from trainers.llm_finetuning.scoring.judge import Asked, Judge, JudgeError
from trainers.llm_finetuning.scoring.rewards import score_format
from trainers.predictions import Answer

logger = logging.getLogger(__name__)
_LETTER = "<think></think><answer>{}</answer>"


@dataclass(frozen=True)
class Examiner:
    """Asks a model questions and marks its answers.

    Attributes:
        model: with the adapter that is to be asked, or none.
        chat: of the model.
        config: says how answers are drawn and marked.
        fold: whose model it is; samples are keyed by it.
        touch: called while it works.
    """

    model: LanguageModel
    chat: Chat
    config: Config
    fold: int
    touch: Callable[[], None]

    def answer_all(self, questions: Sequence[Question]) -> list[Answer]:
        """The likeliest answer to each question."""
        return self._mark(questions, self._generate(questions, None))

    def sample_all(self, questions: Sequence[Question]) -> list[tuple[Answer, ...]]:
        """The sampled answers to each question, `generation.samples` of each."""
        number = self.config.generation.samples
        if not number:
            return [()] * len(questions)
        repeated = [one for one in questions for _ in range(number)]
        seed = self.config.training.seed
        keys = [f"{seed}/{self.fold}/{one.id}/{sample}" for one in questions for sample in range(number)]
        marked = self._mark(repeated, self._generate(repeated, keys))
        return [tuple(marked[start : start + number]) for start in range(0, len(marked), number)]

    @torch.no_grad()
    def weigh_letters(self, questions: Sequence[Question]) -> list[dict[str, float]]:
        """Of each multiple choice the probability of each letter, as the answer without any working; else nothing."""
        self.model.eval()
        found: list[dict[str, float]] = []
        for one in questions:
            letters = [chr(ord("A") + number) for number in range(len(one.choices))]
            if not letters:
                found.append({})
                continue
            prompt = self.chat.encode_prompt(one.prompt)
            answers = [self.chat.encode_response(one.prompt, _LETTER.format(letter)) for letter in letters]
            ids_BT, mask_BT, counts_BK = lay_out([prompt] * len(letters), answers, self.chat.pad_id)
            device = next(self.model.parameters()).device
            log_probs_BK, _ = self.model(ids_BT.to(device), mask_BT.to(device), counts_BK.shape[1])
            # What all answers have in common cancels out.
            chance_B = torch.softmax((log_probs_BK.double() * counts_BK.to(device)).sum(1), 0).tolist()
            found.append(dict(zip(letters, chance_B, strict=True)))
            self.touch()
        return found

    def _generate(self, questions: Sequence[Question], keys: Sequence[str] | None) -> list[str]:
        found = generate(
            self.model,
            self.chat,
            [self.chat.encode_prompt(one.prompt) for one in questions],
            max_new_tokens=self.config.generation.max_new_tokens,
            batch_size=self.config.training.eval_batch_size,
            keys=keys,
            temperature=self.config.generation.temperature,
            touch=self.touch,
        )
        return [self.chat.decode(ids) for ids in found]

    def _mark(self, questions: Sequence[Question], texts: Iterable[str]) -> list[Answer]:
        return [mark(question, text) for question, text in zip(questions, texts, strict=True)]


def mark(question: Question, text: str) -> Answer:
    """What a text is worth as an answer to a question, by rule."""
    right = None if question.gold_answer is None else is_correct(text, question.gold)
    return Answer(text, name_answer(text, question.choices), score_format(text), right, None)


def judge_or_fail(
    judge: Judge, questions: Sequence[Question], answers: Sequence[Answer], most_failures: float
) -> list[Answer]:
    """The answers with the judge's scores; one that could not be judged has none, and is counted.

    Raises:
        JudgeError: more judgements failed than may, which is a share of them.
    """
    known = [place for place, one in enumerate(questions) if one.gold_answer is not None]
    asked = [Asked(questions[place].prompt, questions[place].gold_answer or "", answers[place].text) for place in known]
    judged, errors = list(answers), []
    for place, score in zip(known, judge.score_all(asked), strict=True):
        if isinstance(score, JudgeError):
            errors.append(score)
        else:
            judged[place] = replace(judged[place], judge_score=score)
    if errors:
        logger.warning("judge_failures: %d of %d; the first: %s", len(errors), len(asked), errors[0])
    if len(errors) > most_failures * len(asked):
        raise JudgeError(
            f"{len(errors)} of {len(asked)} answers could not be judged: expected a share of at most "
            f"judge.most_failures={most_failures:g}; the first: {errors[0]}"
        )
    return judged


def summarise(
    questions: Sequence[Question], answers: Sequence[Answer], name: str, *, by_type: bool = True
) -> dict[str, float]:
    """Accuracies of a model on questions whose right answers are known.

    Args:
        questions, answers: of them.
        name: of the model, with which the metrics' names begin.
        by_type: whether to list each type of question, too.
    """
    parts: dict[str, list[Answer]] = {}
    for question, answer in zip(questions, answers, strict=True):
        if answer.is_correct is not None:
            parts.setdefault(question.type, []).append(answer)
    found = _describe([one for part in parts.values() for one in part], name)
    if by_type and len(parts) > 1:
        for kind in sorted(parts):
            found |= _describe(parts[kind], f"{name}/{kind}") | {f"{name}/{kind}/total": len(parts[kind])}
    return found


def _describe(answers: Sequence[Answer], name: str) -> dict[str, float]:
    if not answers:
        return {}
    found = {
        f"{name}/format_accuracy": sum(one.format_score == 1 for one in answers) / len(answers),
        f"{name}/answer_accuracy": sum(bool(one.is_correct) for one in answers) / len(answers),
    }
    judged = [one.judge_score for one in answers if one.judge_score is not None]
    return found | ({f"{name}/avg_judge_score": sum(judged) / len(judged)} if judged else {})
