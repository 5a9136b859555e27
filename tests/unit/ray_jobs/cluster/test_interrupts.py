"""What is an interrupt, and how long folds may save where they are after one."""

import signal
import threading

import pytest

from ray_jobs.cluster.signals import find_save_time_s, listening, without_hangup


@pytest.mark.parametrize(("said", "expected"), [(None, 2), ("30", 25), ("120", 115), ("0", 0), ("soon", 2)])
def test_the_folds_of_a_job_save_within_the_time_after_which_ray_kills_it(said, expected):
    environment = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"} | ({} if said is None else {"RAY_JOB_STOP_WAIT_TIME_S": said})
    assert find_save_time_s(environment) == expected


def test_elsewhere_nobody_kills_so_soon():
    assert find_save_time_s({"RAY_JOB_STOP_WAIT_TIME_S": "3"}) == 25


def test_a_terminal_that_is_gone_is_an_interrupt_and_nohup_is_obeyed():
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler, is_heard in ((signal.SIG_DFL, True), (signal.SIG_IGN, False)):
            signal.signal(signal.SIGHUP, handler)
            with listening() as interrupts:
                try:
                    signal.raise_signal(signal.SIGHUP)
                except KeyboardInterrupt:
                    assert is_heard
                assert interrupts.was_heard is is_heard
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_of_a_script_hears_none_and_leaves_the_signals_as_they_are():
    before, failed = signal.getsignal(signal.SIGTERM), []

    def work():
        try:
            with listening() as interrupts, without_hangup():
                interrupts.check()
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_terminal_that_goes_is_no_second_interrupt_and_a_signal_is():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with listening() as interrupts:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)  # raises nothing
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert interrupts.was_heard
    finally:
        signal.signal(signal.SIGHUP, before)
