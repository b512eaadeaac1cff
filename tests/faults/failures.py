"""What can become of one request. Each fault is what a process sees, and what has become of the request in truth."""

from __future__ import annotations

from typing import Any

import botocore.exceptions as botocore_failures
from faults.refusals import FOR_A_MINUTE, FOR_GOOD, ONCE, UNNOTICED, can_strike
from faults.simulation import (
    ENDPOINT,
    LEASE_SECONDS,
    Apply,
    Died,
    Fault,
    Process,
    Request,
    World,
    _Body,
    loses_every_answer,
)

from oq_nb.errors import OqError

Answer = dict[str, Any]

PAUSE_SECONDS = 1200  # well above the age at which strangers remove an entry


def dies_before(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    process.is_dead = True
    raise Died


def dies_after(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    try:
        apply()
    finally:
        process.is_dead = True
    raise Died


def answer_lost(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    apply_quietly(apply)
    world.pass_time(10)
    raise botocore_failures.ReadTimeoutError(endpoint_url=ENDPOINT)


def apply_quietly(apply: Apply) -> None:
    try:
        apply()
    except botocore_failures.ClientError:
        pass


def error_500(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    raise world.refusal(500, "InternalError")


def error_500_after(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    apply_quietly(apply)
    raise world.refusal(500, "InternalError")


def slow_down(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    raise world.refusal(503, "SlowDown")


def conflict_409(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    if request.kind != "PUT":
        return apply()  # only writes are refused so
    raise world.refusal(409, "ConditionalRequestConflict")


def reset(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    raise botocore_failures.ConnectionClosedError(endpoint_url=ENDPOINT)


def reset_after(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    apply_quietly(apply)
    raise botocore_failures.ConnectionClosedError(endpoint_url=ENDPOINT)


def silence(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    world.pass_time(10)
    raise botocore_failures.ReadTimeoutError(endpoint_url=ENDPOINT)


def slow_answer(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    """An answer that takes nearly as long as it may; it says little of the store's time."""
    world.pass_time(9.5)
    return apply()


def truncated(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    try:
        answer = apply()
    except botocore_failures.ClientError as exc:
        status = exc.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == 304:  # has no body: the head is cut
            raise botocore_failures.ConnectionClosedError(endpoint_url=ENDPOINT) from None
        raise world.refusal(status, str(status)) from None  # the code stood in the body
    if request.kind == "GET":
        return answer | {"Body": _Body(b"", is_cut=True)}
    raise botocore_failures.ConnectionClosedError(endpoint_url=ENDPOINT)


def arrives_late(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    """Nothing for ten seconds; half a minute later the store gets it all the same."""
    world.later(40, apply)
    world.pass_time(10)
    raise botocore_failures.ReadTimeoutError(endpoint_url=ENDPOINT)


def outage(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    """No connection, for anyone, for longer than all tries and a lease take."""
    world.outage_ends = world.time.wall() + 2 * LEASE_SECONDS
    raise botocore_failures.ConnectTimeoutError(endpoint_url=ENDPOINT)


# --- rivals: what others really do just before the request arrives


def rival_cancels(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    with world.undisturbed():
        rival = world.process(f"canceller-{request.number}")
        for task_id in world.unfinished():
            try:
                rival.queue.cancel(task_id, "by a rival")
            except OqError:
                pass
    return apply()


def rival_runs(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    with world.undisturbed():
        world.process(f"rival-{request.number}").look()
    return apply()


def rival_claims_and_dies(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    with world.undisturbed():
        rival = world.process(f"rival-{request.number}")
        rival.dies_in_handler = True
        try:
            rival.look()
        except Died:
            pass
    return apply()


def rival_takes_over(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    """The process stands still for longer than its lease while another worker looks for tasks."""
    with world.undisturbed():
        rival = world.process(f"rival-{request.number}")
        for _ in range(4):
            world.pass_time(LEASE_SECONDS + 31)
            rival.look()
    return apply()


def rival_recovers(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    """As `rival_takes_over`, but the task is pending again when the process goes on."""
    _lets_rivals_die(world, request, 1)
    return apply()


def rival_holds_it(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    """As `rival_takes_over`, but the task is running, under the lease of a rival, when the process goes on."""
    _lets_rivals_die(world, request, 2)
    return apply()


def _lets_rivals_die(world: World, request: Request, rivals: int) -> None:
    with world.undisturbed():
        for number in range(rivals):
            world.pass_time(LEASE_SECONDS + 31)
            rival = world.process(f"rival-{request.number}-{number}")
            rival.dies_in_handler = True
            try:
                rival.look()
            except Died:
                pass


def rival_submits(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    """Somebody submits with the same key."""
    with world.undisturbed():
        rival = world.process(f"submitter-{request.number}")
        world.keyed.append(
            rival.queue.submit("work", {"key": "k"}, timeout_seconds=LEASE_SECONDS, idempotency_key="k").id
        )
    return apply()


# --- the laptop that sleeps


def sleeps_before(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    """The process stands still for twenty minutes between deciding and sending; other workers go on."""
    _twenty_minutes(world, request)
    if request.kind == "PUT" and request.key.startswith("tasks/"):
        world.owing = process
    return apply()


def sleeps_after(world: World, process: Process, request: Request, apply: Apply) -> Answer:
    answer = apply()
    _twenty_minutes(world, request)
    return answer


def _twenty_minutes(world: World, request: Request) -> None:
    with world.undisturbed():
        rival = world.process(f"awake-{request.number}")
        for _ in range(5):
            world.pass_time(PAUSE_SECONDS / 5)
            rival.look()


def happens(name: str, scenario: str, request: Request) -> bool:
    """Return whether a fault can strike there: the store refuses only writes as conflicts, and a key needs a key."""
    if name == "409 ConditionalRequestConflict":
        return request.kind == "PUT"
    if name == "rival submits":
        return scenario == "idempotent submit"
    return can_strike(name, request) is not False


def where_it_can(name: str) -> Fault:
    """Return a fault that strikes nothing where it makes no sense."""

    def fault(world: World, process: Process, request: Request, apply: Apply) -> Answer:
        return FAULTS[name](world, process, request, apply) if happens(name, "", request) else apply()

    return fault


#: The ones that an answer or a further try makes good: nobody may notice them.
PASSING: dict[str, Fault] = {
    "answer lost": answer_lost,
    "500": error_500,
    "500 after it was applied": error_500_after,
    "503 SlowDown": slow_down,
    "409 ConditionalRequestConflict": conflict_409,
    "connection reset": reset,
    "connection reset after it was applied": reset_after,
    "ten seconds of nothing": silence,
    "truncated body": truncated,
    "slow answer": slow_answer,
    **UNNOTICED,
}

RIVALS: dict[str, Fault] = {
    "rival cancels": rival_cancels,
    "rival runs the task": rival_runs,
    "rival claims and dies": rival_claims_and_dies,
    "rival takes over": rival_takes_over,
    "rival recovers": rival_recovers,
    "rival holds it": rival_holds_it,
    "rival submits": rival_submits,
}

FAULTS: dict[str, Fault] = {
    "dies before": dies_before,
    "dies after it was applied": dies_after,
    **PASSING,
    **RIVALS,
    "every answer lost": loses_every_answer,
    "arrives late": arrives_late,
    "outage of a minute": outage,
    "sleeps before": sleeps_before,
    "sleeps after": sleeps_after,
    **ONCE,
    **FOR_A_MINUTE,
    **FOR_GOOD,
}
