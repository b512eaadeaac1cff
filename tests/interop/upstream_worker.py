"""A worker process of upstream's for a test to kill: runs a task of the named type that never ends."""

import asyncio
import os
import sys

import buquet


async def main() -> None:
    queue = await buquet.connect(
        endpoint=os.environ["S3_ENDPOINT"], bucket=os.environ["S3_BUCKET"], region=os.environ["S3_REGION"]
    )
    worker = buquet.Worker(queue, "upstream-doomed", queue.all_shards())

    @worker.task(sys.argv[1])
    async def never_ends(given):
        await asyncio.sleep(3600)

    await worker.run(buquet.WorkerRunOptions(poll_interval_ms=100, with_monitor=False))


asyncio.run(main())
