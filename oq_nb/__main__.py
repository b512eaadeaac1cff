"""``python -m oq_nb`` is ``oq``."""

from oq_nb.cli import main

main()
