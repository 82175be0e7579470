"""Servers between the client and S3 that do to it what networks and lesser servers do."""

import pytest

from tests.servers.s3_proxy import Careless, Proxy, Refusing


@pytest.fixture
def proxy(s3_server, monkeypatch):
    proxy = Proxy(s3_server.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    with proxy.running():
        yield proxy


@pytest.fixture
def careless(s3_server, monkeypatch):
    server = Careless()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
    with server.running():
        yield server


@pytest.fixture
def refusing(s3_server, monkeypatch):
    server = Refusing()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with server.running():
        yield server
