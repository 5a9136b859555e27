"""The sections of a config that decide how a language model is fine-tuned. Plain dataclasses: no torch, no pandas."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from trainers.families import Advice
from trainers.values import check_choice, check_number, refuse

STAGES = ("sft", "grpo")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class DataConfig:
    """Where the questions are and what their columns mean. Tables are JSONL (.jsonl) or Parquet."""

    ROWS_FROM: ClassVar = (
        "root", "train_table", "test_table", "id_column", "prompt_column", "context_column", "choices_column",
        "answer_column", "type_column", "group_column", "fold_column", "max_rows", "on_bad_row",
    )  # fmt: skip

    root: str | None = None
    """Folder with the tables, or the training table itself. Without it the project makes questions of its own."""
    train_table: str = "train.jsonl"
    """Questions with right answers: they are divided into folds. Below `root`."""
    test_table: str = "test.jsonl"
    """Questions to answer, below `root`. May be absent. With right answers in it the answers are scored."""
    sft_table: str | None = None
    """Further questions with responses, from which the supervised stage of every fold learns, too, but for those that
    a fold holds out. Below `root`."""
    id_column: str = "id"
    """Names a question; without this column its number in the table does."""
    prompt_column: str = "prompt"
    """The question."""
    context_column: str | None = None
    """What stands above the question, such as a table."""
    choices_column: str | None = None
    """A list of choices, which are shown as A, B, ... below the question."""
    response_column: str = "response"
    """What the supervised stage learns to say, whole. Without this column it is made of rationale and answer."""
    rationale_column: str = "rationale"
    """The way to the answer: `<think>rationale</think><answer>answer</answer>` is learned."""
    answer_column: str = "gold_answer"
    """The right answer. Without this column it is the one that the response gives."""
    type_column: str | None = "type"
    """The type of a question, by which accuracies are shown."""
    group_column: str | None = None
    """Questions with the same value here stay on one side of a fold (`folds.kind=grouped`)."""
    fold_column: str | None = None
    """The user's own folds, from 0; -1 marks rows that always train, -2 the blend set (`folds.kind=predefined`)."""
    system_prompt: str = ""
    """What the chat begins with; empty: nothing, or what the model's chat template says itself."""
    max_rows: int | None = None
    """Learn from the first so many questions only."""
    max_prompt_tokens: int = 1024
    """Longer prompts lose their beginning."""
    near_duplicates: float | None = 0.5
    """From this likeness on (word 5-grams in common, numbers masked) questions count as near-duplicates. They are told,
    or kept in one fold with folds.on_leak=group. None: they are not looked for."""
    on_bad_row: Literal["error", "drop"] = "error"
    """What to do with a question without a prompt or a right answer: stop, or go on without it and list it."""

    def __post_init__(self) -> None:
        check_number("data.max_rows", self.max_rows, least=1, instead="none")
        check_number("data.max_prompt_tokens", self.max_prompt_tokens, least=1, unit="tokens")
        check_number("data.near_duplicates", self.near_duplicates, above=0, most=1, unit="a share", instead="none")
        check_choice("data.on_bad_row", self.on_bad_row, ("error", "drop"))


@dataclass(frozen=True)
class ModelConfig:
    """The model to begin with."""

    path: str | None = None
    """A folder in Hugging Face's form, a .gguf file, or a tag of the hub; None: the tiny Llama that comes with the
    project."""
    adapter: str | None = None
    """Folder of a LoRA adapter (PEFT's form) to begin with, such as one that a supervised stage has left."""
    chat_template: str | None = None
    """A Jinja file, in the place of the tokenizer's own template."""
    sha256: str | None = None
    """SHA-256 of the model's files. It is found, not set."""


