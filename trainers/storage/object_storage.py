"""Object storage by its URI: `s3://bucket/folder` (Amazon's and whatever speaks like it), `gs://bucket/folder`
(Google's, untested), `az://container/folder` (Azure's, untested). `objects.py` has the client.

Keys, region and endpoint come from the environment, as for AWS's own tools (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN, AWS_REGION, ~/.aws, the machine's own role), Google's (GOOGLE_APPLICATION_CREDENTIALS) or Azure's
(AZURE_STORAGE_ACCOUNT_NAME, …); never from a config or a URI."""

from __future__ import annotations

import errno
import re

SCHEMES = ("s3://", "gs://", "az://")
NO_ANSWER = getattr(
    errno, "EREMOTEIO", errno.EREMOTE
)  # the number of an OSError that is no disk's; macOS has no EREMOTEIO
WHAT_TO_CHECK = (
    "Check network, bucket, region (AWS_REGION), endpoint (AWS_ENDPOINT_URL, of a server that is not Amazon's) and "
    "credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, the machine's role, or Google's), on every "
    "node"
)
_URI = re.compile(r"(?:s3|gs|az)://([a-z0-9][a-z0-9._-]{1,62})((?:/[^/]+)*)/?")


def is_uri(place: str) -> bool:
    """Whether this names a place in object storage."""
    return place.startswith(SCHEMES)


def split_uri(uri: str) -> tuple[str, str, str]:
    """Scheme, bucket and folder in it (perhaps "") of a place.

    Raises:
        ValueError: the scheme is not known, or bucket or path are malformed.
    """
    if not is_uri(uri):
        raise ValueError(f"{uri}: expected {' or '.join(f'{scheme}bucket/folder' for scheme in SCHEMES)}, or a folder")
    parts = _URI.fullmatch(uri)
    if parts is None or {".", ".."} & set(parts[2].split("/")):
        shown = re.sub(r"//.*@", "//…@", uri)  # a key belongs on no screen
        raise ValueError(f"{shown}: expected {uri[:5]}bucket/folder, the bucket in lower case, and no key in it")
    return uri[:5], parts[1], parts[2].strip("/")
