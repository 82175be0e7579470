"""S3's events that an object was made, as an SQS queue delivers them: at least once, in any order, or not at all.

An event is a hint to look, never the truth: the project itself says what is new. So a message is deleted once it was
read, and one that cannot be read is counted and deleted too, or it would return permanently.
"""

import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus, urlsplit

from alfamix_core.errors import InputError, StorageError
from alfamix_core.project import layout
from alfamix_core.storage import access

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_BATCH = 10  # SQS gives no more at a time
_FOR_A_PERSON = ("NonExistentQueue", "QueueDoesNotExist", "AccessDenied", "InvalidClientTokenId", "InvalidAddress")


def is_trigger(key: str) -> bool:
    """Return whether an object, by its key in the project, announces something new: a manifest or a label batch."""
    parts = key.split("/")
    if len(parts) == 3:
        return parts[0] + "/" == layout.DROPS and parts[2] == layout.MANIFEST_FILE
    return len(parts) == 2 and parts[0] + "/" == layout.LABELS and parts[1].endswith(".jsonl")


def keys_of(body: str, project_uri: str) -> set[str]:
    """Return the keys, relative to the project, of the manifests and label batches that a message names.

    Reads S3's own notifications, the same wrapped by SNS, and EventBridge's. A message about other objects or about
    deletions, and S3's test message, name none.

    Args:
        body: Text of the message.
        project_uri: URI of the project, s3://bucket/prefix.

    Raises:
        ValueError: The message is not an event of S3.
    """
    bucket, _, prefix = project_uri.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    keys = set()
    for event_bucket, key in _objects(_object(body)):
        if event_bucket == bucket and key.startswith(prefix) and is_trigger(key.removeprefix(prefix)):
            keys.add(key.removeprefix(prefix))
    return keys


def _object(body: str) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("must be a JSON object")
    return message


def _objects(message: dict[str, Any]) -> list[tuple[str, str]]:
    """Return bucket and key of each object that was made."""
    if message.get("Type") == "Notification" and isinstance(message.get("Message"), str):
        message = _object(message["Message"])
    try:
        if message.get("Event") == "s3:TestEvent":
            return []
        if "detail-type" in message:
            if message["detail-type"] != "Object Created":
                return []
            detail = message["detail"]
            return [(_text(detail["bucket"]["name"]), _text(detail["object"]["key"]))]
        return [
            (_text(record["s3"]["bucket"]["name"]), unquote_plus(_text(record["s3"]["object"]["key"])))
            for record in message["Records"]
            if _text(record["eventName"]).removeprefix("s3:").startswith("ObjectCreated:")
        ]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"is not an S3 event: {error}") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.50} must be text")
    return value


class Messages:
    """An SQS queue of S3 events. Endpoint, region and credentials come from where boto3 looks for them.

    If the URL is not Amazon's, its own host is the endpoint, unless AWS_ENDPOINT_URL_SQS names another.
    """

    def __init__(self, url: str) -> None:
        """Take the queue's URL.

        Raises:
            InputError: The URL is not that of a queue, or boto3 lacks something that a person must set.
        """
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or not parts.path.strip("/"):
            raise InputError(f'--sqs: must be the url of a queue, https://sqs.<region>.amazonaws.com/…, not "{url}"')
        host = parts.hostname or ""
        amazon = host.startswith("sqs.") and ".amazonaws." in host
        endpoint = os.environ.get("AWS_ENDPOINT_URL_SQS") or (None if amazon else f"{parts.scheme}://{parts.netloc}")
        region = host.split(".")[1] if amazon else os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
        self.url = url
        try:
            self._client: SQSClient = boto3.client(
                "sqs",
                region_name=region,
                endpoint_url=endpoint,
                **access.given().keys(),
                config=Config(connect_timeout=10, read_timeout=30, retries={"mode": "standard", "max_attempts": 3}),
            )
        except (BotoCoreError, ValueError) as error:
            raise InputError(f"--sqs: {' '.join(str(error).split())}") from None

    def receive(self, seconds: float) -> list[tuple[str, str]]:
        """Return body and receipt of at most ten messages; wait for the first, at most 20 seconds.

        Raises:
            InputError: The queue does not exist or may not be read.
            StorageError: It cannot be reached.
        """
        answer = self._ask("receive_message", MaxNumberOfMessages=_BATCH, WaitTimeSeconds=max(0, min(20, int(seconds))))
        return [(message.get("Body", ""), message["ReceiptHandle"]) for message in answer.get("Messages", ())]

    def delete(self, receipts: list[str]) -> None:
        """Delete messages that were received; one that cannot be deleted is delivered again.

        Raises:
            InputError: The queue may not be written.
            StorageError: It cannot be reached.
        """
        entries = [{"Id": str(index), "ReceiptHandle": receipt} for index, receipt in enumerate(receipts)]
        self._ask("delete_message_batch", Entries=entries)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, method: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            return getattr(self._client, method)(QueueUrl=self.url, **arguments)
        except ClientError as error:
            details = error.response.get("Error", {})
            line = f"{self.url}: {details.get('Code', '')}: {' '.join(str(details.get('Message', '')).split())}"
            if any(code in details.get("Code", "") for code in _FOR_A_PERSON):
                raise InputError(line) from None
            raise StorageError(line) from None
        except NoCredentialsError:
            raise InputError(f"{self.url}: no credentials; set AWS_ACCESS_KEY_ID or another source of them") from None
        except BotoCoreError as error:
            raise StorageError(f"{self.url} cannot be reached: {' '.join(str(error).split())}") from None
