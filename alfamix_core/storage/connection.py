"""Connections to S3: a client, its errors in the user's words, and downloads that survive a broken connection.

Endpoint, region, credentials and CA come from this package's variables, ALFAMIX_S3_* (see ``storage.access``). Without
these, and for retries, boto3's own settings apply: AWS_ENDPOINT_URL_S3, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID,
AWS_CA_BUNDLE, AWS_MAX_ATTEMPTS, a profile, the identity of the pod. For a server that rejects the newer checksum
headers, set AWS_REQUEST_CHECKSUM_CALCULATION=when_required. Behind an endpoint that is not Amazon's the bucket is part
of the path, unless the profile has ``addressing_style = virtual`` below ``s3 =``.

boto3 is imported when a client is made, so a project in a folder does not need it.
"""

import functools
import hashlib
import io
import os
import random
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict

from alfamix_core.errors import DeniedError, InputError, MissingObjectError, ObjectChangedError, StorageError, one_line
from alfamix_core.storage import access
from alfamix_core.storage.access import Access

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

SHA256 = "sha256"  # in the metadata; every full read verifies it

_ATTEMPTS = 5  # unless AWS_MAX_ATTEMPTS or the profile sets it; about 10 s of waiting in total
_CONNECT_SECONDS = 10
_READ_SECONDS = 60  # without a byte
LONGEST_CALL = _ATTEMPTS * (_CONNECT_SECONDS + _READ_SECONDS) + 2**_ATTEMPTS
"""Maximum seconds of one call to a store that accepts and never answers, with boto3's waits."""
_AMAZON = re.compile(r"\.amazonaws\.com(\.cn)?$|\.amazonaws\.eu$")

# what a person must fix, by the error codes of S3
_FOR_A_PERSON = {
    "NoSuchBucket": "the bucket does not exist",
    "InvalidBucketName": "the bucket's name is not allowed",
    "InvalidAccessKeyId": "the access key is not known there; check the credentials",
    "SignatureDoesNotMatch": "the secret key is wrong; check the credentials",
    "InvalidToken": "the session token is not valid; check the credentials",
    "ExpiredToken": "the credentials have expired",
    "TokenRefreshRequired": "the credentials have expired",
    "AccountProblem": "there is a problem with the account",
    "RequestTimeTooSkewed": "the clock of this machine is wrong by more than the store allows; set it right",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_DEFAULT_REGION",
    "IllegalLocationConstraintException": "the bucket is in another region; set AWS_DEFAULT_REGION",
    "NotImplemented": "the store does not offer what is needed",
    "MethodNotAllowed": "the store does not offer what is needed",
    "InvalidObjectState": "the object is archived; restore it first",
    "QuotaExceeded": "the quota is used up",
    # answers without a body have the HTTP status as code
    "301": "the bucket is in another region; set AWS_DEFAULT_REGION",
    "400": "the request was not understood; check region and credentials",
    "501": "the store does not offer what is needed",
}

_RESOLVED_SECONDS = 60  # how long the keys found for tables are used

_DENIED = ("AccessDenied", "AllAccessDisabled", "403")


class Location(TypedDict):
    """The location of an object, as arguments of boto3."""

    Bucket: str
    Key: str


class _Rest(TypedDict, total=False):
    """The rest of the same version of an object, as arguments of boto3."""

    Range: str
    IfMatch: str


class Connection:
    """One boto3 client per process, made on first use; threads share it, a fork or a pickle makes its own."""

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._client: S3Client | None = None
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[type["Connection"], tuple[()]]:
        return Connection, ()

    def client(self) -> "S3Client":
        """Return the client of this process.

        Raises:
            InputError: Profile, endpoint or another setting of boto3 is wrong.
        """
        if self._pid != os.getpid():
            self._renew()  # a fork copies open connections, and the lock in whatever state it was
        with self._lock:
            if self._client is None:
                self._client = _connect()
            return self._client

    def close(self) -> None:
        """Close the connections of this process."""
        if self._client is not None and self._pid == os.getpid():
            self._client.close()
        self._client = None


