"""What tasks, queues and workers look like.

======================  =======================================================
`view`, `markup`        pure: records to words, and to HTML
`live`                  outputs in a notebook that are redrawn by a thread
`task_widget`           `Task.widget`
`queue_widget`          `Queue.widget`
`wait_bar`              the bar of `wait` and of `Task.wait`
======================  =======================================================

The pure half may import `oq_nb.text` and `oq_nb.model`; the live half `oq_nb.queue` and below, a queue or task as a
type only.
"""

__all__: list[str] = []
