"""Looking after a bucket: is it fit, who may do what, what old versions cost.

======================  =======================================================
`doctor`                checks of a bucket, with the remedy for each
`policies`              IAM policy statements
`retention`             versions and finished tasks: survey, rules, pruning
======================  =======================================================

May import: `oq_nb.errors`, `oq_nb.text`, `oq_nb.model`, `oq_nb.s3`, `oq_nb.store`.
"""

__all__: list[str] = []
