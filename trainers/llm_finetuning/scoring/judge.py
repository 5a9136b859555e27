"""Asks a language model behind an OpenAI-compatible endpoint what an answer is worth, from 0 to 1.

A judgement that fails is an error, never a score. A whole request has one deadline, whatever the server does; only what
may pass is asked again. Replies are kept by their content, so that a training that goes on hears the same.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  what a name's look-up loads, perhaps in a thread
import hashlib
import http.client
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trainers.llm_finetuning.config import JudgeConfig
from trainers.storage.whole_files import write_whole

INSTRUCTION = (
    "You grade one answer to a question. The right answer is given. Reply with JSON alone, "
    '{"score": X}, X from 0 (wrong) to 1 (right and well reasoned).'
)
_MAY_PASS = (408, 429)
_SCORE = re.compile(r'\{\s*"score"\s*:\s*(-?\d+(?:\.\d+)?)\s*\}')
_LONGEST_WAIT_S = 30.0
_MOST_BYTES = 2**20


class JudgeError(RuntimeError):
    """An answer could not be judged; the message says what the judge did."""


class _PassingError(Exception):
    """What may pass: asked again after `wait_s`."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


@dataclass(frozen=True)
class JudgeSettings:
    """Where the judge is and how long it is waited for.

    Attributes:
        url: up to `/v1`.
        model: its name there.
        key_variable: of the environment, that holds the key; it stands nowhere else.
        timeout_s: of a whole request, from connecting to the last byte.
        patience_s: for which an answer is asked for again.
        parallel: requests at once.
    """

    url: str
    model: str
    key_variable: str
    timeout_s: float
    patience_s: float
    parallel: int


@dataclass(frozen=True)
class Asked:
    """An answer to be judged."""

    question: str
    gold: str
    text: str


