"""The language model: a frozen base and a LoRA adapter that learns.

Shape suffixes: B sequences, T tokens of a sequence, K tokens at its end that are looked at.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLora
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from torch.nn import functional
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from trainers.interface import DataError
from trainers.learning.model import Model
from trainers.llm_finetuning.config import LoraConfig


class LanguageModel(Model):
    """A base with an adapter.

    Args:
        base: of transformers; its weights stay as they are.
        lora: the adapter's shape; its first weights are drawn from torch's generator.
    """

    def __init__(self, base: Any, lora: LoraConfig) -> None:
        super().__init__()
        modules = {name.rpartition(".")[2] for name, _ in base.named_modules()}
        if missing := [name for name in lora.targets if name not in modules]:
            raise DataError(
                f"lora.targets={list(lora.targets)}: the model has no layer {missing[0]!r}: expected some of "
                f"{', '.join(sorted(filter(None, modules)))}"
            )
        shape = PeftLora(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets))
        with warnings.catch_warnings():
            # Between versions of PEFT and transformers, on nothing that is asked for here.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            self.peft: PeftModel = get_peft_model(base, shape)
        self.ends = list_ends(base)

    def forward(
        self, ids_BT: Tensor, mask_BT: Tensor, num_kept: int, temperature: float = 1.0, measures_entropy: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probability of each of the last tokens behind those before it, (B, K), and, if asked for, the entropy of
        the distribution that it was one of, (B, K) without gradient.

        Args:
            ids_BT: padded at the left.
            mask_BT: 1 where there is a token.
            num_kept: K.
            temperature: by which logits are divided.
            measures_entropy: whether to give the entropies.
        """
        positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
        output = self.peft(
            input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions_BT, logits_to_keep=num_kept + 1,
            use_cache=False,
        )  # fmt: skip
        logits_BKV = output.logits[:, :-1].float() / temperature
        tokens_b = ids_BT[:, -num_kept:].flatten()
        log_probs_b = -functional.cross_entropy(logits_BKV.flatten(0, 1), tokens_b, reduction="none")
        return log_probs_b.view(len(ids_BT), num_kept), _measure_entropy(logits_BKV) if measures_entropy else None

    def adapter_state(self) -> dict[str, Tensor]:
        """The adapter's weights, by PEFT's names."""
        # "auto" asks the hub whether embeddings have changed; no adapter here has any.
        state = get_peft_model_state_dict(self.peft, save_embedding_layers=False)
        return {name: value.detach() for name, value in state.items()}

    def load_adapter(self, state: Mapping[str, Tensor]) -> None:
        """Takes up what `adapter_state` gave.

        Raises:
            DataError: it is of another model or another shape.
        """
        own = self.adapter_state()
        shapes, wanted = ({name: value.shape for name, value in one.items()} for one in (state, own))
        if shapes != wanted:
            raise DataError(
                f"an adapter of {len(state)} tensors does not fit the model's {len(own)}: expected one of the same "
                "base and the same lora.r and lora.targets"
            )
        set_peft_model_state_dict(self.peft, dict(state))

    @contextmanager
    def with_adapter(self, state: Mapping[str, Tensor]) -> Iterator[None]:
        """Within it the adapter has these weights."""
        kept = {name: value.clone() for name, value in self.adapter_state().items()}
        self.load_adapter(state)
        try:
            yield
        finally:
            self.load_adapter(kept)

    def describe_base(self) -> dict[str, Any]:
        """The config of the base, from which `build_base` builds it."""
        config: Any = self.peft.get_base_model().config
        described: dict[str, Any] = config.to_dict()
        return described

    def without_adapter(self) -> AbstractContextManager[Any]:
        """Within it the model is the base."""
        return self.peft.disable_adapter()

    @contextmanager
    def with_mean_of(self, states: Sequence[Mapping[str, Tensor]]) -> Iterator[None]:
        """Within it the base's weights are the mean of what they are merged with each of these adapters, and there is
        no adapter."""
        changed = [(name, one) for name, one in self.peft.named_modules() if hasattr(one, "lora_A")]
        kept: list[tuple[Tensor, Tensor]] = []
        for name, layer in changed:
            own: Any = layer
            weight, added = own.base_layer.weight, torch.zeros_like(own.base_layer.weight, dtype=torch.float32)
            for state in states:
                first, second = state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"]
                added += own.scaling["default"] * (second.float() @ first.float()) / len(states)
            kept.append((weight, weight.detach().clone()))
            weight.data.add_(added.to(weight.dtype))
        try:
            with self.without_adapter():
                yield
        finally:
            for weight, before in kept:
                weight.data.copy_(before)

    def save_base(self, folder: Path) -> None:
        """Writes the base in Hugging Face's form, with the weights that it has now: within `with_mean_of` the merged
        ones."""
        base: Any = self.peft.get_base_model()
        base.save_pretrained(folder, state_dict=self.base_state())

    def base_state(self) -> dict[str, Tensor]:
        """The base's weights by its own names, without the adapter's."""
        state = self.peft.get_base_model().state_dict()
        return {name.replace(".base_layer", ""): value for name, value in state.items() if "lora_" not in name}

    def stop_dropout(self) -> None:
        """Adapters have no dropout from here on."""
        for module in self.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0

    def count_parameters(self) -> dict[str, int]:
        """Of base and adapter."""
        total = sum(one.numel() for one in self.parameters())
        trained = sum(one.numel() for one in self.parameters() if one.requires_grad)
        return {"total_params": total, "trainable_params": trained, "frozen_params": total - trained}


