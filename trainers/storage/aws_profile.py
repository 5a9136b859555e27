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
from functools import partial
from pathlib import Path
from typing import Any

_KEPT = timedelta(minutes=5)  # keys of which nothing says when they end: other tools may replace them
_COMMAND_TIMEOUT_S = 60.0


def read_profile(environment: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of an S3 store as far as the profile has them and the environment does not."""
    config, keys = _read_sections(environment)
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or config.get("region")
    found: dict[str, Any] = {"region": region} if region else {}
    has_keys = {"aws_access_key_id", "credential_process"} & (config.keys() | keys.keys())
    if has_keys and not environment.get("AWS_ACCESS_KEY_ID"):
        found["credential_provider"] = partial(tell_keys, environment)
    return found


def tell_keys(environment: Mapping[str, str]) -> dict[str, Any]:
    """The profile's keys as they are now, as an S3 store wants them, and when to ask again."""
    config, keys = _read_sections(environment)
    soon = datetime.now(UTC) + _KEPT
    for section in (keys, config):
        if "aws_access_key_id" in section:
            return {
                "access_key_id": section["aws_access_key_id"],
                "secret_access_key": section.get("aws_secret_access_key", ""),
                "token": section.get("aws_session_token"),
                "expires_at": soon,
            }
    words = shlex.split(keys.get("credential_process") or config["credential_process"])
    told = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=_COMMAND_TIMEOUT_S).stdout)
    return {
        "access_key_id": told["AccessKeyId"],
        "secret_access_key": told["SecretAccessKey"],
        "token": told.get("SessionToken"),
        "expires_at": datetime.fromisoformat(told["Expiration"]) if "Expiration" in told else soon,
    }


def _read_sections(environment: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What the files of config and of keys say of the profile."""
    name = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE") or "default"
    home = Path(environment.get("HOME", "/")) / ".aws"
    return (
        _read_section(environment.get("AWS_CONFIG_FILE") or home / "config", f"profile {name}", name),
        _read_section(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials", name),
    )


def _read_section(path: str | os.PathLike[str], *names: str) -> dict[str, str]:
    """The first of these sections of a file; nothing where it is missing or damaged."""
    parser = configparser.RawConfigParser()
    try:
        parser.read(path)
    except (OSError, configparser.Error, UnicodeDecodeError):
        return {}
    return next((dict(parser[name]) for name in names if parser.has_section(name)), {})