class Judge:
    """The judge.

    Args:
        settings: where it is.
        cache: folder of replies.
        touch: called while it is waited for.
    """

    def __init__(self, settings: JudgeSettings, cache: Path, touch: Callable[[], None] = lambda: None) -> None:
        self.settings, self.cache, self.touch = settings, cache, touch
        self.num_asked = 0  # requests that were sent

    def score_all(self, asked: Sequence[Asked]) -> list[float | JudgeError]:
        """The score of each answer, or why there is none, in their order."""
        with ThreadPoolExecutor(self.settings.parallel) as pool:
            futures = [pool.submit(self._try_score, one) for one in asked]
            while not all(future.done() for future in futures):
                self.touch()
                time.sleep(0.01)
        return [future.result() for future in futures]

    def require_all(self, asked: Sequence[Asked]) -> list[float]:
        """The scores; of equal answers one is asked for.

        Raises:
            JudgeError: one could not be had, within the patience.
        """
        distinct = list(dict.fromkeys(asked))
        found = dict(zip(distinct, self.score_all(distinct), strict=True))
        failed = [one for one in found.values() if isinstance(one, JudgeError)]
        if failed:
            raise JudgeError(f"{len(failed)} of {len(distinct)} answers could not be judged; the first: {failed[0]}")
        return [score for one in asked if not isinstance(score := found[one], JudgeError)]

    def _try_score(self, asked: Asked) -> float | JudgeError:
        try:
            return self.score(asked)
        except JudgeError as error:
            return error

    def score(self, asked: Asked) -> float:
        """The score of an answer.

        Raises:
            JudgeError: it could not be had.
        """
        body = self._build_request(asked)
        path = self.cache / f"{hashlib.sha256(body).hexdigest()}.json"
        try:
            return float(json.loads(path.read_bytes())["score"])
        except (OSError, ValueError, KeyError):
            pass
        score = self._ask_patiently(body)
        write_whole(path, json.dumps({"score": score}).encode())
        return score

    def _build_request(self, asked: Asked) -> bytes:
        told = f"Question:\n{asked.question}\n\nRight answer:\n{asked.gold}\n\nAnswer to grade:\n{asked.text}"
        messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": told}]
        return json.dumps({"model": self.settings.model, "messages": messages, "temperature": 0}).encode()

    def _ask_patiently(self, body: bytes) -> float:
        """Asks until there is a score, or no use in it, or the patience is over."""
        ends, wait_s = time.monotonic() + self.settings.patience_s, 0.5
        while True:
            try:
                return read_score(self._send(body))
            except _PassingError as error:
                pause_s = wait_s if error.wait_s is None else error.wait_s
                if time.monotonic() + pause_s >= ends:
                    patience = f"judge.patience_s={self.settings.patience_s:g}"
                    raise JudgeError(f"{self.settings.url}: {error}; asked for longer than {patience}") from None
            time.sleep(pause_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _send(self, body: bytes) -> bytes:
        """One request; returns the reply's body.

        Raises:
            JudgeError: the judge does not take it.
            _PassingError: it may take it later.
        """
        self.num_asked += 1
        place = urlsplit(self.settings.url)
        kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        connection = kind(place.hostname or "", place.port, timeout=self.settings.timeout_s)
        deadline = _Deadline(connection, self.settings.timeout_s)
        try:
            with deadline:
                connection.request("POST", f"{place.path.rstrip('/')}/chat/completions", body, self._list_headers())
                reply = connection.getresponse()
                content, status, after = reply.read(_MOST_BYTES), reply.status, reply.headers.get("Retry-After")
                if reply.length:
                    raise http.client.IncompleteRead(content, reply.length)
        except (OSError, http.client.HTTPException) as error:
            if deadline.is_over or isinstance(error, TimeoutError):
                raise _PassingError(f"no whole reply within judge.timeout_s={self.settings.timeout_s:g}") from None
            raise _PassingError(f"{type(error).__name__}: {error}") from None
        finally:
            connection.close()
        if deadline.is_over:
            raise _PassingError(f"no whole reply within judge.timeout_s={self.settings.timeout_s:g}")
        if status in _MAY_PASS or status >= 500:
            raise _PassingError(f"it replies {status}", _read_wait(after))
        if status != 200:
            raise JudgeError(f"{self.settings.url} replies {status}: {content[:200].decode(errors='replace')}")
        return content

    def _list_headers(self) -> dict[str, str]:
        key = os.environ.get(self.settings.key_variable, "")
        headers = {"Content-Type": "application/json", "Connection": "close"}
        return headers | ({"Authorization": f"Bearer {key}"} if key else {})


def build_judge(config: JudgeConfig, cache: Path, touch: Callable[[], None] = lambda: None) -> Judge | None:
    """The judge of a config; None: there is none.

    Args:
        config: the section.
        cache: folder in which its replies are kept, below `judge/`.
        touch: called while it is waited for.
    """
    if not config.is_used or config.url is None:
        return None
    waits = (config.key_variable, config.timeout_s, config.patience_s, config.parallel)
    return Judge(JudgeSettings(config.url, config.model, *waits), cache / "judge", touch)


class _Deadline:
    """Ends a connection at a time, in whatever call it stands: a socket's own time-out counts each read anew."""

    def __init__(self, connection: http.client.HTTPConnection, seconds: float) -> None:
        self.connection, self.is_over = connection, False
        self.timer = threading.Timer(seconds, self._end)

    def __enter__(self) -> None:
        self.timer.start()
        self.connection.connect()
        self.socket = self.connection.sock

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()

    def _end(self) -> None:
        self.is_over = True
        held: Any = getattr(self, "socket", None)
        if held is not None:
            try:
                held.shutdown(socket.SHUT_RDWR)
            except OSError:  # it is closed already
                return


def _read_wait(after: str | None) -> float | None:
    """Seconds of a Retry-After header; None: it says none."""
    try:
        return min(max(float(after or ""), 0.0), _LONGEST_WAIT_S)
    except ValueError:
        return None


def read_score(content: bytes) -> float:
    """The score of a reply.

    Raises:
        JudgeError: it has none from 0 to 1.
    """
    try:
        text = str(json.loads(content)["choices"][0]["message"]["content"])
    except (ValueError, KeyError, IndexError, TypeError):
        shown = content[:200].decode(errors="replace")
        raise JudgeError(f"the reply is no chat completion: {shown!r}") from None
    found = _SCORE.findall(text)
    if len(found) != 1 or not 0 <= float(found[0]) <= 1:
        raise JudgeError(f'the judge says {text[:200]!r}: expected {{"score": X}} with X from 0 to 1')
    return float(found[0])