@dataclass(frozen=True)
class LoraConfig:
    """The adapter that learns (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

    r: int = 16
    """Rank."""
    alpha: int = 32
    """Its output is scaled by alpha / r."""
    dropout: float = 0.05
    """In the supervised stage. GRPO has none: the policy must be what has answered."""
    targets: tuple[str, ...] = TARGETS
    """Names of the layers that get an adapter."""

    def __post_init__(self) -> None:
        check_number("lora.r", self.r, least=1)
        check_number("lora.alpha", self.alpha, least=1)
        check_number("lora.dropout", self.dropout, least=0, below=1, unit="a share")
        if not self.targets:
            raise refuse("lora.targets", self.targets, "names of layers")


@dataclass(frozen=True)
class TrainingConfig:
    """What both stages have in common."""

    stages: tuple[str, ...] = STAGES
    """sft, grpo, or both in this order; without any the model is evaluated as it is."""
    seed: int = 0
    """Seed of initial adapters, data order, dropout and samples; each fold derives its own."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the base model; adapters are fp32. auto: bf16 where the GPU has it, fp16 on older GPUs, fp32 on a CPU."""
    micro_batch_size: int | None = None
    """Sequences of one forward and backward pass on each worker: lower needs less memory and changes nothing but
    rounding. None: all of the step."""
    eval_batch_size: int = 64
    """Answers that are generated together, on each worker."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""

    def __post_init__(self) -> None:
        allowed: tuple[tuple[str, ...], ...] = (("sft", "grpo"), ("sft",), ("grpo",))
        if self.stages not in allowed:
            raise refuse("training.stages", self.stages, "[sft,grpo], [sft] or [grpo]")
        check_number("training.seed", self.seed, least=0)
        check_number("training.micro_batch_size", self.micro_batch_size, least=1, instead="none")
        check_number("training.eval_batch_size", self.eval_batch_size, least=1)
        check_choice("training.precision", self.precision, ("auto", "fp32", "bf16", "fp16"))


def _check_steps(section: str, stage: SftConfig | GrpoConfig) -> None:
    check_number(f"{section}.lr", stage.lr, above=0)
    check_number(f"{section}.batch_size", stage.batch_size, least=1)
    check_number(f"{section}.weight_decay", stage.weight_decay, least=0)
    check_number(f"{section}.max_grad_norm", stage.max_grad_norm, least=0)
    check_number(f"{section}.warmup_fraction", stage.warmup_fraction, least=0, below=1, unit="a share")
    check_number(f"{section}.evaluate_every", stage.evaluate_every, least=1, instead="none")
    check_choice(f"{section}.schedule", stage.schedule, ("constant", "cosine"))


@dataclass(frozen=True)
class SftConfig:
    """The supervised stage: the mean cross entropy of the response's tokens."""

    epochs: int = 3
    """Passes over the fold's training questions."""
    steps: int | None = None
    """Optimiser steps instead of epochs."""
    batch_size: int = 16
    """Questions of one optimiser step, over all workers of the fold together."""
    lr: float = 2e-4
    """Peak learning rate."""
    schedule: Schedule = "cosine"
    """Learning rate after the warm-up."""
    warmup_fraction: float = 0.05
    """Share of the steps over which the learning rate rises linearly."""
    weight_decay: float = 0.0
    """How strongly weights are drawn to zero."""
    max_grad_norm: float = 1.0
    """Above 0: gradients are scaled down to this norm."""
    evaluate_every: int | None = None
    """Steps between two validations; None: at the end of each epoch, or of the stage where `steps` are set."""
    max_tokens: int = 2048
    """Of prompt and response together; what is longer is cut at its end."""

    def __post_init__(self) -> None:
        _check_steps("sft", self)
        check_number("sft.epochs", self.epochs, least=1)
        check_number("sft.steps", self.steps, least=1, instead="none")
        check_number("sft.max_tokens", self.max_tokens, least=2, unit="tokens")


@dataclass(frozen=True)
class GrpoConfig:
    """Group relative policy optimisation (Shao et al. 2024, https://arxiv.org/abs/2402.03300): of each question several
    answers, each worth what it exceeds their mean by."""

    steps: int = 200
    """Optimiser steps."""
    batch_size: int = 8
    """Questions of one optimiser step, over all workers of the fold together."""
    num_generations: int = 4
    """Answers to each question."""
    steps_per_generation: int = 1
    """Optimiser steps whose answers are generated at once."""
    iterations: int = 1
    """How often each answer is learned from."""
    lr: float = 5e-6
    """Peak learning rate. This is full fine-tuning's scale; adapters of small models want up to 1e-3."""
    schedule: Schedule = "constant"
    """Learning rate after the warm-up."""
    warmup_fraction: float = 0.05
    """Share of the steps over which the learning rate rises linearly."""
    weight_decay: float = 0.0
    """How strongly weights are drawn to zero."""
    max_grad_norm: float = 1.0
    """Above 0: gradients are scaled down to this norm."""
    kl_coef: float = 0.05
    """Weight of the divergence from the reference: the model that the stage begins with, which is the supervised
    stage's where there is one."""
    clip: float = 0.2
    """The ratio of new and old probability is cut to 1 - clip to 1 + clip."""
    loss: Literal["grpo", "dr_grpo", "dapo"] = "dapo"
    """grpo: mean over each answer's tokens, then over answers; dapo: mean over all tokens of the step; dr_grpo: sum
    over tokens by answers and generation.max_new_tokens, which favours no length."""
    scale_advantages: Literal["group", "batch", "none"] = "group"
    """By whose standard deviation of rewards advantages are divided."""
    mask_truncated: bool = False
    """Learn nothing from answers that were cut at generation.max_new_tokens."""
    evaluate_every: int | None = None
    """Steps between two validations; None: at the end of the stage."""

    def __post_init__(self) -> None:
        _check_steps("grpo", self)
        for name in ("steps", "steps_per_generation", "iterations"):
            check_number(f"grpo.{name}", getattr(self, name), least=1)
        check_number("grpo.num_generations", self.num_generations, least=2)
        check_number("grpo.kl_coef", self.kl_coef, least=0)
        check_number("grpo.clip", self.clip, above=0, below=1)
        check_choice("grpo.loss", self.loss, ("grpo", "dr_grpo", "dapo"))
        check_choice("grpo.scale_advantages", self.scale_advantages, ("group", "batch", "none"))


