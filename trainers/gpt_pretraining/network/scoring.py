"""The loss of each token of a document, which is scored alone: the end of a text before it, its own tokens, and the end
after it. A longer one is scored window by window, each token once.

Shape suffixes: B windows, T places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainers.gpt_pretraining.network.model import NOTHING
from trainers.learning.arithmetic import autocast

BATCHES_TOGETHER = 4  # whose windows are put in order of length
# A model in evaluation mode, or several as one: of tokens and their targets, (B, T) each, the nats, (B, T).
Scored = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Scoring:
    """How documents are scored.

    Attributes:
        window: tokens that the model sees at most.
        stride: by how many the next window is further.
        end: the token that ends a text.
        batch_size: windows of a forward pass.
        device, precision: of it.
    """

    window: int
    stride: int
    end: int
    batch_size: int
    device: str
    precision: torch.dtype

    @property
    def documents_together(self) -> int:
        """Documents whose windows are in the same batches: those of other blocks change no bit of a loss."""
        return self.batch_size * BATCHES_TOGETHER

    def score(self, model: Scored, documents: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The nats of each token of each document, with the end after it, (n + 1,) float32 each.

        Args:
            model: what is scored.
            documents: tokens of each, (n,).
        """
        ends = np.array([self.end])
        whole = [np.concatenate([ends, tokens.astype(np.int64), ends]) for tokens in documents]
        nats = [np.empty(len(tokens) - 1, np.float32) for tokens in whole]
        windows = [(n, *place) for n, tokens in enumerate(whole) for place in cut_windows(len(tokens) - 1, self)]
        windows.sort(key=lambda one: one[3] - one[1])  # of about one length together
        for start in range(0, len(windows), self.batch_size):
            portion = windows[start : start + self.batch_size]
            nats_BT = self._score_windows(model, [(whole[n], begin, first, last) for n, begin, first, last in portion])
            for (n, begin, first, last), nats_T in zip(portion, nats_BT, strict=True):
                nats[n][first:last] = nats_T[first - begin : last - begin]
        return nats

    @torch.inference_mode()
    def _score_windows(self, model: Scored, windows: Sequence[tuple[np.ndarray, int, int, int]]) -> np.ndarray:
        """(B, T) float32; windows are padded at their ends, which changes nothing before them."""
        length = max(last - begin for _, begin, _, last in windows)
        tokens_BT = torch.full((len(windows), length), self.end)
        targets_BT = torch.full((len(windows), length), NOTHING)
        for row, (tokens, begin, first, last) in enumerate(windows):
            tokens_BT[row, : last - begin] = torch.from_numpy(tokens[begin:last])
            targets_BT[row, first - begin : last - begin] = torch.from_numpy(tokens[first + 1 : last + 1])
        with autocast(self.device, self.precision):
            nats_BT: Tensor = model(tokens_BT.to(self.device), targets_BT.to(self.device))
        found: np.ndarray = nats_BT.float().cpu().numpy()
        return found


def cut_windows(num_targets: int, scoring: Scoring) -> Iterator[tuple[int, int, int]]:
    """Of a document with so many targets the windows: first input, first target that counts, end of the targets. Each
    target counts once."""
    done, begin = 0, 0
    while done < num_targets:
        last = min(begin + scoring.window, num_targets)
        yield begin, done, last
        done, begin = last, begin + scoring.stride


def score_blocks(
    scoring: Scoring, model: Scored, numbers: np.ndarray, read: Callable[[int], np.ndarray]
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Documents by their numbers, block by block, with the nats of their tokens."""
    for start in range(0, len(numbers), scoring.documents_together):
        block = numbers[start : start + scoring.documents_together]
        yield block, scoring.score(model, [read(int(number)) for number in block])
