"""Lifecycle rules: the store removes old versions, tagged finished tasks and logs by itself.

Invariants:

* Our rules are found by their ids: the bucket's other rules stay as they are.
* A task that is replayed is written anew, without the tag: a rule never removes a task that may still run.
* A rule that the store kept only in part is taken back: it might remove more than it should.

Imports nothing of the package but `errors`, `model`, `s3` and `store`.
"""

from __future__ import annotations

from typing import Any, Protocol

from oq_nb import model
from oq_nb.errors import ConfigurationError, StorageDeniedError, StorageError
from oq_nb.s3 import ObjectStore
from oq_nb.store import FINISHED_TAG

__all__ = ["HasLifecycle", "read_finished_rule", "read_rule", "remove_rule", "rule_id", "set_finished_rule", "set_rule"]

_OLD_VERSIONS, _FINISHED_TASKS, _LOGS = "oq-old-versions", "oq-finished-tasks", "oq-logs"


class HasLifecycle(ObjectStore, Protocol):
    """An `ObjectStore` whose bucket has lifecycle rules."""

    prefix: str

    def read_tags(self, key: str) -> dict[str, str]:
        """Return the tags of an object. Requests: 1 GET."""

    def read_lifecycle(self) -> list[dict[str, Any]]:
        """Return the bucket's rules. Requests: 1 GET."""

    def write_lifecycle(self, rules: list[dict[str, Any]]) -> None:
        """Replace the bucket's rules. Requests: 1 PUT, or 1 DELETE for none."""


def rule_id(which: str, prefix: str) -> str:
    """Return the id of a rule of a queue."""
    return f"{which}:{prefix or '*'}"


def read_rule(objects: HasLifecycle) -> dict[str, Any] | None:
    """Return the queue's rule for old versions, or None. Requests: 1 GET."""
    return _find(_rules(objects), rule_id(_OLD_VERSIONS, objects.prefix))


def read_finished_rule(objects: HasLifecycle) -> dict[str, Any] | None:
    """Return the queue's rule for finished tasks, or None. Requests: 1 GET."""
    return _find(_rules(objects), rule_id(_FINISHED_TASKS, objects.prefix))


def _find(rules: list[dict[str, Any]], wanted: str) -> dict[str, Any] | None:
    return next((rule for rule in rules if rule.get("ID") == wanted), None)


def set_rule(objects: HasLifecycle, *, days: int, keep: int | None = None) -> dict[str, Any]:
    """Have the store remove old versions by itself; other rules of the bucket stay.

    Args:
        objects: the bucket.
        days: how long a version is kept after it was replaced, from 1.
        keep: keep the newest so many old versions of each object even then, 1 to 100; not every store knows this.

    Returns:
        The rule as the store has it.

    Raises:
        ConfigurationError: the store did not take the rule, or not as it was given.

    Requests: 2 GET, 1 PUT.
    """
    _check_days(days)
    if keep is not None and not 1 <= keep <= 100:
        raise ConfigurationError(f"keep: a whole number from 1 to 100 is needed, not {keep!r}")
    expiration: dict[str, int] = {"NoncurrentDays": days}
    if keep is not None:
        expiration["NewerNoncurrentVersions"] = keep
    rule: dict[str, Any] = {
        "ID": rule_id(_OLD_VERSIONS, objects.prefix),
        "Status": "Enabled",
        "Filter": {"Prefix": objects.prefix},
        "NoncurrentVersionExpiration": expiration,
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }
    return _replace(objects, _rules(objects), rule)


