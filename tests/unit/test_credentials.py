"""Prefect's blocks as environment variables of a run, on a real Prefect server."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import botocore.session
import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentCreate, BlockSchemaCreate, BlockTypeCreate
from prefect.exceptions import ObjectNotFound
from pydantic import TypeAdapter, ValidationError

from tasks.core.command_line import validate
from tasks.core.credentials import TAKEN, Credential, take_credentials
from tasks.core.errors import UserError
from tasks.core.launching.endings import mask_secrets
from tasks.prune.config import PruneConfig

pytestmark = pytest.mark.usefixtures("prefect_server")

KEY = "planted-0123456789"


OF_AWS = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "DEFAULT_REGION", "ENDPOINT_URL", "PROFILE")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What a test sets is gone after it."""
    for name in ("ONE_KEY", "OTHER_KEY", TAKEN, *(f"AWS_{name}" for name in OF_AWS)):
        monkeypatch.setenv(name, "before")


def save_aws(name: str, **data: object) -> None:
    """A block as prefect-aws makes it, by the server's API: the fields of its AwsCredentials."""
    with get_client(sync_client=True) as client:
        try:
            kind = client.read_block_type_by_slug("aws-credentials")
        except ObjectNotFound:
            kind = client.create_block_type(BlockTypeCreate(name="AWS Credentials", slug="aws-credentials"))
        secret = {"type": "string", "format": "password", "writeOnly": True}
        fields = {
            "title": "AwsCredentials",
            "type": "object",
            "properties": {"aws_secret_access_key": secret},
            "secret_fields": ["aws_secret_access_key"],
            "block_type_slug": "aws-credentials",
            "block_schema_references": {},
        }
        schema = client.create_block_schema(BlockSchemaCreate(fields=fields, block_type_id=kind.id))
        client.create_block_document(
            BlockDocumentCreate(name=name, data=data, block_type_id=kind.id, block_schema_id=schema.id)
        )


@pytest.mark.parametrize(
    "value", [{"ONE_KEY": KEY, "OTHER_KEY": "b"}, json.dumps({"ONE_KEY": KEY, "OTHER_KEY": "b"})]
)
def test_a_secret_with_variables_sets_them_over_those_of_the_environment(value):
    Secret(value=value).save("several", overwrite=True)
    assert take_credentials(["secret/several"]) == ("ONE_KEY", "OTHER_KEY")
    assert (os.environ["ONE_KEY"], os.environ["OTHER_KEY"]) == (KEY, "b")


def test_a_secret_that_is_one_text_is_the_value_of_the_variable_that_is_named():
    Secret(value=KEY).save("single", overwrite=True)
    assert take_credentials(["secret/single:ONE_KEY"]) == ("ONE_KEY",)
    assert (os.environ["ONE_KEY"], os.environ["OTHER_KEY"]) == (KEY, "before")


def test_a_block_of_prefect_aws_is_read_without_its_package_and_the_last_block_wins():
    Secret(value={"AWS_ACCESS_KEY_ID": "other", "ONE_KEY": KEY}).save("first", overwrite=True)
    save_aws(
        "store",
        aws_access_key_id="who",
        aws_secret_access_key=KEY,
        aws_session_token=None,
        region_name="eu-north-1",
        aws_client_parameters={"endpoint_url": "https://s3.example.org", "verify": True},
    )
    names = take_credentials(["secret/first", "aws-credentials/store"])
    assert {name: os.environ[name] for name in names} == {
        "ONE_KEY": KEY,
        "AWS_ACCESS_KEY_ID": "who",
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_SESSION_TOKEN": "",
        "AWS_DEFAULT_REGION": "eu-north-1",
        "AWS_ENDPOINT_URL": "https://s3.example.org",
    }
    assert os.environ["AWS_PROFILE"] == "before"  # keys come before it


def test_a_profile_is_not_mixed_with_keys_of_others():
    save_aws("profile", profile_name="training")
    take_credentials(["aws-credentials/profile"])
    assert os.environ["AWS_PROFILE"] == "training"
    assert {os.environ[f"AWS_{name}"] for name in OF_AWS[:3]} == {""}
    assert botocore.session.Session().get_config_variable("profile") == "training"


def test_what_was_taken_is_masked_in_logs_but_for_addresses():
    Secret(
        value={"ONE_KEY": KEY, "AWS_ACCESS_KEY_ID": "AKIA0123", "AWS_ENDPOINT_URL": "https://s3.example.org"}
    ).save("masked", overwrite=True)
    take_credentials(["secret/masked"])
    said = mask_secrets(f"{KEY} AKIA0123 https://s3.example.org")
    assert said == "[ONE_KEY] [AWS_ACCESS_KEY_ID] https://s3.example.org"


@pytest.mark.parametrize(("status", "words"), [(403, "403"), (500, "500"), (None, "refused")])
def test_a_server_that_does_not_answer_is_told_with_the_mend(status, words):
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        def log_message(self, *words: object) -> None:
            """Nothing on the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port if status else 9}/api"
        settings = {PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}
        with temporary_settings(settings), pytest.raises(UserError, match=words) as caught:
            take_credentials(["secret/somewhere"])
        server.shutdown()
    assert (caught.value.field, "PREFECT_API_URL" in caught.value.mend) == ("credentials", True)


@pytest.mark.parametrize(
    "value", [KEY, {}, {"ONE_KEY": 1}, {"ONE_KEY": ""}, {"one key": KEY}, [KEY], {"ONE_KEY": {"a": KEY}}]
)
def test_a_secret_without_variables_is_refused_and_not_shown(value):
    Secret(value=value).save("wrong", overwrite=True)
    with pytest.raises(UserError, match="secret/wrong does not hold what is needed") as caught:
        take_credentials(["secret/wrong"])
    assert KEY not in str(caught.value)
    assert os.environ["ONE_KEY"] == "before"


@pytest.mark.parametrize("name", ["secret/nowhere", "secret/nowhere:ONE_KEY", "aws-credentials/nowhere"])
def test_a_block_that_does_not_exist_is_named(name):
    with pytest.raises(UserError, match=f"Prefect has no block {name.partition(':')[0]}"):
        take_credentials([name])


@pytest.mark.parametrize(
    "name", ["", "nowhere", "secret/", "webhook/x", "secret/a/b", "secret/a:lower", "secret/../a"]
)
def test_other_names_are_no_credentials(name):
    with pytest.raises(ValidationError):
        TypeAdapter(Credential).validate_python(name)


def test_a_key_in_the_place_of_a_name_is_not_shown():
    with pytest.raises(UserError, match=r"credentials\.0") as caught:
        validate(PruneConfig, {"credentials": [KEY]})
    assert KEY not in str(caught.value)
