"""Keys and region as AWS's own tools would find them in `~/.aws`."""

import json
import sys

import pytest
from support.object_server import BUCKET

from trainers.storage.aws_profile import read_profile
from trainers.storage.objects import open_objects


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
    found = read_profile(home)
    assert found["region"] == "eu-west-1"
    keys = found["credential_provider"]()
    assert (keys["access_key_id"], keys["secret_access_key"], keys["token"]) == ("a", "b%c", None)
    assert read_profile(home | {"AWS_REGION": "us-east-2"})["region"] == "us-east-2"
    assert read_profile(home | {"AWS_ACCESS_KEY_ID": "of the environment"}) == {"region": "eu-west-1"}


def test_another_profile_is_named_by_the_environment(home):
    found = read_profile(home | {"AWS_PROFILE": "session"})
    keys = found.pop("credential_provider")()
    assert found == {}
    assert (keys["access_key_id"], keys["secret_access_key"], keys["token"]) == ("x", "y", "z")
    assert read_profile(home | {"AWS_PROFILE": "missing"}) == {}


def test_a_command_tells_keys_and_when_they_end(home):
    keys = read_profile(home | {"AWS_PROFILE": "asks"})["credential_provider"]()
    assert (keys["access_key_id"], keys["token"], keys["expires_at"].year) == ("told", None, 2030)


def test_the_storage_is_asked_with_the_keys_of_a_profile(home, bucket_server, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", home["HOME"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket_server.endpoint)
    objects = open_objects(f"s3://{BUCKET}/profile")
    objects.put("x", b"1")
    assert objects.look("x").size == 1


def test_no_folder_and_damaged_files_give_nothing(home, tmp_path):
    assert read_profile({"HOME": str(tmp_path / "nobody")}) == {}
    (tmp_path / ".aws" / "credentials").write_bytes(b"\xff no section\n")
    assert read_profile(home) == {"region": "eu-west-1"}
