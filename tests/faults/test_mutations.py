"""The harness has teeth: each of these deliberately broken variants of the library is caught by a story.

Those of the index's sweep, of `prune` and of watchers are caught in ``tests/property``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults import more_variants  # noqa: F401
from faults.cases import Case, each_single, run
from faults.failures import FAULTS
from faults.stories import what_differs_when_calm
from faults.variants import VARIANTS, Variant


def _found(variant: Variant) -> Iterator[str]:
    """Yield what the stories tell of a broken library."""
    if variant.then is None:
        for struck in each_single(variant.scenario, faults=variant.faults or FAULTS):
            yield from struck.told
        return
    calm = run(Case(variant.scenario))
    for number in range(calm.scenario_requests):
        for fault in variant.faults:
            alone = run(Case(variant.scenario, ((number, fault),)))
            for other in range(number + 1, len(alone.requests)):
                yield from run(Case(variant.scenario, ((number, fault), (other, variant.then)))).violations


@pytest.mark.parametrize("name", VARIANTS)
def test_a_broken_variant_is_caught(name, monkeypatch, cases):
    variant = VARIANTS[name]
    calm = run(Case(variant.scenario))
    clean = calm.violations + what_differs_when_calm(variant.scenario, calm)
    assert clean == [], "it is clean before it is broken; with faults too: see test_single_faults"
    variant.breaks(monkeypatch)
    seen = []
    for found in _found(variant):
        seen.append(found)
        if variant.told in found.split("): ", 1)[-1]:
            break
    else:
        pytest.fail(f"nothing noticed of: {name}; but {seen[:3]}")
    cases("broken variants, all caught", {name: 1})


def test_each_fault_notices_something():
    """No fault is for show: a fault that never changed a run would be one that does not strike."""
    calm = [str(request) for request in run(Case("payload by reference")).requests]
    for name in FAULTS:
        if name in ("rival submits", "slow answer"):  # needs a key; see the test of leases met after a slow answer
            continue
        changed = [
            number
            for number in range(14)
            if [str(r) for r in run(Case("payload by reference", ((number, name),))).requests] != calm
        ]
        assert changed, name
