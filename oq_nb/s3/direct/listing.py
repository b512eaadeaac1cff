"""The XML that answers a listing, read as boto3 reads it.

Pure. Imports nothing of the package.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from botocore import parsers, utils

__all__ = ["read_listing"]

_LISTS = ("Contents", "Versions", "DeleteMarkers")
_ROOTS = ("ListBucketResult", "ListVersionsResult")
_NAMES = {"Version": "Versions", "DeleteMarker": "DeleteMarkers", "Contents": "Contents"}
_NEXT = ("NextContinuationToken", "NextKeyMarker", "NextVersionIdMarker")


def read_listing(body: bytes) -> dict[str, Any]:
    """Return the answer to a listing, as boto3 has it.

    Raises:
        botocore.parsers.ResponseParserError: it is no listing.
    """
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as exc:
        raise parsers.ResponseParserError(f"the listing is not XML: {exc}") from exc
    found: dict[str, Any] = {}
    space = root.tag.rpartition("}")[0] + "}" if root.tag.startswith("{") else ""
    cut = len(space)
    if root.tag[cut:] not in _ROOTS:
        # A log-in page may be XML, too; without lines of ours it would pass for an empty listing.
        raise parsers.ResponseParserError(f"the listing is a document of another kind: {root.tag[cut:][:40]}")
    for node in root:
        name = node.tag[cut:]
        into = _NAMES.get(name)
        if into is not None:
            found.setdefault(into, []).append(_read_line({child.tag[cut:]: child.text or "" for child in node}))
        elif name == "IsTruncated":
            found[name] = node.text == "true"
        elif name in _NEXT or name == "EncodingType":
            found[name] = node.text or ""
    if found.get("EncodingType") == "url":
        for line in (line for into in _LISTS for line in found.get(into, ())):
            line["Key"] = unquote_plus(line["Key"])
        if "NextKeyMarker" in found:
            found["NextKeyMarker"] = unquote_plus(found["NextKeyMarker"])
    return found


def _read_line(fields: dict[str, str]) -> dict[str, Any]:
    try:
        line: dict[str, Any] = {"Key": fields["Key"], "LastModified": _read_time(fields["LastModified"])}
        line["Size"] = int(fields.get("Size", 0))
    except (KeyError, ValueError) as exc:
        raise parsers.ResponseParserError(f"a line of the listing is not understood: {exc!r}") from exc
    line["ETag"] = fields.get("ETag", "")
    if "VersionId" in fields:
        line["VersionId"] = fields["VersionId"]
        line["IsLatest"] = fields.get("IsLatest") == "true"
    return line


def _read_time(text: str) -> datetime:
    try:
        made = datetime.fromisoformat(text.replace("Z", "+00:00"))
        if made.tzinfo is not None:
            return made
    except ValueError:
        pass
    parsed: datetime = utils.parse_timestamp(text)
    return parsed
