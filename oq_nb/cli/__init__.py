"""The ``oq`` command line: argument parsing by typer, everything else in the library.

======================  =======================================================
`app`                   the program, its exit codes and errors
`queue_options`         ``--bucket`` and the other options that say which queue
`output`                text, tables and JSON on the terminal
`looking`, `watching`   status, history, list, workers, tail; ``--watch``
`changing`              submit, cancel, replay, archive
`working`               worker
`upkeep`                doctor, retention
`local_store`, `demo`   the embedded store
`ui`                    the web page
======================  =======================================================
"""

from oq_nb.cli.app import app, main

__all__ = ["app", "main"]
