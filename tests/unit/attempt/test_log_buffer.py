"""What was printed, within bounds, as lines and as pieces."""

from __future__ import annotations

import gc
import json
import os
import threading

import pytest

from oq_nb.attempt.log_buffer import Chunk, LineAssembler, LogBuffer
from oq_nb.attempt.log_packer import LogPacker
from oq_nb.model.logs import GAP, MAX_LINE_CHARS, LogParser


def lines(*writes):
    """Return the lines that writes of one thread make, and those that are left at the end."""
    assembler = LineAssembler()
    done = [line.text for line in assembler.feed(Chunk(0.0, "out", 1, text) for text in writes)]
    return done, [line.text for line in assembler.finish()]


@pytest.mark.parametrize(
    ("writes", "done", "left"),
    [
        (["a", "\n", "b\nc"], ["a", "b"], ["c"]),
        (["\n", "\n"], ["", ""], []),
        (["windows\r\nlines\r\n"], ["windows", "lines"], []),
        (["\r 10%", "\r 50%", "\r100%\n"], ["100%"], []),
        (["\r 10%", "\r 50%"], [], [" 50%"]),
        (["\r100%", "\r    ", "\r", "done\n"], ["done"], []),
        (["\r100%", "\r    ", "\r"], [], []),
        (["half\r", "\nnext"], ["half"], ["next"]),
        (["x" * MAX_LINE_CHARS, "y"], ["x" * MAX_LINE_CHARS, "y"], []),
    ],
)
def test_lines(writes, done, left):
    assert lines(*writes) == (done, left)


def test_lines_of_several_threads_do_not_mix():
    assembler = LineAssembler()
    chunks = [Chunk(0.0, "out", 1, "one "), Chunk(0.0, "out", 2, "two "), Chunk(0.0, "err", 1, "three ")]
    chunks += [Chunk(0.0, stream, source, "ends\n") for stream, source in (("out", 2), ("err", 1), ("out", 1))]
    assert [(line.stream, line.text) for line in assembler.feed(chunks)] == [
        ("out", "two ends"), ("err", "three ends"), ("out", "one ends"),
    ]  # fmt: skip


def test_a_buffer_keeps_the_beginning_and_the_end_of_what_is_printed():
    news = []
    buffer = LogBuffer(10_000, lambda: news.append(1))
    for number in range(100_000):
        buffer.add("out", f"{number:06d}")
        buffer.add("out", "\n")
    chunks = buffer.take()
    assert news == [1], "once, until it is taken"
    (gap,) = [index for index, chunk in enumerate(chunks) if chunk.stream == GAP]
    head = "".join(chunk.text for chunk in chunks[:gap]).splitlines()
    tail = "".join(chunk.text for chunk in chunks[gap + 1 :]).splitlines()
    assert head == [f"{number:06d}" for number in range(len(head))]
    assert tail == [f"{number:06d}" for number in range(100_000 - len(tail), 100_000)]
    assert 70 < len(head) < 85 and 30 < len(tail) < 42
    lost = 100_000 - len(head) - len(tail)
    assert (chunks[gap].lost_lines, chunks[gap].lost_bytes) == (lost, lost * 7)
    assert buffer.take() == []
    buffer.add("out", "again")
    assert news == [1, 1]


def test_one_long_write_is_bounded_too():
    buffer = LogBuffer(100_000)
    buffer.add("out", "é" * 10_000_000)
    chunks = buffer.take()
    assert sum(len(chunk.text) for chunk in chunks) <= 75_000
    assert sum(chunk.lost_bytes for chunk in chunks) > 19_000_000


def test_a_closed_buffer_takes_nothing_more():
    buffer = LogBuffer(10_000)
    buffer.add("out", "kept")
    buffer.close()
    buffer.add("out", "not kept")
    assert [chunk.text for chunk in buffer.take()] == ["kept"]


def test_what_the_collector_prints_in_the_middle_of_a_write_does_not_block():
    """An object whose end prints can be collected at any moment, also while the buffer's lock is held."""
    buffer = LogBuffer(1_000_000)

    class Loud:
        def __init__(self):
            self.me = self  # so that only the collector finds it

        def __del__(self):
            buffer.add("out", "collected\n")

    def work():
        before = gc.get_threshold()
        gc.set_threshold(1)
        try:
            for number in range(2000):
                Loud()
                buffer.add("out", f"{number}\n")
        finally:
            gc.set_threshold(*before)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it waits for itself"
    found = [chunk.text for chunk in buffer.take()]
    assert "".join(found).count("collected") > 1000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_takes_nothing():
    buffer = LogBuffer(10_000)
    buffer.add("out", "of the parent")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        buffer.add("out", "of the child")
        os.write(writer, b"%d" % len(buffer.take()))
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 10) == b"0"
    os.close(reader)
    os.close(writer)
    assert [chunk.text for chunk in buffer.take()] == ["of the parent"]


def pack(packer, texts):
    assembler = LineAssembler()
    packer.add(assembler.feed(Chunk(0.0, "out", 1, f"{text}\n") for text in texts), lambda at: 1_800_000_000.0 + at)


def test_pieces_say_where_they_belong():
    packer = LogPacker(10_000)
    pack(packer, ["one", "zwö"])
    first = packer.next_piece()
    pack(packer, ["three"])
    second = packer.next_piece()
    assert packer.next_piece() is None and packer.is_empty
    assert [json.loads(line) for line in first.body.splitlines()][0] == {"line": 0, "bytes": 0}
    assert [json.loads(line) for line in second.body.splitlines()] == [
        {"line": 2, "bytes": 9},
        {"t": "2027-01-15T08:00:00.000Z", "s": "out", "m": "three"},
    ]
    parser = LogParser()
    assert [line.text for body in (first.body, second.body) for line in parser.lines(body)] == ["one", "zwö", "three"]
    parser = LogParser()
    found = [line.text for line in parser.lines(second.body)]
    assert found == ["… 2 lines, 9.00B, left out here …", "three"]


@pytest.mark.parametrize("size", [10, 100, 2000])
def test_all_pieces_together_stay_within_the_bound(size):
    packer, bodies = LogPacker(40_000), {}
    for number in range(400):
        pack(packer, [f"{number} " + "x" * size])
        while (piece := packer.next_piece()) is not None:
            bodies[piece.number] = piece.body
            packer.note_written(piece, None)
            while (old := packer.to_remove) is not None:
                del bodies[old.number]
                packer.note_removed()
        assert sum(map(len, bodies.values())) <= 40_000
    parser = LogParser()
    found = [line for number in sorted(bodies) for line in parser.lines(bodies[number])]
    assert found[0].text.startswith("0 ")
    assert found[-1].text.startswith("399 ")
    end = [line for line in found if line.stream != GAP][::-1]
    size_of_end = 0
    for expected, line in zip(range(399, -1, -1), end, strict=False):
        if not line.text.startswith(f"{expected} "):
            break
        size_of_end += len(line.text) + 60
    assert size_of_end >= 9_000, "a quarter of it at least is the end"
