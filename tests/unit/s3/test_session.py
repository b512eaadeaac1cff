"""Clients of one process share a boto3 session as long as a session that is made now would be the same."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import boto3
import pytest

from oq_nb.s3 import S3Store


@pytest.fixture
def made(monkeypatch, tmp_path):
    """The boto3 sessions that were made, in an environment of its own."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, file in (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config")):
        monkeypatch.setenv(name, str(tmp_path / file))
    sessions: list[weakref.ref] = []
    plain = boto3.session.Session

    def session(*arguments, **options):
        one = plain(*arguments, **options)
        sessions.append(weakref.ref(one))
        return one

    monkeypatch.setattr(boto3.session, "Session", session)
    gc.collect()
    return sessions


def store(**options):
    return S3Store("bucket", **{"endpoint": "http://127.0.0.1:9", "region": "us-east-1"} | options)


def identity(one):
    return one._client.identity()[0]


def test_stores_of_one_place_share_a_session_and_have_clients_of_their_own(made, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    first, second = store(prefix="a/"), store(prefix="b/")
    assert len(made) == 1
    assert first.client is not second.client
    assert first._client._http is not second._client._http  # closing one closes no connection of the other's
    first.client.meta.events.register("before-send.s3", lambda **_: None)
    assert first._client._has_handlers() and not second._client._has_handlers()


def test_other_credentials_are_found(made, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    first = store()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "two")
    second = store()
    assert (identity(first), identity(second), len(made)) == ("one", "two", 2)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for number, key in enumerate(("three", "four!"), start=3):
        (tmp_path / "credentials").write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key=s\n")
        third = store()
        assert (identity(third), len(made)) == (key, number)
    assert identity(store()) == "four!"


def test_given_credentials_are_each_stores_own(made):
    first, second = (store(access_key=name, secret_key="secret") for name in ("one", "two"))
    assert (identity(first), identity(second), len(made)) == ("one", "two", 1)


def test_a_session_of_the_users_is_used_as_it_is(made):
    mine = boto3.session.Session(aws_access_key_id="mine", aws_secret_access_key="s")
    assert identity(store(client_options={"session": mine})) == "mine"
    store(access_key="a", secret_key="b")
    assert len(made) == 2


def test_new_credentials_are_looked_for_past_the_shared_session(made, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    first = store()
    fresh = first._open(clock=first.clock, fresh=True)
    assert len(made) == 2
    assert fresh.identity()[0] == "one"
    store()
    assert len(made) == 2  # the newest is shared from then on


def test_a_session_goes_with_its_last_client(made):
    first, second = store(), store()
    first.close()
    del first
    gc.collect()
    assert made[0]() is not None
    second.close()
    del second
    gc.collect()
    assert made[0]() is None


def test_stores_are_opened_by_several_threads_at_once(made):
    stores = []
    threads = [threading.Thread(target=lambda: stores.append(store(access_key="a", secret_key="b"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(stores), len(made)) == (8, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_shares_none_of_its_parents(made):
    first = store(access_key="a", secret_key="b")
    child = os.fork()
    if child == 0:
        second = store(access_key="a", secret_key="b")
        os._exit(len(made) if second.client is not first.client else 99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
