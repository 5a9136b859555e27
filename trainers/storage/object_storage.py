"""Object storage by its URI: `s3://bucket/folder` (Amazon's and whatever speaks like it), `gs://bucket/folder`
(Google's, untested).

Keys, region and endpoint come from the environment, as for AWS's own tools (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN, AWS_REGION, ~/.aws, the machine's own role) or Google's (GOOGLE_APPLICATION_CREDENTIALS); never from
a config or a URI. pyarrow reads all of them but AWS_ENDPOINT_URL."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCHEMES = ("s3://", "gs://")
NO_ANSWER = getattr(
    errno, "EREMOTEIO", errno.EREMOTE
)  # the number of an OSError that is no disk's; macOS has no EREMOTEIO
CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S = 5.0, 30.0
WHAT_TO_CHECK = (
    "Check network, bucket, region (AWS_REGION), endpoint (AWS_ENDPOINT_URL, of a server that is not Amazon's) and "
    "credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, the machine's role, or Google's), on every "
    "node"
)
_URI = re.compile(r"(?:s3|gs)://([a-z0-9][a-z0-9._-]{1,62})((?:/[^/]+)*)/?")


def is_uri(place: str) -> bool:
    """Whether this names a place in object storage."""
    return place.startswith(SCHEMES)


def open_place(uri: str) -> tuple[FileSystem, str]:
    """The file system of a place and the path inside it, `bucket/folder`. Nothing is asked of the server yet.

    Raises:
        ValueError: the scheme is not known, or bucket or path are malformed.
    """
    if not is_uri(uri):
        raise ValueError(f"{uri}: expected {' or '.join(f'{scheme}bucket/folder' for scheme in SCHEMES)}, or a folder")
    parts = _URI.fullmatch(uri)
    if parts is None:
        shown = re.sub(r"//.*@", "//…@", uri)  # a key belongs on no screen
        raise ValueError(f"{shown}: expected {uri[:5]}bucket/folder, the bucket in lower case, and no key in it")
    from pyarrow import fs  # here: most runs need none of it

    path = parts[1] + parts[2]
    if uri.startswith("gs://"):
        from datetime import timedelta

        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=REQUEST_TIMEOUT_S)), path
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        allow_delayed_open=True,  # a small object is one request
    ), path
