"""`examine`: is a store fit for a queue? Each check names what is missing, and the command or policy that mends it.

The conditional writes are tried under real contention: threads race to create one object, and count up another. All
that is written lies under a scratch prefix of its own, which is removed with its versions.

Invariants:

* The bucket itself is never changed: versioning is read, not turned on.
* A check that cannot be made is not a check that was passed.

Imports of the package: `errors`, `s3`, `store.fitness`, `policies`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from oq_nb.admin.policies import statement
from oq_nb.errors import ConflictError, OqError, StorageDeniedError, StorageError, StorageUnavailableError
from oq_nb.s3 import ObjectStore
from oq_nb.s3.errors import code_of, region_of
from oq_nb.store.fitness import USE_ANOTHER, find_conditional_write_fault

__all__ = ["Bucket", "Check", "Examination", "examine"]

_RACERS = 6
_CREATION_ROUNDS = 4
_INCREMENTS = 3  # of each racer
_PATIENCE_SECONDS = 60.0  # for all increments
_SKEW_SECONDS = 60.0
_STALE = '"00000000000000000000000000000000"'


class Bucket(ObjectStore, Protocol):
    """What is examined: an `ObjectStore` that can also tell of its bucket."""

    bucket: str
    prefix: str
    region: str | None

    def bucket_exists(self) -> bool:
        """Return whether the bucket is there."""

    def read_versioning(self) -> bool:
        """Return whether the bucket keeps versions."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    #: ``ok``, ``warning`` (a queue works, but with less), ``failed`` or ``skipped``.
    outcome: str
    #: What was seen.
    said: str
    #: What mends it: a sentence, a command, a policy statement.
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return it as JSON has it."""
        return {"name": self.name, "outcome": self.outcome, "said": self.said, "remedy": self.remedy}


@dataclass
class Examination:
    """All that was found."""

    where: str
    checks: list[Check] = field(default_factory=list)

    @property
    def is_fit(self) -> bool:
        """Whether a queue works there."""
        return all(check.outcome in ("ok", "warning") for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"where": self.where, "is_fit": self.is_fit, "checks": [check.to_dict() for check in self.checks]}


def examine(objects: Bucket, *, told: Callable[[Check], object] | None = None) -> Examination:
    """Examine a store; takes some seconds.

    Args:
        objects: the bucket; everything is written under ``oq-doctor-…/`` of its prefix.
        told: called with each check when it is made.

    Requests: about 120, of them 90 PUT; a few hundred where writers meet often.
    """
    made = Examination(repr(objects)[1:-1].removeprefix("S3Store "))

    def note(check: Check) -> Check:
        made.checks.append(check)
        if told is not None:
            told(check)
        return check

    for reached in _reach(objects):
        if note(reached).outcome == "failed":
            return made
    note(_guarded(objects, "versioning", lambda: _versioning(objects)))
    scratch = f"oq-doctor-{uuid.uuid4().hex[:12]}/"
    try:
        if note(_guarded(objects, "objects", lambda: _objects(objects, scratch))).outcome != "failed":
            note(_clock(objects))
            for name, check in (
                ("conditional writes", _conditions),
                ("racing creations", _creations),
                ("racing changes", _changes),
            ):
                if note(_guarded(objects, name, lambda check=check: check(objects, scratch))).outcome == "failed":  # type: ignore[misc]
                    break
    finally:
        note(_guarded(objects, "clean-up", lambda: _clean_up(objects, scratch)))
    return made


def _guarded(objects: Bucket, name: str, check: Callable[[], Check]) -> Check:
    """Make a check; what it raises is its outcome."""
    try:
        return check()
    except StorageDeniedError as exc:
        return Check(name, "failed", str(exc), f"give the credentials what `{_policy_command(objects)}` prints")
    except OqError as exc:
        return Check(name, "failed", str(exc))


def _reach(objects: Bucket) -> Iterator[Check]:
    """Tell connection, region, credentials and bucket apart."""
    began = time.monotonic()
    try:
        is_there = objects.bucket_exists()
    except StorageUnavailableError as exc:
        yield Check("connection", "failed", str(exc), "start the store, or give its address: --endpoint or S3_ENDPOINT")
        return
    except OqError as exc:
        yield _refusal(objects, exc)
        return
    yield Check("connection", "ok", f"the store answers ({(time.monotonic() - began) * 1000:.0f} ms)")
    yield Check("region", "ok", f"the store takes {objects.region}")
    yield Check("credentials", "ok", "the store takes them")
    if is_there:
        yield Check("bucket", "ok", "it is there")
    else:
        command = f"aws s3api create-bucket --bucket {objects.bucket}{_endpoint(objects)}"
        if objects.region != "us-east-1":
            command += f" --create-bucket-configuration LocationConstraint={objects.region}"
        yield Check("bucket", "failed", f"there is no bucket {objects.bucket!r} here: is its name right?", command)


def _refusal(objects: Bucket, error: OqError) -> Check:
    """Return why the bucket may not even be looked at."""
    said, code = str(error), code_of(error)
    if said.startswith("region:"):
        region = region_of(error) or "REGION"
        return Check("region", "failed", said, f"export S3_REGION={region}, or --region {region}")
    if code == "RequestTimeTooSkewed":
        return Check("clock", "failed", said, "timedatectl set-ntp true")
    if isinstance(error, StorageDeniedError):
        remedy = _REMEDIES.get(code, _SET_KEYS)
        if code == "AccessDenied":
            remedy = statement(objects.bucket, objects.prefix, ["s3:ListBucket"])
        return Check("credentials", "failed", said, remedy)
    # What else is wrong says itself what mends it: a certificate, an address, a name.
    return Check("bucket" if said.startswith("bucket") else "connection", "failed", said)


_SET_KEYS = "export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… (or AWS_PROFILE=…)"
#: Codes of refused credentials: what to type.
_REMEDIES = {
    "SignatureDoesNotMatch": "export AWS_SECRET_ACCESS_KEY=… as it was given with the access key",
    "ExpiredToken": "aws sso login",
    "InvalidToken": "aws sso login, or unset AWS_SESSION_TOKEN",
}


def _policy_command(objects: Bucket) -> str:
    prefix = f" --prefix {objects.prefix}" if objects.prefix else ""
    return f"oq doctor --policy worker --bucket {objects.bucket}{prefix}"


def _versioning(objects: Bucket) -> Check:
    """Read the setting; the checks that follow do without versions where there are none."""
    command = (
        f"aws s3api put-bucket-versioning --bucket {objects.bucket} --versioning-configuration Status=Enabled"
        f"{_endpoint(objects)} (or do without history: connect(..., allow_unversioned=True))"
    )
    try:
        objects.is_versioned = objects.read_versioning()
    except StorageDeniedError as exc:
        mends = statement(objects.bucket, objects.prefix, ["s3:GetBucketVersioning"])
        return Check("versioning", "failed", str(exc), mends)
    except StorageUnavailableError:
        raise
    except StorageError as exc:
        objects.is_versioned = False
        said = f"the store keeps no versions ({exc}): connect() needs allow_unversioned=True, and there is no history"
        return Check("versioning", "warning", said, "connect(..., allow_unversioned=True)")
    if objects.is_versioned:
        return Check("versioning", "ok", "the bucket keeps versions: tasks have a history")
    said = "the bucket keeps no versions: connect() turns them on with create=True only, and else fails"
    return Check("versioning", "warning", said, command)


def _endpoint(objects: Bucket) -> str:
    endpoint = getattr(objects, "endpoint", None)
    return f" --endpoint-url {endpoint}" if endpoint else ""


def _objects(objects: Bucket, scratch: str) -> Check:
    """Write, read, list and remove; with versions these too."""
    key = f"{scratch}object"
    steps: list[tuple[str, str, Callable[[], str | None]]] = [
        ("write", "s3:PutObject", lambda: None if objects.put(key, b"1").etag else "no ETag came back"),
        ("read", "s3:GetObject", lambda: _same(objects.get(key), b"1")),
        ("list", "s3:ListBucket", lambda: _listed(objects.entries(scratch), key)),
    ]
    if objects.is_versioned:
        steps += [
            ("list versions", "s3:ListBucketVersions", lambda: _listed(objects.versions(scratch), key)),
            ("read a version", "s3:GetObjectVersion", lambda: _version_read(objects, key)),
            ("remove a version", "s3:DeleteObjectVersion", lambda: _version_removed(objects, key)),
        ]
    else:
        steps.append(("remove", "s3:DeleteObject", lambda: _removed(objects, key)))
    for what, action, step in steps:
        try:
            wrong = step()
        except StorageDeniedError as exc:
            return Check("objects", "failed", f"{what}: {exc}", statement(objects.bucket, objects.prefix, [action]))
        if wrong:
            return Check("objects", "failed", f"{what}: {wrong}", "use a store that is consistent after a write")
    versions = ", versions too" if objects.is_versioned else ""
    return Check("objects", "ok", f"written, read, listed and removed{versions}, each seen at once")


def _same(found: Any, body: bytes) -> str | None:
    if found is None:
        return "what was just written is not there"
    return None if found.body == body else f"{body!r} was written, {found.body!r:.60} came back"


def _listed(lines: Iterator[Any], key: str) -> str | None:
    return None if any(line.key == key for line in lines) else "what was just written is not listed"


def _version_read(objects: Bucket, key: str) -> str | None:
    version = next((line.version_id for line in objects.versions(key) if line.key == key), None)
    return _same(objects.get(key, version_id=version), b"1")


def _version_removed(objects: Bucket, key: str) -> str | None:
    for line in list(objects.versions(key)):
        objects.delete(key, version_id=line.version_id)
    return None if objects.get(key) is None else "it is still there"


def _removed(objects: Bucket, key: str) -> str | None:
    objects.delete(key)
    return None if objects.get(key) is None else "it is still there"


def _clock(objects: Bucket) -> Check:
    skew = abs((objects.clock.now().timestamp()) - time.time())
    if skew < _SKEW_SECONDS:
        return Check("clock", "ok", f"{skew:.0f} s between the store's clock and this machine's")
    return Check(
        "clock",
        "warning",
        f"{skew:.0f} s between the store's clock and this machine's: signed requests are refused from 15 minutes on",
        "set this machine's clock (timedatectl set-ntp true)",
    )


# --- conditional writes


def _conditions(objects: Bucket, scratch: str) -> Check:
    """One writer at a time: each condition that does not hold is refused, each that holds is not."""
    name, key = "conditional writes", f"{scratch}conditions"
    fault = find_conditional_write_fault(objects, key, b"1")
    if fault:
        return Check(name, "failed", fault, USE_ANOTHER)
    try:
        objects.put(f"{scratch}nothing", b"1", if_match=_STALE)
    except ConflictError:
        pass
    else:
        return Check(
            name, "failed", "it ignores If-Match where nothing is: a removed task would come back", USE_ANOTHER
        )
    first = objects.put(key, b"1").etag
    if objects.put(key, b"2", if_match=first).etag == first:
        return Check(name, "failed", "another content has the same ETag", USE_ANOTHER)
    return Check(name, "ok", "writes whose condition holds are carried out, all others are refused")


def _creations(objects: Bucket, scratch: str) -> Check:
    """Several writers create one object: there must be one winner, and the object must be the winner's."""
    with ThreadPoolExecutor(_RACERS, thread_name_prefix="oq-doctor") as pool:
        for number in range(_CREATION_ROUNDS):
            key = f"{scratch}creation-{number}"

            def create(racer: int, key: str = key) -> bytes | None:
                body = str(racer).encode()
                try:
                    objects.put(key, body, create=True)
                except ConflictError as exc:
                    if not exc.ambiguous:
                        return None
                    found = objects.get(key)
                    return body if found is not None and found.body == body else None
                return body

            winners = [body for body in pool.map(create, range(_RACERS)) if body is not None]
            found = objects.get(key)
            if len(winners) != 1 or found is None or found.body != winners[0]:
                return Check(
                    "racing creations",
                    "failed",
                    f"{len(winners)} of {_RACERS} writers were told that they created the same object",
                    USE_ANOTHER,
                )
    return Check("racing creations", "ok", f"{_CREATION_ROUNDS} rounds of {_RACERS} writers, one winner each")


