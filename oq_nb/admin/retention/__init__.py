"""What old versions and finished tasks cost in a bucket, and how to remove them.

======================  =======================================================
`amounts`               `survey`: how many objects and versions, how large
`rules`                 lifecycle rules: the store removes by itself
`pruning`               `prune`: remove finished tasks now
======================  =======================================================

One lifecycle rule removes old *versions* after some days, another *finished tasks*. A rule cannot read a task, but it
can read tags: it finds the tasks that ended in a process of ``connect(tag_finished=True)``. `prune` finds all of them.
"""

from oq_nb.admin.retention.amounts import PRICE_PER_GB_MONTH, Amount, Survey, survey
from oq_nb.admin.retention.pruning import FINISHED, Pruned, prune
from oq_nb.admin.retention.rules import read_finished_rule, read_rule, remove_rule, set_finished_rule, set_rule

__all__ = [
    "FINISHED",
    "PRICE_PER_GB_MONTH",
    "Amount",
    "Pruned",
    "Survey",
    "prune",
    "read_finished_rule",
    "read_rule",
    "remove_rule",
    "set_finished_rule",
    "set_rule",
    "survey",
]
