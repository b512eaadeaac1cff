"""`track`: tqdm whose progress anyone with the bucket can see.

======================  =======================================================
`bar`                   `track`, `trange`, `tqdm`
`tracked`               what a bar reports to: a running task, or one of its own
`loops`                 the cheap loop on C iterators
`frames`                how a ``for`` was left: break, return or an exception
`ticks`                 what brings a slow loop back to Python
`nesting`               which bar is inside which; what a failed cell leaves open
`outcome`               what the way a loop ended means for its task
`reading`               what a bar shows now, from any thread
`notebook_bar`          the bar in a notebook's cell
======================  =======================================================

May import: `oq_nb.queue` and below, and the pure half of `oq_nb.display`. Importing it does not load tqdm.
"""

__all__: list[str] = []