class Download(io.RawIOBase):
    """The bytes of one object as it was at the start, read in order and verified at the end.

    A broken connection is reopened where it broke, for the same version of the object.

    Raises:
        MissingObjectError: On construction: there is none.
        InputError, StorageError: See ``explained``.
    """

    def __init__(self, client: "S3Client", location: Location) -> None:
        super().__init__()
        self._client = client
        self._location = location
        self._uri = f"s3://{location['Bucket']}/{location['Key']}"
        self._attempts = attempts(client)
        self._offset = 0
        self._answer: GetObjectOutputTypeDef | None = None
        answer = self._request(_Rest())
        self._answer = answer
        self.size = answer["ContentLength"]
        self.tag = answer["ETag"]
        self._expected = answer.get("Metadata", {}).get(SHA256)
        self._hash = hashlib.sha256() if self._expected else None
        self._is_verified = False

    def readable(self) -> bool:
        """Return True: it can be read, in order only."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into a buffer and return their number; 0 at the verified end.

        Raises:
            ObjectChangedError: The object was replaced while it was read.
            StorageError: The network failed repeatedly, or the bytes are not those that were written.
        """
        wanted = len(buffer)
        if not wanted:
            return 0
        chunk = self._next(wanted)
        if chunk:
            buffer[: len(chunk)] = chunk
            self._offset += len(chunk)
            if self._hash:
                self._hash.update(chunk)
        elif self._hash and not self._is_verified:
            if self._hash.hexdigest() != self._expected:
                raise StorageError(f"{self._uri} is damaged: its SHA-256 is not the one it was written with")
            self._is_verified = True
        return len(chunk)

    def read_whole(self) -> bytes:
        """Return all bytes in one piece; for a fresh download of an object that fits in memory."""
        data = bytearray(self.size + 1)  # the last byte detects the end
        view = memoryview(data)
        while self.readinto(view[self._offset :]):
            if self._offset > self.size:
                raise StorageError(f"{self._uri}: more than {self.size} bytes came")
        return bytes(view[: self._offset])

    def close(self) -> None:
        """Release the connection."""
        if not self.closed:
            self._drop()
        super().close()

    def _next(self, wanted: int) -> bytes:
        from botocore.exceptions import BotoCoreError

        for attempt in range(1, self._attempts + 1):
            try:
                if self._answer is None:
                    if self._offset == self.size:
                        return b""
                    rest = _Rest(Range=f"bytes={self._offset}-{self.size - 1}", IfMatch=self.tag)
                    self._answer = self._request(rest)
                chunk: bytes = self._answer["Body"].read(wanted)
                if chunk or self._offset == self.size:
                    return chunk
                reason = f"ended after {self._offset} of {self.size} bytes"
            except BotoCoreError as error:
                reason = one_line(error)
                if self._offset == self.size:  # boto3 compared the checksum at the end
                    raise StorageError(f"{self._uri} is damaged: {reason}") from error
            self._drop()
            if attempt < self._attempts:
                pause(attempt)
        raise StorageError(f"{self._uri}: the download broke off {self._attempts} times: {reason}")

    def _request(self, rest: _Rest) -> "GetObjectOutputTypeDef":
        from botocore.exceptions import ClientError

        with explained(self._uri, self._client):
            try:
                return self._client.get_object(**self._location, **rest)
            except ClientError as error:
                if code_of(error) == "NoSuchKey":
                    raise MissingObjectError(f"{self._uri} does not exist") from None
                if code_of(error) in ("PreconditionFailed", "412"):
                    raise ObjectChangedError(f"{self._uri} was changed while it was read") from None
                raise

    def _drop(self) -> None:
        if self._answer is not None:
            self._answer["Body"].close()
            self._answer = None


