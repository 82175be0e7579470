"""The SDK's client with limits.

By itself the client waits permanently for a server that does not answer, tries a refused login five times, prints links
among our output, keeps a namespace in a file, and reads a login page as an empty list; here it does not.
"""

import contextlib
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api as api
import urllib3
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

from alfamix_core.errors import InputError, StorageError, one_line

ENDPOINT = "KF_PIPELINES_ENDPOINT"
TOKEN = "ALFAMIX_KUBEFLOW_TOKEN"
"""A bearer token; without it the pod's own, at $KF_PIPELINES_SA_TOKEN_PATH, where that is mounted."""
CA = "ALFAMIX_KUBEFLOW_CA"
"""A file with the certificate authority of the API, if the system does not know it."""

_POD_TOKEN_PATH = "KF_PIPELINES_SA_TOKEN_PATH"
_POD_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"
_SECONDS = (10, 60)  # to connect, without a byte


class Client(kfp.Client):  # type: ignore[misc]  # kfp has no types
    """The SDK's client with a time limit on each request and a check of each answer."""

    def get_kfp_healthz(self, sleep_duration: int = 0) -> api.V2beta1GetHealthzResponse:
        """Ask once; the caller asks again."""
        self.guard()  # the constructor asks this first
        return self._healthz_api.healthz_service_get_healthz()

    def set_user_namespace(self, namespace: str) -> None:
        """Take the namespace for this client alone, without a file in the home folder."""
        self._context_setting["namespace"] = namespace

    def guard(self) -> None:
        """Send every request through ``_guarded``."""
        rest = self._run_api.api_client.rest_client
        if not getattr(rest.request, "guarded", False):
            rest.request = _guarded(rest.request)


def connect(endpoint: str, namespace: str) -> Client:
    """Return a client; token and certificate authority come from the environment.

    Args:
        endpoint: Address of the API, without a slash at its end.
        namespace: Namespace on a multi-user Kubeflow, '' for the pod's own or none.
    """
    token = os.environ.get(TOKEN)
    pod_token = os.environ.get(_POD_TOKEN_PATH, _POD_TOKEN)
    from_pod = not token and Path(pod_token).exists()
    with errors(endpoint), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "only works with v2.0.0-beta.2 and later"
        client = Client(
            endpoint,
            existing_token=token,
            credentials=ServiceAccountTokenVolumeCredentials(pod_token) if from_pod else None,
            ssl_ca_cert=os.environ.get(CA),
            **({"namespace": namespace} if namespace else {}),
        )
        client.guard()
    return client


@contextlib.contextmanager
def errors(endpoint: str) -> Iterator[None]:
    """Turn what the client raises into our errors, and keep what it prints out of our output.

    The client checks little of what it reads, so that an answer of another shape causes one of Python's own errors, in
    the client or in our code that reads the answer; both stand in this block.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except api.ApiException as error:
        message = _message(error)
        if error.status in (401, 403):
            raise InputError(
                f"{endpoint} refused the login (HTTP {error.status}): set ${TOKEN} to a valid token; {message}"
            ) from None
        if error.status and 400 <= error.status < 500 and error.status not in (408, 429):
            raise InputError(f"{endpoint} refused (HTTP {error.status}): {message}") from None
        status = f"HTTP {error.status}: " if error.status else ""
        raise StorageError(f"{endpoint} failed: {status}{message}") from None
    except urllib3.exceptions.HTTPError as error:
        raise StorageError(f"{endpoint} cannot be reached: {getattr(error, 'reason', None) or error}") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise stranger(endpoint, str(error)) from error


def stranger(endpoint: str, reason: str) -> StorageError:
    """Return the error for an answer that the Kubeflow API does not give.

    Args:
        endpoint: Address of the API.
        reason: What is wrong with the answer.
    """
    reason = one_line(reason)[:200]
    return StorageError(
        f"{endpoint}: the answer is not one of the Kubeflow API ({reason}); is there a login page in front of it, or "
        "has the token expired?"
    )


def text(answer: Any, name: str) -> str:
    """Return a field of an answer that must be there and be text.

    Args:
        answer: Model of the client, or JSON.
        name: Name of the field, such as run_id.

    Raises:
        ValueError: The field is missing, empty or of another type.
    """
    value = answer.get(name) if isinstance(answer, dict) else getattr(answer, name, None)
    if not value or not isinstance(value, str):
        raise ValueError(f"it has no {name}")
    return value


def _message(error: api.ApiException) -> str:
    """Return the API's own words for an error, on one line."""
    try:
        body = json.loads(error.body)
        message = body.get("message") or body.get("error") or error.reason
    except (ValueError, TypeError, AttributeError):
        message = error.body if isinstance(error.body, str) and error.body else error.reason
    return one_line(message)[:500]


def _guarded(request: Callable[..., Any]) -> Callable[..., Any]:
    """Return the client's request with a time limit, which it lacks, and a check of the answer."""

    def guarded(method: str, *arguments: Any, _request_timeout: Any = None, **named: Any) -> Any:
        try:
            response = request(method, *arguments, _request_timeout=_request_timeout or _SECONDS, **named)
        except api.ApiException as error:
            # the client decodes the body, whatever it is
            error.body = (error.body or b"").decode("utf-8", "replace").encode()
            raise
        if (response.data or method == "GET") and not isinstance(json.loads(response.data), dict):
            raise ValueError("it is JSON and no object")
        return response

    guarded.guarded = True  # type: ignore[attr-defined]
    return guarded
