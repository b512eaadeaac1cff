"""The ``oq`` command line: argument parsing by typer, everything else in the library.

======================  =======================================================
`app`                   the program, its exit codes and errors
`queue_options`         ``--bucket`` and the other options that say which queue
`output`                text, tables and JSON on the terminal
`queries`, `watch`      status, history, list, workers, tail; ``--watch``
`logs`                  logs
`outcomes`              result, wait, failures
`changes`               submit, cancel, replay, archive
`worker`                worker
`doctor`, `retention`   examine a bucket; old versions and finished tasks
`local_store`, `demo`   the embedded store
`ui`                    the web page
======================
"""

from oq_nb.cli.app import app, main

__all__ = ["app", "main"]