@contextmanager
def explained(where: str, client: "S3Client | None" = None) -> Iterator[None]:
    """Turn an error of boto3 into one of this package: InputError if a person must act, else StorageError.

    Args:
        where: URI of the request; the message begins with it.
        client: Client whose endpoint the message names.
    """
    from botocore import exceptions
    from botocore.exceptions import BotoCoreError, ClientError

    endpoint = f" (at {client.meta.endpoint_url})" if client else ""
    try:
        yield
    except ClientError as error:
        code = code_of(error)
        if code in _DENIED:
            raise DeniedError(
                f"{where}: access is denied; check permissions, and whether it exists{endpoint}"
            ) from error
        target = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("location")
        if target and (code.isdigit() or code not in _FOR_A_PERSON):
            raise InputError(f"{where}: the store is elsewhere, at {target}; set AWS_ENDPOINT_URL{endpoint}") from error
        if code in _FOR_A_PERSON:
            raise InputError(f"{where}: {_FOR_A_PERSON[code]}{endpoint}") from error
        raise StorageError(f"{where}: {one_line(error)}{endpoint}") from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise InputError(
            f"{where}: no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or the "
            "identity of the pod"
        ) from error
    except (
        exceptions.ProfileNotFound,
        exceptions.ConfigNotFound,
        exceptions.ConfigParseError,
        exceptions.InvalidConfigError,
        exceptions.InvalidRegionError,
        exceptions.InvalidRetryConfigurationError,
        exceptions.SSOError,
        exceptions.TokenRetrievalError,
        exceptions.UnknownCredentialError,
    ) as error:
        raise InputError(f"{where}: {one_line(error)}") from error
    except BotoCoreError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise InputError(
                f"{where}: the certificate is not trusted; set AWS_CA_BUNDLE to the file of its CA{endpoint}"
            ) from error
        raise StorageError(f"{where}: {one_line(error)}{endpoint}") from error


def code_of(error: "ClientError") -> str:
    """Return the error code of S3, or the HTTP status as text if the answer had no body."""
    return error.response.get("Error", {}).get("Code", "")


def attempts(client: "S3Client") -> int:
    """Return the client's number of attempts."""
    return int(client.meta.config.retries["total_max_attempts"])  # type: ignore[attr-defined]


def pause(attempt: int) -> None:
    """Wait a random time before the next attempt: up to 1 s after the first, then 2, 4, ... 20."""
    time.sleep(random.uniform(0, min(20, 2 ** (attempt - 1))))


def _connect() -> "S3Client":
    import boto3
    import botocore.session
    from botocore.config import Config

    with explained("S3"):
        session = botocore.session.get_session()
        session.register_component("data_loader", _descriptions())
        options = session.get_scoped_config().get("s3", {})
        ours = access.given()
        if ours.ca_bundle:
            _check_ca_bundle(ours.ca_bundle, access.CA_BUNDLE)
        else:
            _check_ca_bundle(session.get_config_variable("ca_bundle"), "AWS_CA_BUNDLE")
        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={
                "mode": "standard",
                "total_max_attempts": session.get_config_variable("max_attempts") or _ATTEMPTS,
            },
            max_pool_connections=32,
            tcp_keepalive=True,
        )
        maker = boto3.Session(botocore_session=session)
        try:
            client = maker.client("s3", config=config, **ours.client_arguments())
            if not ("addressing_style" in options or _is_amazon(client.meta.endpoint_url)):
                client.close()
                config = config.merge(Config(s3={"addressing_style": "path"}))
                client = maker.client("s3", config=config, **ours.client_arguments())
        except ValueError as error:  # an endpoint that is not an address
            variable = access.ENDPOINT_URL if ours.endpoint_url else "AWS_ENDPOINT_URL"
            raise InputError(f"S3: {one_line(error)}; check {variable}") from error
    # boto3's transfers have no conditions yet; this is the last step of a large upload
    client.meta.events.register(
        "provide-client-params.s3.CompleteMultipartUpload",
        _only_where_none_is,  # type: ignore[arg-type]  # the stubs know no handlers that answer
    )
    if not _is_amazon(client.meta.endpoint_url):
        client.meta.events.register_last("before-parameter-build.s3", _stay_here)
    return client


