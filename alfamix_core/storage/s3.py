"""A store in a bucket of S3, or of a server that speaks its protocol.

A tag is the ETag. Every write has its own token in the metadata: if a condition fails, the token of the stored object
distinguishes a successful write whose answer was lost from another writer's.

Objects of create_from have their SHA-256 in the metadata, which every full read verifies; others have the checksums of
boto3. A killed upload of a large file leaves its parts behind, invisible but paid for: ``unfinished_uploads`` finds
them, and so does a lifecycle rule AbortIncompleteMultipartUpload.
"""

import hashlib
import io
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from alfamix_core.errors import InputError, StorageError, one_line
from alfamix_core.storage.connection import (
    SHA256,
    Connection,
    Download,
    Location,
    attempts,
    code_of,
    explained,
    pause,
    table_options,
)
from alfamix_core.storage.folder import landing
from alfamix_core.storage.store import BUFFER, Entry, Store, Stored, Upload, is_valid_key, valid_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

_TOKEN = "write"  # in the metadata: identity of one write
_PART_BYTES = 16 * 2**20  # a smaller file takes one request; S3 allows 10,000 parts, boto3 enlarges them


class S3Store(Store):
    """A store below one prefix of one bucket."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        super().__init__(f"s3://{bucket}/{prefix}".removesuffix("/"))
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._connection = Connection()
        self._is_checked = False

    def __reduce__(self) -> tuple[type["S3Store"], tuple[str, str]]:
        return S3Store, (self._bucket, self._prefix.removesuffix("/"))

    def close(self) -> None:
        self._connection.close()

    def uri_of(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._location(key)['Key']}"

    def table(self, key: str) -> tuple[str, dict[str, str]]:
        return self.uri_of(key), table_options()

    def read(self, key: str) -> Stored:
        with self._download(key) as download:
            return Stored(download.read_whole(), download.tag)

    def create(self, key: str, data: bytes) -> str:
        client, token = self._client(), _new_token()
        tag = self._write(
            key,
            token,
            lambda: client.put_object(**self._location(key), Body=data, Metadata={_TOKEN: token}, IfNoneMatch="*")[
                "ETag"
            ],
        )
        if tag is None:
            raise self._exists(key)
        return tag

    def mark(self, key: str) -> None:
        self.create(key, b"")

    def swap(self, key: str, data: bytes, tag: str) -> str:
        client, token = self._client(), _new_token()
        new = self._write(
            key,
            token,
            lambda: client.put_object(**self._location(key), Body=data, Metadata={_TOKEN: token}, IfMatch=tag)["ETag"],
        )
        if new is None:
            raise self._changed(key)
        return new

    def _create_from(self, key: str, source: BinaryIO) -> str:
        try:
            digest = hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]  # any file will do
            size = source.tell()
            # look for a large file first, so that a repetition costs nothing
            if size < _PART_BYTES or (head := self._head(key)) is None:
                if self._upload(key, source, digest, size):
                    return digest
                head = self._head(key)
        except OSError as error:
            raise StorageError(f"{self.uri_of(key)}: its source: {error.strerror or one_line(error)}") from error
        if head is None:
            raise StorageError(f"{self.uri_of(key)} was removed while it was written")
        if head["ContentLength"] != size or (head["Metadata"].get(SHA256) or self.sha256(key)) != digest:
            raise self._is_other(key)
        return digest

    def _upload(self, key: str, stream: BinaryIO, digest: str, size: int) -> bool:
        """Upload a file under a free name; return False if it is taken."""
        from boto3.s3.transfer import TransferConfig

        client, token = self._client(), _new_token()
        metadata = {_TOKEN: token, SHA256: digest}

        def put() -> str:
            stream.seek(0)
            return client.put_object(**self._location(key), Body=stream.read(), Metadata=metadata, IfNoneMatch="*")[
                "ETag"
            ]

        def put_parts() -> str:
            stream.seek(0)
            client.upload_fileobj(
                stream,
                **self._location(key),
                ExtraArgs={"Metadata": metadata},
                Config=TransferConfig(multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES),
            )
            return ""

        return self._write(key, token, put if size < _PART_BYTES else put_parts) is not None

    def open(self, key: str) -> io.BufferedReader:
        return io.BufferedReader(self._download(key), BUFFER)

    def fetch(self, key: str, path: Path) -> None:
        with self.open(key) as stream:
            try:
                with landing(path) as temporary, temporary.open("wb") as out:
                    shutil.copyfileobj(stream, out, BUFFER)
            except OSError as error:
                raise StorageError(f"{path}: {error.strerror or one_line(error)}") from error

    def entry(self, key: str) -> Entry | None:
        head = self._head(key)
        return None if head is None else Entry(key, head["ContentLength"], _unquoted(head["ETag"]))

    def modified(self, key: str) -> datetime | None:
        head = self._head(key)
        return None if head is None else head["LastModified"]

    def _list(self, folder: str) -> Iterator[Entry]:
        objects = list_objects(self._client(), self._bucket, self._prefix + folder)
        yield from (replace(item, key=item.key.removeprefix(self._prefix)) for item in objects)

    def _children(self, folder: str) -> Iterator[tuple[str, bool]]:
        client, prefix = self._client(), self._prefix + folder
        children = []
        with explained(f"s3://{self._bucket}/{prefix}", client):
            for page in client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix, Delimiter="/"
            ):
                children += [(item["Prefix"][len(prefix) : -1], True) for item in page.get("CommonPrefixes", [])]
                children += [(item["Key"][len(prefix) :], False) for item in page.get("Contents", [])]
        yield from (child for child in children if child != ("", False))  # the folder's own marker

    def delete(self, key: str) -> None:
        client = self._client()
        with explained(self.uri_of(key), client):
            client.delete_object(**self._location(key))

    def clock(self) -> datetime | None:
        """Return the time of an answer by its Date header; None if that cannot be read."""
        client = self._client()
        with explained(self.uri, client):
            answer = client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
        try:
            time = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        except (KeyError, ValueError):
            return None
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)

    def unfinished_uploads(self) -> list[Upload]:
        """Return the unfinished uploads below the prefix; none if they cannot be listed."""
        client = self._client()
        uploads: list[Upload] = []
        try:
            with explained(self.uri, client):
                pages = client.get_paginator("list_multipart_uploads").paginate(
                    Bucket=self._bucket, Prefix=self._prefix
                )
                for page in pages:
                    for upload in page.get("Uploads", []):
                        key = upload["Key"].removeprefix(self._prefix)
                        if upload["Key"].startswith(self._prefix) and is_valid_key(key):
                            uploads.append(Upload(key, upload["UploadId"], upload["Initiated"]))
        except InputError:
            return []  # the store lacks such a listing, or does not allow it
        return sorted(uploads)

    def abort_upload(self, upload: Upload) -> None:
        """Remove the parts of an unfinished upload; one that is gone or finished is no error."""
        from botocore.exceptions import ClientError

        client = self._client()
        with explained(self.uri_of(upload.key), client):
            try:
                client.abort_multipart_upload(**self._location(upload.key), UploadId=upload.upload_id)
            except ClientError as error:
                if code_of(error) not in ("NoSuchUpload", "404"):
                    raise

    def _client(self) -> "S3Client":
        """Return the client; its first use checks that the bucket exists and may be listed.

        A HEAD would not say why not, and some servers make a missing bucket at the first write.
        """
        client = self._connection.client()
        if not self._is_checked:
            with explained(self.uri, client):
                client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
            self._is_checked = True
        return client

    def _location(self, key: str) -> Location:
        return {"Bucket": self._bucket, "Key": self._prefix + valid_key(key)}

    def _download(self, key: str) -> Download:
        return Download(self._client(), self._location(key))

    def _write(self, key: str, token: str, write: Callable[[], str]) -> str | None:
        """Do a conditional write and return its tag; None if the condition did not hold."""
        from botocore.exceptions import ClientError

        client = self._client()
        with explained(self.uri_of(key), client):
            for attempt in range(1, attempts(client) + 1):
                try:
                    return write()
                except ClientError as error:
                    code = code_of(error)
                    if code == "ConditionalRequestConflict" and attempt < attempts(client):
                        pause(attempt)  # another write was in progress; S3 asks to try again
                    elif code in ("PreconditionFailed", "412", "NoSuchKey", "NoSuchUpload"):
                        return self._tag_of_own(key, token)
                    else:
                        raise
        raise AssertionError("the last attempt returns or raises")

    def _tag_of_own(self, key: str, token: str) -> str | None:
        head = self._head(key)
        return head["ETag"] if head and head["Metadata"].get(_TOKEN) == token else None

    def _head(self, key: str) -> "HeadObjectOutputTypeDef | None":
        from botocore.exceptions import ClientError

        client = self._client()
        with explained(self.uri_of(key), client):
            try:
                return client.head_object(**self._location(key))
            except ClientError as error:
                if code_of(error) in ("404", "NoSuchKey"):
                    return None
                raise


def list_objects(client: "S3Client", bucket: str, prefix: str) -> Iterator[Entry]:
    """Yield the objects below a prefix, in the order of their keys' UTF-8 bytes; a key is that in the bucket.

    Markers of folders (keys with a slash at the end) are left out. The whole listing is read before the first
    is yielded, about 0.4 kB per key: servers disagree about the order.
    """
    with explained(f"s3://{bucket}/{prefix}", client):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        entries = [
            Entry(item["Key"], item["Size"], _unquoted(item["ETag"]))
            for page in pages
            for item in page.get("Contents", [])
        ]
    yield from sorted((entry for entry in entries if not entry.key.endswith("/")), key=lambda entry: entry.key.encode())


def _unquoted(etag: str) -> str:
    """Return an ETag without quotes: some servers quote it in headers and not in listings."""
    return etag.strip('"')


def _new_token() -> str:
    return uuid.uuid4().hex
