"""The embedded store: a SeaweedFS (or moto) server for this user, shared by all kernels and shells.

======================  =======================================================
`store`                 start, stop, find
`files`                 its folder, its keys, its lock
`server`                the server's process
`ready`                 whether it answers
======================  =======================================================

May import: `oq_nb.errors`, `oq_nb.text`, `oq_nb.s3`.
"""

from oq_nb.local.store import LocalStore, default_data_dir, find, start, stop

__all__ = ["LocalStore", "default_data_dir", "find", "start", "stop"]
