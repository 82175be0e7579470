"""Credentials and address of the object store: variables of this package, before those of AWS.

In a Kubeflow pod the launcher moves Kubeflow's own artifacts in the container of the stage and reads the same AWS_*
variables, and an administrator's setting may replace AWS_CA_BUNDLE there. Pods therefore get variables that no other
program reads; without them AWS_*, a profile and the identity of the pod apply.
"""

import os
from dataclasses import dataclass, field
from typing import Any

from alfamix_core.errors import InputError

PREFIX = "ALFAMIX_S3_"
ACCESS_KEY_ID = f"{PREFIX}ACCESS_KEY_ID"
SECRET_ACCESS_KEY = f"{PREFIX}SECRET_ACCESS_KEY"
SESSION_TOKEN = f"{PREFIX}SESSION_TOKEN"
ENDPOINT_URL = f"{PREFIX}ENDPOINT_URL"
REGION = f"{PREFIX}REGION"
CA_BUNDLE = f"{PREFIX}CA_BUNDLE"


@dataclass(frozen=True)
class Access:
    """Settings of a client of S3; unknown ones are ''.

    Attributes:
        access_key_id: Access key; '' with an empty secret for an anonymous client.
        secret_access_key: Secret of the access key; never shown.
        session_token: Token of temporary credentials; never shown.
        endpoint_url: Address of a store other than AWS; '' for AWS.
        region: Region of the bucket.
        ca_bundle: File with the certificate authority of the store; '' for the usual ones.
    """

    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    endpoint_url: str = ""
    region: str = ""
    ca_bundle: str = ""

    def keys(self) -> dict[str, Any]:
        """Return the keys as arguments of ``boto3.client``, for any service; without any, boto3 looks for them."""
        return _without_empty(
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            aws_session_token=self.session_token,
        )

    def client_arguments(self) -> dict[str, Any]:
        """Return the known settings as arguments of ``boto3.client("s3")``; boto3 looks for the rest."""
        location = _without_empty(endpoint_url=self.endpoint_url, region_name=self.region, verify=self.ca_bundle)
        return {**self.keys(), **location}


def given() -> Access:
    """Return the settings of the variables ALFAMIX_S3_*.

    Raises:
        InputError: One half of a pair of keys is set without the other, or a session token without keys.
    """
    access = Access(
        access_key_id=os.environ.get(ACCESS_KEY_ID, ""),
        secret_access_key=os.environ.get(SECRET_ACCESS_KEY, ""),
        session_token=os.environ.get(SESSION_TOKEN, ""),
        endpoint_url=os.environ.get(ENDPOINT_URL, ""),
        region=os.environ.get(REGION, ""),
        ca_bundle=os.environ.get(CA_BUNDLE, ""),
    )
    if bool(access.access_key_id) != bool(access.secret_access_key):
        absent = SECRET_ACCESS_KEY if access.access_key_id else ACCESS_KEY_ID
        raise InputError(f"S3: {ACCESS_KEY_ID} and {SECRET_ACCESS_KEY} must be set together; {absent} is not")
    if access.session_token and not access.access_key_id:
        raise InputError(f"S3: {SESSION_TOKEN} belongs to keys, and {ACCESS_KEY_ID} is not set")
    return access


def _without_empty(**values: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
