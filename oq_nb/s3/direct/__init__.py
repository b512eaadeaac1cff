"""The frequent requests, built and signed by ourselves: a fraction of boto3's processor time.

======================  =======================================================
`client`                `DirectClient`: stands in for a boto3 client
`route`                 where boto3 sends requests of a kind, and how it signs
`signer`                AWS Signature Version 4
`listing`               the XML of listings
======================  =======================================================

Anything that this room does not do exactly as boto3 does is left to boto3.

May import: `oq_nb.s3.clock`, this room.
"""

__all__: list[str] = []
