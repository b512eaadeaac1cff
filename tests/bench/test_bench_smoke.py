"""The benchmarks run: each in a form so short that its figures mean nothing."""

from __future__ import annotations

import argparse
import json
import statistics

import pytest

from bench import ahead, compare, growth, latency, requests, scale, submission, transport
from bench.__main__ import BENCHMARKS, run
from bench.measure import Figure, Report, compared, interleaved, running_store, spread, use_store


def names(figures) -> str:
    assert all(isinstance(figure, Figure) and figure.value >= 0 for figure in figures)
    return "\n".join(figure.name for figure in figures)


def test_what_is_said_of_requests_is_counted():
    figures = {
        f.name: f for f in requests.run(tasks=8, updates=4, idle_seconds=1, settle_seconds=0, watched=1, peer=False)
    }
    assert (
        2 * 8 <= figures["submit, a task"].value * 8 <= 2 * 8 + 3
    )  # and the hint: twice within a second, one replaced
    assert 5 <= figures["claim to end, a task"].value <= 9
    assert 4 <= figures["claim to end, a task, lease entries later"].value <= 6
    assert figures["progress update"].value == 1
    assert "GET" in figures["watching 1 running, a refresh"].note


def test_growth_is_measured_in_filled_buckets():
    told = names(growth.run(smallest=2, steps=2, rounds=1, waiting=1, settle_seconds=0))
    assert "a worker's poll, right after, 20" in told
    assert "a worker's poll, 0 s later, 20" in told


def test_a_poll_is_one_list_beside_any_number_of_tasks_ahead():
    figures = {f.name: f for f in ahead.run(fake=5000, entries=0, foreign=1500)}
    for beside in ("none", "5,000 scheduled ahead", "1,500 of other types"):
        poll = figures[f"a poll beside {beside}, in memory"]
        assert poll.value == 1 and "at most 1; a task is found in look 1: " in poll.note
        assert sorted(poll.note.rpartition(": ")[2].split()) == sorted(
            ["1", "LIST", "2", "PUT", "1", "GET", "1", "DELETE"]
        )


def test_transport_and_latency_run():
    assert "PUT, boto3" in names(transport.run(requests=2, rounds=1, keys=3))
    assert "submission to result, +0 ms" in names(latency.run(tasks=2, waits=1, rounds=1, longest_ms=0))


def test_an_aborted_client_of_upstream_is_run_again_and_counted(monkeypatch):
    program = "import os, sys; 'first' in os.environ and os.abort(); print(900.0, 0.5)"
    environments = iter([{"first": "1"}, {"first": "1"}, {}])
    in_a_process = submission._in_a_process
    monkeypatch.setattr(submission, "_in_a_process", lambda *_: in_a_process(program, 1, next(environments)))
    upstream = submission._Upstream()
    assert upstream.run(1, {}) == [900.0, 0.5]
    assert upstream.aborted == 2


def test_scale():
    one, two = (scale.busiest_prefix(1000, concurrency=4, task_seconds=10, prefix_len=n) for n in (1, 2))
    assert one["tasks"] == pytest.approx(16 * two["tasks"])
    assert one["index"] == pytest.approx(2 * 400 / 16)
    counts = scale.simulate(10, 50)
    assert counts["DELETE"] == 50
    assert counts["PUT"] >= 100


def test_rounds_are_interleaved_and_figures_kept(tmp_path, capsys):
    order = []
    values = interleaved({"a": lambda: order.append("a") or 1.0, "b": lambda: order.append("b") or 2.0}, 2)
    assert order == ["a", "b", "a", "b"]
    report = Report(str(tmp_path / "b.json"), "quick")
    report.add("x", "Title", [Figure.of("f", [*values["b"], 5.0], "s", against="a", ratio=2.0)], 1.0)
    kept = json.loads((tmp_path / "b.json").read_text())
    assert kept["benchmarks"]["x"]["figures"][0]["spread"] == pytest.approx(4.303 * 3**0.5 / 3**0.5 / 2.0)
    assert "2 × a" in capsys.readouterr().out


def test_a_ratio_says_how_far_the_rounds_are_from_it():
    found = compared([2.0, 3.0, 4.0], [1.0, 1.5, 1.6], "b")
    assert (found["against"], found["ratio"]) == ("b", 2.0)
    assert found["ratio_spread"] == pytest.approx(4.303 * statistics.stdev([2.0, 2.0, 2.5]) / 3**0.5 / 2.0)
    assert spread([5.0], 5.0) == 0.0


def test_two_runs_are_compared(tmp_path, capsys):
    def run_of(name, ratios, count):
        report = Report(str(tmp_path / name), "quick")
        near = compared(ratios, [1.0, 1.0, 1.0], "b")
        report.add("x", "Title", [Figure.of("f", ratios, "s", **near), Figure("count", count, "requests")], 1.0)
        return str(tmp_path / name)

    one, near = run_of("one", [2.0, 2.1, 2.2], 3), run_of("near", [2.2, 2.3, 2.1], 3)
    far = run_of("far", [3.0, 3.1, 3.2], 4)
    capsys.readouterr()
    assert compare.main([one, near]) == 0
    assert "1 of 1 ratios agree within their spreads" in capsys.readouterr().out
    assert compare.main([one, far]) == 1
    told = capsys.readouterr().out
    assert "0 of 1 ratios agree" in told
    assert "x: f: 2.1 and 3.1 (±12%, ±8%)" in told
    assert "x: count: 3 and 4" in told
    with pytest.raises(SystemExit):
        compare.main([one, str(tmp_path / "missing")])


def test_the_one_command(tmp_path):
    figures = run(["scale"], quick=True, save=str(tmp_path / "b.json"))
    assert figures
    assert set(BENCHMARKS) >= {"loop", "throughput", "peers", "requests", "growth", "start", "latency", "scale"}


@pytest.mark.parametrize("kind", ["moto", "localstack"])
def test_another_store_can_be_named(kind, monkeypatch):
    monkeypatch.setenv("OQ_BENCH_STORE", "")
    use_store(kind)
    try:
        with running_store() as server:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
            use_store(server.endpoint)
            assert "PUT, boto3" in names(transport.run(requests=2, rounds=1, keys=3))
            assert "secret" not in repr(server)
    except RuntimeError as exc:
        pytest.skip(str(exc))
    with pytest.raises(argparse.ArgumentTypeError, match="'floppy' is neither a URL nor one of seaweedfs, moto"):
        use_store("floppy")
