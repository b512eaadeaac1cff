"""One attempt at a task: its lease, its index entries, its handler, and writing its result.

======================  =======================================================
`lease`                 the only writer of a running task
`index_entries`         the entries that lead to the task while it runs
`scheduler`             threads that renew leases and send heartbeats when due
`context`               what a handler sees of its attempt
`async_context`         the same for coroutine handlers
`coroutines`            the event loop that runs them, one at a time
`handlers`, `invoke`    what users register, and calling it
`signature`, `arrays`   what a task function takes and gives, as JSON
`function_handler`      a function with a signature as a handler
`capture`               what handlers print and log, told apart
`log_buffer`            what was printed, in lines and within bounds
`log_packer`            makes pieces of the lines
`attempt_log`           writes the pieces to the bucket
`detached`              a context without a task, for plain calls and tests
`run`                   an attempt from its claim to its end
======================  =======================================================

May import: `oq_nb.ansi`, `oq_nb.errors`, `oq_nb.text`, `oq_nb.model`, `oq_nb.s3`, `oq_nb.store`.
"""

from oq_nb.attempt.context import TaskContext, current_context

__all__ = ["TaskContext", "current_context"]
