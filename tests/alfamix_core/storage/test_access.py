"""Our own variables name the store, its keys and its CA; those of AWS, which Kubeflow's launcher reads too, do not."""

import certifi
import pytest

from alfamix_core.errors import InputError
from alfamix_core.storage import access, connection, open_store
from alfamix_core.storage.access import Access

OURS = {
    "ALFAMIX_S3_ACCESS_KEY_ID": "key",
    "ALFAMIX_S3_SECRET_ACCESS_KEY": "secret",
    "ALFAMIX_S3_SESSION_TOKEN": "token",
    "ALFAMIX_S3_ENDPOINT_URL": "http://store:9000",
    "ALFAMIX_S3_REGION": "eu-central-1",
}


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch, tmp_path):
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def set_all(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.s3
def test_a_store_is_reached_by_our_variables_whatever_those_of_aws_say(s3_server, monkeypatch):
    """As in a pod: the AWS_* variables are the launcher's, with another store, other keys and another CA."""
    wrong = {
        "AWS_ACCESS_KEY_ID": "of-the-launcher",
        "AWS_SECRET_ACCESS_KEY": "of-the-launcher",
        "AWS_SESSION_TOKEN": "of-the-launcher",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_REGION": "nowhere",
        "AWS_CA_BUNDLE": "/none",
    }
    ours = {
        "ALFAMIX_S3_ACCESS_KEY_ID": "tester",
        "ALFAMIX_S3_SECRET_ACCESS_KEY": "tester-secret",
        "ALFAMIX_S3_ENDPOINT_URL": s3_server.endpoint,
        "ALFAMIX_S3_REGION": "us-east-1",
        "ALFAMIX_S3_CA_BUNDLE": certifi.where(),
    }
    set_all(monkeypatch, wrong | ours)
    store = open_store(f"s3://{s3_server.bucket}/access")
    store.create("a", b"1")
    assert store.read("a").data == b"1"
    store.close()


def test_what_is_resolved_is_ours_before_that_of_aws(monkeypatch):
    set_all(monkeypatch, {"AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "other", "AWS_REGION": "us-west-2"})
    set_all(monkeypatch, OURS)
    assert connection.resolved() == Access("key", "secret", "token", "http://store:9000", "eu-central-1")


def test_without_ours_the_variables_of_aws_are_resolved(monkeypatch, tmp_path):
    set_all(
        monkeypatch,
        {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_ENDPOINT_URL_S3": "http://other:9000",
            "AWS_CA_BUNDLE": certifi.where(),
        },
    )
    monkeypatch.delenv("AWS_REGION", raising=False)
    assert connection.resolved() == Access("key", "secret", "", "http://other:9000", "us-west-2", certifi.where())


def test_amazons_own_endpoint_is_none_and_so_are_keys_that_nobody_has(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALFAMIX_S3_REGION", "eu-west-1")
    assert connection.resolved() == Access(region="eu-west-1")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ALFAMIX_S3_ACCESS_KEY_ID": "a"}, "ALFAMIX_S3_SECRET_ACCESS_KEY is not"),
        ({"ALFAMIX_S3_SECRET_ACCESS_KEY": "a"}, "ALFAMIX_S3_ACCESS_KEY_ID is not"),
        ({"ALFAMIX_S3_SESSION_TOKEN": "a"}, "ALFAMIX_S3_SESSION_TOKEN belongs to keys"),
    ],
)
def test_half_of_a_pair_of_keys_is_refused_in_one_line(monkeypatch, given, said):
    set_all(monkeypatch, given)
    with pytest.raises(InputError, match=said) as refused:
        access.given()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value"), [("ALFAMIX_S3_ENDPOINT_URL", "no address"), ("ALFAMIX_S3_CA_BUNDLE", "/none")]
)
def test_a_wrong_place_names_our_variable(monkeypatch, variable, value):
    set_all(monkeypatch, OURS | {variable: value})
    with pytest.raises(InputError, match=variable):
        connection.resolved()


def test_the_secret_is_not_shown(monkeypatch):
    set_all(monkeypatch, OURS)
    assert "secret" not in repr(access.given()).replace("secret_access_key", "")
    assert "token" not in repr(access.given()).replace("session_token", "")
