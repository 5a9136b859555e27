"""A judge that answers, is busy, hangs, drips, breaks and talks nonsense: a score is a score, all else is an error."""

from __future__ import annotations

import time

import pytest
from support.judge_server import serve_judge

from trainers.llm_finetuning.scoring.judge import Asked, Judge, JudgeError, JudgeSettings

RIGHT, WRONG = Asked("1 + 1?", "2", "right: 2"), Asked("1 + 1?", "2", "3")


@pytest.fixture(scope="module")
def server():
    with serve_judge() as server:
        yield server


def build(server, mode, folder, **settings):
    wanted = {"timeout_s": 10, "patience_s": 10, "parallel": 4} | settings
    return Judge(JudgeSettings(server.place(mode), "m", "TEST_JUDGE_KEY", **wanted), folder)


def test_it_scores_answers_with_the_key_of_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_JUDGE_KEY", "secret")
    assert build(server, "good", tmp_path).require_all([RIGHT, WRONG, RIGHT]) == [1.0, 0.25, 1.0]
    body, headers = server.requests[-1]
    assert headers["Authorization"] == "Bearer secret"
    assert (body["model"], body["temperature"]) == ("m", 0)


def test_the_same_answer_is_asked_for_once_and_never_again(server, tmp_path):
    before = server.times["good"]
    first, second = build(server, "good", tmp_path), build(server, "good", tmp_path)
    assert first.require_all([RIGHT, RIGHT]) == second.require_all([RIGHT, RIGHT]) == [1.0, 1.0]
    assert server.times["good"] == before + 1
    assert "secret" not in "".join(path.read_text() for path in tmp_path.iterdir())


@pytest.mark.parametrize(("mode", "score"), [("busy", 0.5), ("recovers", 1.0)])
def test_what_may_pass_is_asked_again(server, tmp_path, mode, score):
    assert build(server, mode, tmp_path).score(RIGHT) == score


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("broken", r"replies 500; asked for longer than judge.patience_s=0.3"),
        ("hang", "no whole reply within judge.timeout_s=0.4"),
        ("drip", "no whole reply within judge.timeout_s=0.4"),
        ("dripping_headers", "no whole reply within judge.timeout_s=0.4"),
        ("cut", "IncompleteRead"),
    ],
)
def test_what_does_not_pass_is_an_error_within_the_deadline(server, tmp_path, mode, message):
    began = time.monotonic()
    with pytest.raises(JudgeError, match=message):
        build(server, mode, tmp_path, timeout_s=0.4, patience_s=0.3).score(RIGHT)
    assert time.monotonic() - began < 2.5  # a drip takes 5 s and more
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("refused", "replies 401: who are you"),
        ("words", "rather good.*expected"),
        ("range", "expected"),
        ("twice", "expected"),
        ("garbage", "no chat completion: '<html>'"),
    ],
)
def test_what_would_not_get_better_is_asked_once(server, tmp_path, mode, message):
    with pytest.raises(JudgeError, match=message):
        build(server, mode, tmp_path).score(RIGHT)
    assert server.times[mode] == 1


def test_a_judge_that_is_not_there_is_an_error(tmp_path):
    settings = JudgeSettings("http://127.0.0.1:9/v1", "m", "TEST_JUDGE_KEY", 1, 0.1, 2)
    with pytest.raises(JudgeError, match=r"1 of 1 answers could not be judged.*Connection refused"):
        Judge(settings, tmp_path).require_all([RIGHT])


def test_while_it_is_waited_for_the_fold_is_seen_to_be_at_work(server, tmp_path):
    touched = []
    judge = build(server, "hang", tmp_path, timeout_s=0.4, patience_s=0.3)
    judge.touch = lambda: touched.append(1)
    (error,) = judge.score_all([RIGHT])
    assert isinstance(error, JudgeError)
    assert len(touched) > 5