def _changes(objects: Bucket, scratch: str) -> Check:
    """Several writers count up one object: no increment may be lost, none made twice."""
    key = f"{scratch}counter"
    objects.put(key, b"0")
    deadline = time.monotonic() + _PATIENCE_SECONDS
    doubtful: list[int] = []

    def count_up(racer: int) -> int:
        done = 0
        while done < _INCREMENTS and time.monotonic() < deadline:
            found = objects.get(key)
            if found is None:
                raise StorageError(f"{key} has vanished between two writes", key=key)
            try:
                objects.put(key, str(int(found.body) + 1).encode(), if_match=found.etag)
            except ConflictError as exc:
                if exc.ambiguous:
                    doubtful.append(racer)
                continue
            done += 1
        return done

    with ThreadPoolExecutor(_RACERS, thread_name_prefix="oq-doctor") as pool:
        done = sum(pool.map(count_up, range(_RACERS)))
    found = objects.get(key)
    counted = int(found.body) if found is not None else -1
    if not done <= counted <= done + len(doubtful):
        return Check(
            "racing changes",
            "failed",
            f"{done} changes were confirmed and {counted} are there: the store loses conditional writes",
            USE_ANOTHER,
        )
    if done < _RACERS * _INCREMENTS:
        return Check(
            "racing changes",
            "warning",
            f"only {done} of {_RACERS * _INCREMENTS} changes in {_PATIENCE_SECONDS:.0f} s: the store is slow",
        )
    return Check("racing changes", "ok", f"{_RACERS} writers made {done} changes to one object, none was lost")


def _clean_up(objects: Bucket, scratch: str) -> Check:
    if objects.is_versioned:
        for line in sorted(objects.versions(scratch), key=lambda line: line.is_delete_marker):
            objects.delete(line.key, version_id=line.version_id)
    for line in list(objects.entries(scratch)):
        objects.delete(line.key)
    left = len(list(objects.versions(scratch) if objects.is_versioned else objects.entries(scratch)))
    if left:
        return Check(
            "clean-up",
            "warning",
            f"{left} scratch objects are left under {objects.prefix}{scratch}",
            f"aws s3 rm --recursive s3://{objects.bucket}/{objects.prefix}{scratch}{_endpoint(objects)}",
        )
    return Check("clean-up", "ok", "nothing is left of the examination")
