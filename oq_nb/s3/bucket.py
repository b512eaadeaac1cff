"""`Bucket`: what can be asked of a bucket itself, and set: is it there, versions, tags, lifecycle rules.

Part of `s3`. Imports of the package: this room.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from oq_nb.s3 import errors as s3_errors

__all__ = ["Bucket"]


class Bucket:
    """The bucket of an `S3Store`, which sends the requests."""

    prefix: str
    endpoint: str | None
    region: str | None

    def _call(self, operation: str, **arguments: Any) -> Any:
        """Send one request."""
        raise NotImplementedError

    def _run(
        self,
        kind: str,
        key: str,
        action: str,
        call: Callable[[], Any],
        *,
        missing: Callable[[], Any] | None = None,
    ) -> Any:
        """Run one request, again after a failure that may pass; map what remains to our errors."""
        raise NotImplementedError

    def bucket_exists(self) -> bool:
        """Return whether the bucket is there. Requests: 1 LIST; the answer to a HEAD would not say what is wrong."""
        from botocore.exceptions import ClientError

        def look() -> bool:
            try:
                self._call("list_objects_v2", Prefix=self.prefix, MaxKeys=1)
            except ClientError as exc:
                if s3_errors.is_bucket_missing(exc):
                    return False
                raise
            return True

        return bool(self._run("LIST", "", "s3:ListBucket", look))

    def create_bucket(self) -> None:
        """Create the bucket; one that we own already is fine. Requests: 1 PUT."""
        region = self.region
        extra: dict[str, Any] = {}
        if self.endpoint is None and region not in (None, "us-east-1", "aws-global"):
            extra["CreateBucketConfiguration"] = {"LocationConstraint": region}

        from botocore.exceptions import ClientError

        def create() -> Any:
            try:
                return self._call("create_bucket", **extra)
            except ClientError as exc:
                code = exc.response.get("Error", {}).get("Code")
                if code in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists") and self.bucket_exists():
                    return None
                raise

        self._run("PUT", "", "s3:CreateBucket", create)

    def read_versioning(self) -> bool:
        """Return whether the bucket keeps versions. Requests: 1 GET."""
        answer: dict[str, Any] = self._run(
            "GET", "", "s3:GetBucketVersioning", lambda: self._call("get_bucket_versioning")
        )
        return answer.get("Status") == "Enabled"

    def enable_versioning(self) -> None:
        """Make the bucket keep versions. Requests: 1 PUT."""
        setting = {"Status": "Enabled"}
        self._run(
            "PUT",
            "",
            "s3:PutBucketVersioning",
            lambda: self._call("put_bucket_versioning", VersioningConfiguration=setting),
        )

    def read_tags(self, key: str) -> dict[str, str]:
        """Return the tags of an object. Requests: 1 GET."""
        answer: dict[str, Any] = self._run(
            "GET",
            key,
            "s3:GetObjectTagging",
            lambda: self._call("get_object_tagging", Key=self.prefix + key),
            missing=dict,
        )
        return {tag["Key"]: tag["Value"] for tag in answer.get("TagSet", ())}

    def read_lifecycle(self) -> list[dict[str, Any]]:
        """Return the bucket's lifecycle rules, as boto3 has them. Requests: 1 GET."""
        answer = self._run(
            "GET",
            "",
            "s3:GetLifecycleConfiguration",
            lambda: self._call("get_bucket_lifecycle_configuration"),
            missing=dict,
        )
        rules: list[dict[str, Any]] = answer.get("Rules", [])
        return rules

    def write_lifecycle(self, rules: list[dict[str, Any]]) -> None:
        """Replace the bucket's lifecycle rules. Requests: 1 PUT; 1 DELETE when there are none left."""
        action, setting = "s3:PutLifecycleConfiguration", {"Rules": rules}
        if rules:
            write = functools.partial(self._call, "put_bucket_lifecycle_configuration", LifecycleConfiguration=setting)
            self._run("PUT", "", action, write)
        else:
            self._run("DELETE", "", action, lambda: self._call("delete_bucket_lifecycle"), missing=dict)
