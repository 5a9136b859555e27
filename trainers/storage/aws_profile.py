"""What AWS's own tools would read from `~/.aws`: keys, region, and the command that tells keys. The client of object
storage reads the environment and the machine's role itself, and no files.

Of a profile with single sign-on nothing is read; `aws configure export-credentials` tells its keys.
"""

from __future__ import annotations

import configparser
import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

_COMMAND_LASTS = timedelta(minutes=15)  # keys of which the command does not say when they end
_COMMAND_TIMEOUT_S = 60.0
_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}


def read_profile(environment: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of an S3 store as far as the profile has them and the environment does not."""
    name = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE") or "default"
    home = Path(environment.get("HOME", "/")) / ".aws"
    config = _read_section(environment.get("AWS_CONFIG_FILE") or home / "config", f"profile {name}", name)
    keys = _read_section(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials", name)
    found: dict[str, Any] = {}
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or config.get("region")
    if region:
        found["region"] = region
    if environment.get("AWS_ACCESS_KEY_ID"):
        return found
    for section in (keys, config):
        if "aws_access_key_id" in section:
            return found | {ours: section[theirs] for theirs, ours in _KEYS.items() if theirs in section}
    command = keys.get("credential_process") or config.get("credential_process")
    return found | ({"credential_provider": _CommandKeys(command)} if command else {})


class _CommandKeys:
    """Asks a command for keys, as often as they end."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __call__(self) -> dict[str, Any]:
        words = shlex.split(self.command)
        told = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=_COMMAND_TIMEOUT_S).stdout)
        ends = told.get("Expiration")
        return {
            "access_key_id": told["AccessKeyId"],
            "secret_access_key": told["SecretAccessKey"],
            "token": told.get("SessionToken"),
            "expires_at": datetime.fromisoformat(ends) if ends else datetime.now(UTC) + _COMMAND_LASTS,
        }


def _read_section(path: str | os.PathLike[str], *names: str) -> dict[str, str]:
    """The first of these sections of a file; nothing where it is missing or damaged."""
    parser = configparser.RawConfigParser()
    try:
        parser.read(path)
    except (OSError, configparser.Error, UnicodeDecodeError):
        return {}
    return next((dict(parser[name]) for name in names if parser.has_section(name)), {})
