"""Objects that nobody should have written, and a way to make more of them."""

from __future__ import annotations

import json
import random
from pathlib import Path

from oq_nb import model

WIRE = Path(__file__).parents[1] / "fixtures" / "wire"
LONG_AGO = "2020-01-01T00:00:00Z"


def plain_task(task_id: str, **fields) -> dict:
    """Return a pending task as upstream writes it, with some fields replaced."""
    made = json.loads((WIRE / "task-pending.json").read_bytes())
    return made | {"id": task_id, "shard": task_id[0], "available_at": LONG_AGO} | fields


def running(**fields) -> dict:
    """Return the fields of a running task whose lease has run out long ago."""
    lease = {"lease_id": model.new_id(), "worker_id": "w", "lease_expires_at": LONG_AGO}
    return {"status": "running", "attempt": 1} | lease | fields


JUNK = {
    "empty": b"",
    "no JSON": b"\x00\x01\xff",
    "truncated": (WIRE / "task-running.json").read_bytes()[:200],
    "a list": b"[]",
    "null": b"null",
    "a number": b"1e999",
    "html": b"<html><script>alert(1)</script></html>",
    "deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep lists": b"[" * 200_000,
    "UTF-16": (WIRE / "task-pending.json").read_bytes().decode().encode("utf-16"),
    "a huge number": b'{"attempt": ' + b"9" * 5000 + b"}",
    "twice the same": b'{"id": 1, "id": 2}',
}

ODD = {
    "NaN": {"input": float("nan")},
    "half a character": {"input": "\ud800"},
    "wrong types": {"input": 1, "timeout_seconds": "long", "status": ["pending"]},
    "a status that nobody knows": {"status": "sleeping"},
    "another's id": {"id": "8f14e45f-ceea-467f-a9c3-52b3b0a1f6d2"},
    "an id that leads elsewhere": {"id": "../../workers/w"},
    "another shard": {"shard": "zz"},
    "an endless lease": {"timeout_seconds": 10**30},
    "a negative lease": {"timeout_seconds": -1},
    "no lease at all": {"timeout_seconds": 0},
    "retries without end": {"max_retries": 10**30, "retry_count": 10**29},
    "available never": {"available_at": "9999-12-31T23:59:59.999999999Z"},
    "expired at the beginning": {"expires_at": "0001-01-01T00:00:00Z"},
    "no instant": {"available_at": "yesterday"},
    "a year of five digits": {"available_at": "+12026-01-01T00:00:00Z"},
    "control characters": {"task_type": "t\x1b[2J\x00\r\n", "last_error": "\x1b]0;owned\x07"},
    "html": {"task_type": "<img src=x onerror=alert(1)>", "worker_id": "</script>"},
    "right to left": {"task_type": "\u202egnp.exe"},
    "control characters, running": running(worker_id="\x1b[31mw\n", task_type="\x1b[2J"),
    "progress that is none": {"progress": {"percent": 10**9, "updated_at": LONG_AGO}},
    "an input elsewhere": {"input_ref": "../secrets/key"},
    "an input of another task": {"input_ref": "payloads/8f14e45f-ceea-467f-a9c3-52b3b0a1f6d2/input.json"},
    "an input that is gone": {"input": None, "input_ref": "payloads/x"},
    "running, without a lease": running(lease_id=None, lease_expires_at=None),
    "running for ever": running(lease_expires_at="9999-12-31T23:59:59.999999999Z"),
    "running, delays without bounds": running(
        retry_policy={
            "initial_interval_ms": 10**300,
            "max_interval_ms": 10**400,
            "multiplier": 1e300,
            "jitter_percent": 1e300,
        }
    ),
    "running, lost long ago": running(),
}

STRANGE = [
    *[None, True, -1, 0, 1, 101, 2**31, 2**63, 2**64, 10**40, 1.5, -0.0, 1e308, float("nan"), float("inf")],
    *["", "x", "\x00", "\x1b[31m", "<b>", "\ud800", "𝔘", "x" * 10_000, "../..", "null", "9" * 30],
    *[
        "2026-01-01",
        "2026-13-01T00:00:00Z",
        "9999-12-31T23:59:60Z",
        "0000-01-01T00:00:00Z",
        "2026-01-01T00:00:00+99:99",
    ],
    *[[], [[]], {}, {"": {}}, {"percent": 5}, {"percent": "5", "updated_at": LONG_AGO}, [None] * 100],
    *["pending", "running", "completed", "failed", "cancelled", "archived", "expired", LONG_AGO, "a" * 36],
]


def mutate(body: bytes, chance: random.Random) -> bytes:
    """Return an object a little other than this one: in some bytes, or in one field or several."""
    if chance.random() < 0.3:
        changed = bytearray(body)
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(len(changed))
            how = chance.random()
            if how < 0.5:
                changed[at] = chance.randrange(256)
            elif how < 0.8:
                del changed[at : at + chance.randint(1, 40)]
            else:
                changed[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 9)))
        return bytes(changed)
    value = json.loads(body)
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(list(value))
        how = chance.random()
        if how < 0.15:
            del value[name]
        elif how < 0.2:
            value[name + chance.choice(["_", "x", "\u202e"])] = value.pop(name)
        else:
            value[name] = chance.choice(STRANGE)
    return json.dumps(value).encode()
