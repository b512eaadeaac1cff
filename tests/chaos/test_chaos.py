"""The short form of ``bench/chaos.py``: workers and the store are killed, credentials expire, then all is checked."""

from __future__ import annotations

import socket
import ssl

import pytest
from waiting import HANGS_AFTER_SECONDS

from bench.chaos import Plan, Report, check_history, run, without_unfinished
from bench.faulty_tls import Credentials, FaultyTls
from oq_nb.model import Progress, RetryPolicy, TaskRecord, TaskStatus, Timestamp, new_id, transitions


@pytest.mark.timeout(420)
@pytest.mark.parametrize("seed", [7])
def test_tasks_survive_killed_workers_and_a_killed_store(tmp_path, seed):
    plan = Plan(
        tasks=60,
        workers=3,
        steps=8,
        worker_kills=5,
        pauses=1,
        store_kills=1,
        swaps=1,
        tls_cuts=1,
        corruptions=2,
        every_seconds=1.5,
        seed=seed,
        minutes=5,  # half a minute where nothing else runs
    )
    report = run(tmp_path, plan)
    print("\n".join(report.lines()))
    assert report.violations == []
    assert report.statuses == {"completed": 60}
    assert report.done_to_them == {"kill": 5, "pause": 1, "store": 1, "swap": 1, "tls": 1, "corrupt": 2}
    assert report.passed["handshakes refused"] > 0
    assert report.passed["requests refused (ExpiredToken)"] > 0
    assert report.passed["answers damaged"] > 0
    assert report.changes["recovery"] > 0, "no task was interrupted: the schedule is too mild to show anything"
    assert report.changes["retry"] > 0


def test_the_proxy_says_continue_before_it_has_the_body(tmp_path):
    """botocore waits for it on a fresh TLS connection: without it, each PUT there fails after a minute, for ever."""
    credentials = Credentials(tmp_path, [("AK", "secret")])
    with FaultyTls("http://127.0.0.1:9", tmp_path, credentials) as proxy:
        host, port = proxy.endpoint.removeprefix("https://").split(":")
        context = ssl.create_default_context(cafile=str(proxy.authority))
        with socket.create_connection((host, int(port)), HANGS_AFTER_SECONDS) as plain:
            client = context.wrap_socket(plain, server_hostname=host)
            client.sendall(b"PUT /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 100 ")
            client.sendall(b"{}")
            assert client.recv(100).startswith(b"HTTP/1.1 400 ")  # nobody signed it
            client.close()


# --- the check itself has teeth


def history() -> list[TaskRecord]:
    """Return a sound history: two attempts, the first one lost."""
    task_id = new_id()
    times = (Timestamp.parse(f"2026-01-01T00:00:{second:02}Z") for second in range(60))
    at = next(times)
    made = TaskRecord(
        id=task_id,
        shard=task_id[0],
        task_type="chaos",
        input={"n": 3},
        timeout_seconds=1,
        retry_policy=RetryPolicy(),
        status=TaskStatus.PENDING,
        created_at=at,
        available_at=at,
        updated_at=at,
    )
    first = transitions.claim(made, next(times), lease_id=new_id(), worker_id="a", lease_seconds=1)
    at = next(times)
    told = transitions.report(first, at, lease_id=first.lease_id, progress=Progress(current=1, updated_at=at))
    lost = transitions.recover(told, next(times), chance=0.5)
    for _ in range(5):
        at = next(times)
    second = transitions.claim(lost, at, lease_id=new_id(), worker_id="b", lease_seconds=9)
    output = {"square": 9, "worker": "b", "attempt": 2}
    ended = transitions.complete(second, next(times), lease_id=second.lease_id, output=output)
    return [made, first, told, lost, second, ended]


def violations(versions: list[TaskRecord]) -> list[str]:
    report = Report()
    check_history(versions, report)
    return report.violations


def test_a_sound_history_passes():
    report = Report()
    check_history(history(), report)
    assert report.violations == []
    assert report.changes == {"claim": 2, "report or renewal": 1, "recovery": 1, "completion": 1}


def _stale_write(h):
    """The first owner writes after it was replaced."""
    return [*h[:5], h[2], h[5]]


def _two_completions(h):
    return [*h, h[5].evolve(updated_at=h[5].updated_at)]


def _completed_by_the_former_owner(h):
    return [*h[:5], h[5].evolve(output=h[5].output | {"worker": "a", "attempt": 1})]


def _resurrected(h):
    return [*h, h[3]]


def _claimed_while_running(h):
    return [*h[:3], *h[4:]]


def _attempt_not_counted(h):
    return [*h[:4], h[4].evolve(attempt=1), h[5].evolve(attempt=1)]


def _recovered_too_early(h):
    later = Timestamp.parse("2026-01-01T00:00:50Z")
    return [h[0], h[1], h[2].evolve(lease_expires_at=later), *h[3:]]


def _lease_id_used_again(h):
    return [*h[:4], h[4].evolve(lease_id=h[1].lease_id), h[5]]


def _progress_left_behind(h):
    return [*h[:3], h[3].evolve(progress=h[2].progress), *h[4:]]


def _input_changed(h):
    return [*h[:5], h[5].evolve(input={"n": 4})]


@pytest.mark.parametrize(
    "broken",
    [
        _stale_write,
        _two_completions,
        _completed_by_the_former_owner,
        _resurrected,
        _claimed_while_running,
        _attempt_not_counted,
        _recovered_too_early,
        _lease_id_used_again,
        _progress_left_behind,
        _input_changed,
    ],
)
def test_an_unsound_history_is_caught(broken):
    assert violations(broken(history())) != []


def _with_unfinished_claim():
    """A claim that the store kept and forgot, then the history of the one that was made instead."""
    sound = history()
    torn = sound[1].evolve(lease_id=new_id(), worker_id="z", updated_at=sound[0].updated_at)
    return sound, torn, [sound[0], torn, *sound[1:]]


def test_what_a_killed_store_kept_of_a_write_is_left_out():
    sound, torn, versions = _with_unfinished_claim()
    report = Report()
    assert without_unfinished(versions, [torn.updated_at], set(), report) == sound
    assert report.unfinished == 1
    assert violations(versions) != []


@pytest.mark.parametrize("case", ["no kill", "a kill much later", "a handler ran under it"])
def test_nothing_else_is_left_out(case):
    _, torn, versions = _with_unfinished_claim()
    later = Timestamp.parse("2026-01-01T00:00:50Z")
    kills = {"no kill": [], "a kill much later": [later]}.get(case, [torn.updated_at])
    started = {torn.lease_id} if case == "a handler ran under it" else set()
    assert without_unfinished(versions, kills, started, Report()) == versions


@pytest.mark.parametrize("broken", [_stale_write, _completed_by_the_former_owner, _resurrected, _claimed_while_running])
def test_a_kill_excuses_no_other_unsound_history(broken):
    versions = broken(history())
    kills = [record.updated_at for record in versions]
    started = {record.lease_id for record in versions}
    assert violations(without_unfinished(versions, kills, started, Report())) != []
