"""Where S3 is and how one gets there: certificates, styles of address, clocks, keys, regions, huge buckets."""

import datetime
import ipaddress
import resource
import time
import uuid
from pathlib import Path

import botocore.auth
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from alfamix_core.errors import InputError, StorageError
from alfamix_core.storage import list_uri, open_store
from pipelines.cli import app
from tests.servers.s3_proxy import Forgetful, Listing, Refusing, SecureProxy

pytestmark = pytest.mark.s3


def init(bucket: str) -> str:
    """Make a project in a bucket, which must be refused in one line; return the line."""
    uri = f"s3://{bucket}/{uuid.uuid4().hex}"
    result = CliRunner().invoke(app, ["init", uri, "--classes", "cat,dog"], prog_name="alfamix")
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"alfamix: {uri}: ")
    return result.stderr.removeprefix(f"alfamix: {uri}: ").rstrip("\n")


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("AWS_ACCESS_KEY_ID", "the access key is not known there; check the credentials"),
        ("AWS_SECRET_ACCESS_KEY", "the secret key is wrong; check the credentials"),
    ],
)
def test_a_wrong_key_is_one_line(s3_server, monkeypatch, variable, words):
    monkeypatch.setenv(variable, "wrong")
    assert init(s3_server.bucket) == f"{words} (at {s3_server.endpoint})"


def test_a_wrong_bucket_is_one_line(s3_server):
    assert init("no-such-bucket") == f"the bucket does not exist (at {s3_server.endpoint})"


def test_a_wrong_clock_is_one_line(s3_server, monkeypatch):
    wrong = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=3)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: wrong.replace(tzinfo=None))
    assert init(s3_server.bucket) == (
        f"the clock of this machine is wrong by more than the store allows; set it right (at {s3_server.endpoint})"
    )


@pytest.mark.parametrize(
    ("status", "code"),
    [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed"), (400, "IllegalLocationConstraintException")],
)
def test_a_wrong_region_is_one_line(refusing, status, code):
    refusing.status, refusing.code = status, code
    assert init("bucket") == f"the bucket is in another region; set AWS_DEFAULT_REGION (at {refusing.endpoint})"


def test_an_endpoint_that_sends_elsewhere_is_one_line(refusing):
    """An ingress that answers http with a redirection to https."""
    refusing.status, refusing.location = 301, "https://store.test/bucket"
    said = f"the store is elsewhere, at https://store.test/bucket; set AWS_ENDPOINT_URL (at {refusing.endpoint})"
    assert init("bucket") == said


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_store_that_loses_conditions_is_refused_and_nothing_is_left_there(s3_server, monkeypatch, header):
    proxy = Forgetful(s3_server.endpoint, s3_server.access_key, s3_server.secret_key, header)
    before = [entry.key for entry in open_store(f"s3://{s3_server.bucket}").list()]
    with proxy.running():
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        assert init(s3_server.bucket) == (
            f"the store ignores conditional writes ({header}), so a project there could be damaged by two runs at "
            "once; use a store that has them"
        )
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint)
    assert [entry.key for entry in open_store(f"s3://{s3_server.bucket}").list()] == before


@pytest.mark.parametrize(
    ("style", "host", "path"),
    [(None, "store.test", "/bucket"), ("path", "store.test", "/bucket"), ("virtual", "bucket.store.test", "/")],
)
def test_requests_go_where_the_style_says(s3_server, monkeypatch, tmp_path, style, host, path):
    (tmp_path / "config").write_text(f"[default]\ns3 =\n  addressing_style = {style}\n" if style else "[default]\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://store.test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    server = Refusing()
    with server.running():
        monkeypatch.setenv("HTTP_PROXY", server.endpoint)  # names of hosts need not exist
        with pytest.raises(StorageError):
            open_store("s3://bucket/project").read("a")
    assert server.asked == [(host, path)]


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a certificate of one's own for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / f"{name}.pem", folder / f"{name}.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, private


def test_a_certificate_of_ones_own_is_trusted_when_its_file_is_named(s3_server, monkeypatch, tmp_path):
    pem, key = certificate(tmp_path, "ours")
    other, _ = certificate(tmp_path, "other")
    proxy = SecureProxy(s3_server.endpoint, pem, key)
    (tmp_path / "large").write_bytes(bytes(20_000_000))
    with proxy.running():
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(pem))
        store = open_store(f"s3://{s3_server.bucket}/{uuid.uuid4().hex}")
        store.check_conditional_writes()
        store.create_from("large", tmp_path / "large")
        store.fetch("large", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == bytes(20_000_000)
        store.delete("large")
        store.close()
        monkeypatch.setenv("AWS_CA_BUNDLE", str(other))
        said = f"the certificate is not trusted; set AWS_CA_BUNDLE to the file of its CA (at {proxy.endpoint})"
        assert init(s3_server.bucket) == said


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_certificates_that_is_none_is_said(s3_server, monkeypatch, tmp_path, content):
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with pytest.raises(InputError, match=r"S3: AWS_CA_BUNDLE .*/ca\.pem is not a file of certificates: "):
        open_store(f"s3://{s3_server.bucket}/x").read("a")


def test_a_bucket_of_100_000_keys_is_listed_in_pages(s3_server, monkeypatch):
    server = Listing(100_000)
    with server.running():
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        found = list(list_uri("s3://bucket/images/"))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert found == [(f"s3://bucket/images/{number:06}.png", number) for number in range(100_000)]
    assert server.pages == 100
    assert time.monotonic() - began < 120
    assert grown < 200_000, "kB"


def test_a_page_that_fails_is_asked_for_again(proxy, s3_server):
    store = open_store(f"s3://{s3_server.bucket}/{uuid.uuid4().hex}")
    store.create("a", b"1")
    proxy.faults += [("GET .*list-type", fault) for fault in ("error", "refuse", "reset", "truncate", "slow")]
    for _ in range(3):
        assert [entry.key for entry in store.list()] == ["a"]
    assert not proxy.faults
    store.close()


def test_wrong_input_is_not_tried_again(refusing):
    refusing.status, refusing.code = 403, "InvalidAccessKeyId"
    with pytest.raises(InputError):
        open_store("s3://bucket/x").read("a")
    assert len(refusing.asked) == 1
