"""Keys and region as AWS's own tools would find them in `~/.aws`."""

import json
import sys

import pytest

from trainers.storage.aws_profile import read_profile


@pytest.fixture
def home(tmp_path):
    """A home whose profiles have keys of different kinds."""
    told = {"AccessKeyId": "told", "SecretAccessKey": "s", "Expiration": "2030-01-01T00:00:00Z"}
    (tmp_path / "tell.py").write_text(f"print({json.dumps(json.dumps(told))})")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b%c\n")
    (tmp_path / ".aws" / "config").write_text(
        "[default]\nregion = eu-west-1\n"
        f"[profile asks]\ncredential_process = {sys.executable} {tmp_path / 'tell.py'}\n"
        "[profile session]\naws_access_key_id = x\naws_secret_access_key = y\naws_session_token = z\n"
    )
    return {"HOME": str(tmp_path)}


def test_the_default_profile_gives_what_the_environment_does_not(home):
    keys = {"access_key_id": "a", "secret_access_key": "b%c"}
    assert read_profile(home) == {"region": "eu-west-1"} | keys
    assert read_profile(home | {"AWS_REGION": "us-east-2"}) == {"region": "us-east-2"} | keys
    assert read_profile(home | {"AWS_ACCESS_KEY_ID": "of the environment"}) == {"region": "eu-west-1"}


def test_another_profile_is_named_by_the_environment(home):
    found = read_profile(home | {"AWS_PROFILE": "session"})
    assert found == {"access_key_id": "x", "secret_access_key": "y", "session_token": "z"}
    assert read_profile(home | {"AWS_PROFILE": "missing"}) == {}


def test_a_command_tells_keys_and_when_they_end(home):
    provider = read_profile(home | {"AWS_PROFILE": "asks"})["credential_provider"]
    keys = provider()
    assert (keys["access_key_id"], keys["token"], keys["expires_at"].year) == ("told", None, 2030)


def test_no_folder_and_damaged_files_give_nothing(home, tmp_path):
    assert read_profile({"HOME": str(tmp_path / "nobody")}) == {}
    (tmp_path / ".aws" / "credentials").write_bytes(b"\xff no section\n")
    assert read_profile(home) == {"region": "eu-west-1"}
