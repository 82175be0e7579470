"""The rights of docs/operations.md, as a real server enforces them."""

import io
import json
import re
import time
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from PIL import Image
from typer.testing import CliRunner

from pipelines.cli import app
from tests.conftest import weed_mini

pytestmark = pytest.mark.s3

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"
POLICY, CREATE_ONLY = (
    json.loads(text.replace("111122223333", "000000000000"))
    for text in re.findall(r"```json\n(\{.*?\n\})\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
)
PLACES = [
    *("drops/a", "labels/a", "withdrawn/a", "project.json", "files/a", "decisions/a", "rounds/1/run/a"),
    *("rounds/1/round.json", "models/a", "ledger/a", "failures/a", "champion.json", "lock.json"),
]
STAGES = ("rounds/", "models/", "ledger/", "failures/", "champion.json", "lock.json")
PUT = {
    "supplier": ("drops/",),
    "annotator": ("labels/",),
    "operator": ("",),
    "stages": STAGES,
    "trigger": ("lock.json",),
}
READ = {"operator": ("",), "stages": ("",), "trigger": ("",)}
DELETE = {"operator": ("",), "stages": ("rounds/1/run/", "ledger/")}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Return a function that makes a client with the keys of one role; the page's policy is in force."""
    users = [
        {"name": name, "credentials": [{"accessKey": name, "secretKey": f"{name}-key"}], "actions": actions}
        for name, actions in [("root", ["Admin"]), *((name, []) for name in PUT)]
    ]
    config = tmp_path_factory.mktemp("identities") / "identities.json"
    config.write_text(json.dumps({"identities": users}))
    with weed_mini(tmp_path_factory.mktemp("weed"), f"-s3.config={config}", environment={}) as (endpoint, _):

        def client(name):
            return boto3.client(
                "s3",
                endpoint_url=endpoint,
                aws_access_key_id=name,
                aws_secret_access_key=f"{name}-key",
                region_name="us-east-1",
                config=Config(retries={"max_attempts": 1}),
            )

        until(lambda: allowed(client("root").head_bucket, Bucket="alfamix"))
        impose(client, POLICY)
        yield client


def impose(keys, policy):
    keys("root").put_bucket_policy(Bucket="alfamix", Policy=json.dumps(policy))
    until(lambda: allowed(keys("trigger").list_objects_v2, Bucket="alfamix"))


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def allowed(call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (403, 404):
            raise
        return False
    return True


@pytest.mark.parametrize("name", PUT)
def test_a_role_may_do_what_the_page_says_and_nothing_else(keys, name):
    root, client = keys("root"), keys(name)
    for place in PLACES:
        at = {"Bucket": "alfamix", "Key": f"birds/{place}"}
        root.put_object(**at, Body=b"1")
        assert allowed(client.get_object, **at) == place.startswith(READ.get(name, ())), place
        assert allowed(client.put_object, **at, Body=b"2") == place.startswith(PUT[name]), place
        assert allowed(client.delete_object, **at) == place.startswith(DELETE.get(name, ())), place
        root.delete_object(**at)
    assert allowed(client.list_objects_v2, Bucket="alfamix") == (name in READ)
    assert not allowed(client.put_object, Bucket="alfamix", Key="cats/drops/a", Body=b"1")


def test_a_supplier_delivers_and_the_trigger_sees_it(keys, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def alfamix(name, *words):
        variables = {"ACCESS_KEY_ID": name, "SECRET_ACCESS_KEY": f"{name}-key", "REGION": "us-east-1"}
        for variable, value in (variables | {"ENDPOINT_URL": keys("root").meta.endpoint_url}).items():
            monkeypatch.setenv(f"ALFAMIX_S3_{variable}", value)
        done = CliRunner().invoke(app, words, prog_name="alfamix")
        assert done.exit_code == 0, done.output
        return done.output

    alfamix("operator", "init", "s3://alfamix/birds", "--classes", "cat,dog")
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    for key, data in (("a.png", picture.getvalue()), ("manifest.jsonl", b'{"uri": "a.png"}\n')):
        keys("supplier").put_object(Bucket="alfamix", Key=f"birds/drops/one/{key}", Body=data, IfNoneMatch="*")
    assert json.loads(alfamix("trigger", "status", "s3://alfamix/birds", "--json"))["counts"]["samples"] == 1
    alfamix("trigger", "round", "s3://alfamix/birds", "--plan")


def test_what_a_supplier_replaces_can_be_put_back_from_its_version(keys):
    root, at = keys("root"), {"Bucket": "alfamix", "Key": "birds/drops/versions/a"}
    root.put_bucket_versioning(Bucket="alfamix", VersioningConfiguration={"Status": "Enabled"})
    for data in (b"1", b"2"):
        keys("supplier").put_object(**at, Body=data)
    versions = root.list_object_versions(Bucket="alfamix", Prefix=at["Key"])["Versions"]
    found = [root.get_object(**at, VersionId=each["VersionId"])["Body"].read() for each in versions]
    assert sorted(found) == [b"1", b"2"]
    for each in versions:
        assert not allowed(keys("supplier").delete_object, **at, VersionId=each["VersionId"])


def test_this_server_takes_create_only_and_does_not_apply_it(keys):
    witness = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": "arn:aws:s3:::alfamix/birds/labels/*",
    }
    impose(keys, POLICY | {"Statement": [*POLICY["Statement"], CREATE_ONLY, witness]})
    try:
        label = {"Bucket": "alfamix", "Key": "birds/labels/conditional", "Body": b"1"}
        until(lambda: not allowed(keys("annotator").put_object, **label))
        for data in (b"1", b"2"):
            keys("supplier").put_object(Bucket="alfamix", Key="birds/drops/conditional", Body=data)
    finally:
        impose(keys, POLICY)


def test_this_server_takes_the_header_as_absent_and_refuses_every_put(keys):
    alone = CREATE_ONLY | {"Condition": {"Null": CREATE_ONLY["Condition"]["Null"]}}
    impose(keys, POLICY | {"Statement": [*POLICY["Statement"], alone]})
    try:
        put = {"Bucket": "alfamix", "Key": "birds/drops/absent", "Body": b"1"}
        until(lambda: not allowed(keys("supplier").put_object, **put))
        assert not allowed(keys("supplier").put_object, **put, IfNoneMatch="*")
    finally:
        impose(keys, POLICY)