def set_finished_rule(objects: HasLifecycle, *, days: int) -> dict[str, Any]:
    """Have the store remove finished tasks by itself: those that carry the tag of ``connect(tag_finished=True)``.

    Their payloads, objects of their own above 64 KiB, are left to `prune`; their versions to the rule of `set_rule`.
    A second rule removes what handlers have printed (``logs/``), of all tasks, so long after it was written.

    Args:
        objects: the bucket.
        days: how long a task is kept after it has ended, from 1.

    Returns:
        The rule for tasks as the store has it.

    Raises:
        ConfigurationError: the store keeps no tags, or did not take the rule.

    Requests: 3 GET, 2 PUT, 1 DELETE.
    """
    _check_days(days)
    rules = _rules(objects)
    _prove_tags(objects)
    ((tag, value),) = FINISHED_TAG.items()
    rule: dict[str, Any] = {
        "ID": rule_id(_FINISHED_TASKS, objects.prefix),
        "Status": "Enabled",
        "Filter": {"And": {"Prefix": objects.prefix + model.TASKS, "Tags": [{"Key": tag, "Value": value}]}},
        "Expiration": {"Days": days},
    }
    logs: dict[str, Any] = {
        "ID": rule_id(_LOGS, objects.prefix),
        "Status": "Enabled",
        "Filter": {"Prefix": objects.prefix + model.LOGS},
        "Expiration": {"Days": days},
    }
    return _replace(objects, rules, rule, logs)


def _check_days(days: int) -> None:
    if not 1 <= days <= 36500:
        raise ConfigurationError(f"days: a whole number from 1 to 36,500 is needed, not {days!r}")


def _prove_tags(objects: HasLifecycle) -> None:
    key = f"oq-doctor-tags-{model.new_id()}"
    try:
        written = objects.put(key, b"", create=True, tags=FINISHED_TAG)
        found = objects.read_tags(key)
        objects.delete(key, version_id=written.version_id)
    except StorageDeniedError:
        raise
    except StorageError as exc:
        raise ConfigurationError(f"lifecycle: this store keeps no tags, prune removes finished tasks ({exc})") from exc
    if found != FINISHED_TAG:
        raise ConfigurationError("lifecycle: this store drops tags, prune removes finished tasks")


def _replace(objects: HasLifecycle, rules: list[dict[str, Any]], *new: dict[str, Any]) -> dict[str, Any]:
    """Write rules beside the others, and see that the store has them as they were given; return the first."""
    ids = {rule["ID"] for rule in new}
    others = [other for other in rules if other.get("ID") not in ids]
    _write(objects, [*others, *new])
    found = _rules(objects)
    kept = [_find(found, rule["ID"]) for rule in new]
    is_as_given = [
        has is not None and all(_says(has.get(part), rule[part]) for part in rule)
        for has, rule in zip(kept, new, strict=True)
    ]
    if kept[0] is not None and all(is_as_given):
        return kept[0]
    if any(has is not None for has in kept):
        _write(objects, others)  # half a rule might remove more than it should
    raise ConfigurationError("lifecycle: the store answered that it took the rule, but does not show it: prune instead")


def _says(kept: Any, given: Any) -> bool:
    """Return whether a part of a rule says all that was given; stores add to it."""
    if isinstance(given, dict):
        return isinstance(kept, dict) and all(_says(kept.get(name), value) for name, value in given.items())
    return bool(kept == given)


def remove_rule(objects: HasLifecycle) -> bool:
    """Remove the queue's rules; return whether there was one. Requests: 1 GET, and 1 PUT or DELETE."""
    rules = _rules(objects)
    ours = [rule_id(which, objects.prefix) for which in (_OLD_VERSIONS, _FINISHED_TASKS, _LOGS)]
    others = [rule for rule in rules if rule.get("ID") not in ours]
    if len(others) < len(rules):
        _write(objects, others)
    return len(others) < len(rules)


def _rules(objects: HasLifecycle) -> list[dict[str, Any]]:
    if not hasattr(objects, "read_lifecycle"):
        raise ConfigurationError("lifecycle: this store has no lifecycle rules: prune removes finished tasks")
    try:
        return objects.read_lifecycle()
    except StorageDeniedError:
        raise
    except StorageError as exc:
        raise ConfigurationError(
            f"lifecycle: this store has no such rules, prune removes finished tasks ({exc})"
        ) from exc


def _write(objects: HasLifecycle, rules: list[dict[str, Any]]) -> None:
    try:
        objects.write_lifecycle(rules)
    except StorageDeniedError:
        raise
    except StorageError as exc:
        raise ConfigurationError(f"lifecycle: the store did not take the rule ({exc})") from exc