@torch.no_grad()
def _measure_entropy(logits_BKV: Tensor) -> Tensor:
    spread_BKV = torch.log_softmax(logits_BKV.detach(), -1)
    return -(spread_BKV.exp() * spread_BKV).sum(-1)


def list_ends(base: Any) -> tuple[int, ...]:
    """Tokens that end an answer, by the model's generation config."""
    ends = base.generation_config.eos_token_id
    if ends is None:
        ends = base.config.eos_token_id
    return () if ends is None else tuple(ends) if isinstance(ends, Sequence) else (ends,)


def prepare_libraries() -> None:
    """Keeps transformers from drawing progress bars into logs, and tokenizers from warning where a process divides."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    disable_progress_bar()  # type: ignore[no-untyped-call]


def load_base(folder: Path, precision: torch.dtype | None) -> Any:
    """The model of a folder, frozen; without a precision in that of its files.

    Raises:
        DataError: the folder does not hold one.
    """
    try:
        base = AutoModelForCausalLM.from_pretrained(folder, dtype="auto" if precision is None else precision)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"model.path={folder}: is no language model ({type(error).__name__}: {error!s:.300})") from None
    return base.requires_grad_(False)


def build_base(config: Mapping[str, Any], tensors: Mapping[str, Tensor], precision: torch.dtype) -> Any:
    """The model of a config and weights that were saved."""
    settings = AutoConfig.for_model(**config)
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)]
    base = kind.from_pretrained(None, config=settings, state_dict=dict(tensors), dtype=precision)
    return base.requires_grad_(False)


def lay_out(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], pad_id: int, width: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts and answers as one block: answers begin in one column, prompts end before it.

    Args:
        prompts: tokens of each.
        answers: likewise.
        pad_id: fills up, and is masked.
        width: of the prompts; None: of the longest.

    Returns:
        ids (B, T), the mask of tokens (B, T), and the mask of the answers' tokens (B, K).
    """
    before = max(map(len, prompts)) if width is None else width
    after = max(map(len, answers))
    ids_BT = torch.full((len(prompts), before + after), pad_id, dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids_BT[row, before - len(prompt) : before] = torch.tensor(prompt, dtype=torch.long)
        ids_BT[row, before : before + len(answer)] = torch.tensor(answer, dtype=torch.long)
        mask_BT[row, before - len(prompt) : before + len(answer)] = 1
    return ids_BT, mask_BT, mask_BT[:, before:].clone()
