"""A loop of its own, for the tests beside: the bar of ``oq_nb.track`` in a process that is watched, stopped, killed.

    python looping.py FRAMES ITEMS SECONDS [LEASE] [FAILS_AT]

The id of the loop's task is printed, then ``over`` and when. What the bar draws goes to the file FRAMES, a frame per
position: position, percent, rate, seconds left.
"""

import sys
import time

import oq_nb

frames, items, seconds, lease, fails_at = (*sys.argv[1:], "60", "-1")[:5]
form = "{n}|{percentage:.3f}|{rate}|{remaining_s:.3f}"
queue = oq_nb.connect()
with open(frames, "w", buffering=1) as file:
    bar = oq_nb.track(
        range(int(items)),
        "steps",
        file=file,
        bar_format=form,
        ncols=200,
        mininterval=0.02,
        min_seconds=0,
        throttle_seconds=0.2,
        lease_seconds=float(lease),
    )
    print(bar.task.id, flush=True)
    try:
        for i in bar:
            if i == int(fails_at):
                raise ValueError(f"at {i}")
            time.sleep(float(seconds))
    finally:
        print("over", time.time(), flush=True)