def resolved() -> Access:
    """Return keys, endpoint, region and CA as boto3 would use them, for another library's client.

    Keys of a pod's identity expire: call this for each new client.

    Returns:
        Settings in force; ``endpoint_url`` is '' for AWS, and the keys are '' if boto3 finds none.

    Raises:
        InputError: A profile or a variable is wrong, or one of a pair of variables is missing.
    """
    import botocore.session

    ours = access.given()
    with explained("S3"):
        client = _connect()
        session = botocore.session.get_session()
        keys = None if ours.access_key_id else session.get_credentials()
        frozen = keys.get_frozen_credentials() if keys is not None else None
        ca_bundle = ours.ca_bundle or session.get_config_variable("ca_bundle") or ""
        endpoint, region = client.meta.endpoint_url, client.meta.region_name
        client.close()
    return Access(
        access_key_id=(frozen.access_key or "") if frozen else ours.access_key_id,
        secret_access_key=(frozen.secret_key or "") if frozen else ours.secret_access_key,
        session_token=(frozen.token or "") if frozen else ours.session_token,
        endpoint_url="" if _is_amazon(endpoint) else endpoint,
        region=region or "",
        ca_bundle=ca_bundle,
    )


def table_options() -> dict[str, str]:
    """Return the options with which the Delta Lake library reaches the store as boto3 does, with conditional puts.

    That library reads a CA from SSL_CERT_FILE alone, which is set if the store has its own.
    """
    variables = tuple(sorted(item for item in os.environ.items() if item[0].startswith(("AWS_", "ALFAMIX_S3_"))))
    settings = _resolved_in(int(time.monotonic() // _RESOLVED_SECONDS), variables)
    if settings.ca_bundle:
        os.environ["SSL_CERT_FILE"] = settings.ca_bundle
    options = {
        "aws_access_key_id": settings.access_key_id,
        "aws_secret_access_key": settings.secret_access_key,
        "aws_session_token": settings.session_token,
        "aws_region": settings.region or "us-east-1",
        # this name overrides the process's AWS_ENDPOINT_URL_S3
        "aws_endpoint_url_s3": settings.endpoint_url,
        "aws_conditional_put": "etag",
        "aws_virtual_hosted_style_request": "false" if settings.endpoint_url else "true",
        "allow_http": "true" if settings.endpoint_url.startswith("http:") else "false",
    }
    return {name: value for name, value in options.items() if value}


@functools.lru_cache(maxsize=1)
def _resolved_in(interval: int, variables: tuple[tuple[str, str], ...]) -> Access:
    """Resolve once per interval: keys of an identity expire, and a client costs a tenth of a second."""
    return resolved()


def _check_ca_bundle(path: str | None, variable: str) -> None:
    """Refuse an unusable file of certificates, before it looks like a network failure."""
    if path:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except OSError as error:  # also what ssl itself raises
            raise InputError(f"S3: {variable} {path} is not a file of certificates: {one_line(error)}") from error


@functools.cache
def _descriptions() -> object:
    """Return boto3's descriptions of the services: 80 ms of JSON, read once per process."""
    import botocore.session

    return botocore.session.get_session().get_component("data_loader")


def _only_where_none_is(params: dict[str, object], **_: object) -> dict[str, object]:
    return {**params, "IfNoneMatch": "*"}


def _stay_here(context: dict[str, Any], **_: object) -> None:
    """Keep boto3 from looking for the bucket in other regions, which never ends without an answer."""
    context.setdefault("s3_redirect", {})["redirected"] = True


def _is_amazon(endpoint: str) -> bool:
    return bool(_AMAZON.search(endpoint.split("://", 1)[-1].split("/", 1)[0].split(":", 1)[0]))
