"""The frequent requests, built and signed by ourselves: a fraction of boto3's processor time.

`client` builds and reads them, `signer` signs them (pure). Anything unusual is left to boto3.

May import: nothing of the package but this room.
"""

__all__: list[str] = []