@dataclass(frozen=True)
class GenerationConfig:
    """How answers are drawn, in GRPO and where samples are evaluated."""

    temperature: float = 0.7
    """Of samples; log-probabilities of policy and reference are taken at it, too."""
    max_new_tokens: int = 512
    """Longest answer."""
    samples: int = 4
    """Sampled answers of each held-out question beside the likeliest one, for self-consistency; 0: none."""

    def __post_init__(self) -> None:
        check_number("generation.temperature", self.temperature, above=0)
        check_number("generation.max_new_tokens", self.max_new_tokens, least=1, unit="tokens")
        check_number("generation.samples", self.samples, least=0)


@dataclass(frozen=True)
class ScoringConfig:
    """What an answer is worth."""

    format_weight: float = 0.3
    """Of the form in the reward: 1 for `<think>…</think><answer>…</answer>`, 1/2 for an answer tag without the rest."""
    accuracy_weight: float = 0.7
    """Of a right answer in the reward."""
    tolerance: float = 0.05
    """Relative, of numbers in questions of `tolerant_types`; others must be equal."""
    tolerant_types: tuple[str, ...] = ("financial_calculation", "finance_calculation")
    """Types of questions whose numbers need not be exact."""

    def __post_init__(self) -> None:
        for name in ("format_weight", "accuracy_weight", "tolerance"):
            check_number(f"scoring.{name}", getattr(self, name), least=0)
        if not self.format_weight + self.accuracy_weight > 0:
            raise refuse("scoring.format_weight", self.format_weight, "a weight above 0 in one of both")


@dataclass(frozen=True)
class JudgeConfig:
    """A language model that grades answers, behind an OpenAI-compatible endpoint."""

    url: str | None = None
    """Its address up to /v1; None: there is no judge."""
    model: str = ""
    """Its name there."""
    off: bool = False
    """Do not ask it, whatever `url` says."""
    key_variable: str = "JUDGE_API_KEY"
    """Variable of the environment that holds its key, on every machine that trains."""
    timeout_s: float = 60.0
    """Of a whole request."""
    patience_s: float = 600.0
    """How long an answer is asked for again before the judgement has failed."""
    parallel: int = 8
    """Requests at once, of each worker."""
    most_failures: float = 0.05
    """Share of an evaluation's judgements that may fail; in GRPO none may."""

    @property
    def is_used(self) -> bool:
        """Whether answers are judged."""
        return self.url is not None and not self.off

    def __post_init__(self) -> None:
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise refuse("judge.url", self.url, "an address that begins with http:// or https://, up to /v1")
        if self.is_used and not self.model:
            raise refuse("judge.model", self.model, "the judge's name at judge.url")
        check_number("judge.timeout_s", self.timeout_s, above=0, unit="seconds")
        check_number("judge.patience_s", self.patience_s, least=0, unit="seconds")
        check_number("judge.parallel", self.parallel, least=1)
        check_number("judge.most_failures", self.most_failures, least=0, most=1, unit="a share")


@dataclass(frozen=True)
class Config:
    """Everything that decides what a fold of this family learns."""

    PREDICTS: ClassVar = "answers"
    PACKAGES: ClassVar = ("transformers", "peft", "tokenizers")
    BEGINS_ALIKE: ClassVar = True  # with the base: the adapters of the folds differ, and add nothing at first
    SEED: ClassVar = "training.seed"
    NOT_TRAINED_BY: ClassVar = (
        "model.path",  # its files' checksum counts
        "judge.key_variable", "judge.timeout_s", "judge.patience_s", "judge.parallel", "judge.most_failures",
        "data.near_duplicates",
    )  # fmt: skip
    ADVICE: ClassVar = Advice(
        memory="lower training.micro_batch_size or training.eval_batch_size, or set training.gradient_checkpointing",
        loss="lower sft.lr or grpo.lr",
    )

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
