"""AWS Secrets Manager as a store of secrets, through boto3."""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import Any

from router.config.secret import Secret
from router.config.stores import AwsConfig
from router.stores.asking import Threads, hush
from router.stores.store import Answer, Unanswered

_CLIENTS = ("boto3", "botocore", "urllib3")  # whose loggers say at DEBUG what is sent and answered
_SAID = {
    "AccessDeniedException": "permission denied: the role may not secretsmanager:GetSecretValue here",
    "ConnectTimeoutError": "it does not answer in time",
    "DecryptionFailure": "its key may not be used: kms:Decrypt is missing",
    "EndpointConnectionError": "it cannot be reached",
    "NoCredentialsError": "boto3 finds no credentials of AWS",
    "NoRegionError": "no region is known. Write secrets.aws.region, or set AWS_REGION",
    "ProfileNotFound": "the profile is not in the files of AWS",
    "ReadTimeoutError": "it does not answer in time",
    "ResourceNotFoundException": "nothing is there",
    "ThrottlingException": "it asks to be asked less often",
}


class Aws:
    """Read from one region."""

    def __init__(self, config: AwsConfig) -> None:
        self._config = config
        self._threads = Threads()
        self._client: Any = None

    async def prepare(self, timeout: float) -> Unanswered | None:
        """Make the client, in a thread: boto3 takes its time for it."""
        return await self._threads.ask("boto3", partial(self._make, timeout))

    async def read(self, path: str, timeout: float) -> Answer | Unanswered:
        """Return the secret of this name or ARN, with the fields of its JSON text."""
        return await self._threads.ask(path, partial(self._read, path))

    def close(self) -> None:
        """Close the client's connections."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    # --- in a thread -------------------------------------------------------------------------------------

    def _read(self, path: str) -> Answer | Unanswered:
        try:
            got = self._client.get_secret_value(SecretId=path)
        except Exception as exc:  # it goes no further: its frames hold keys, and its text may
            return _said(exc)
        text = got.get("SecretString")
        return _answer(text) if isinstance(text, str) else Unanswered("it is bytes, not text")

    def _make(self, timeout: float) -> Unanswered | None:
        try:
            self._client = _client(self._config, timeout)
        except Exception as exc:
            return _said(exc)
        return None


def _client(config: AwsConfig, timeout: float) -> Any:
    import boto3
    from botocore.config import Config

    _hush()  # before credentials are looked for
    session = boto3.session.Session(profile_name=config.profile, region_name=config.region)
    # who asks again is the keeper
    bounds = Config(connect_timeout=timeout, read_timeout=timeout, retries={"total_max_attempts": 1})
    client = session.client("secretsmanager", endpoint_url=config.endpoint, config=bounds)
    _hush()  # what making it has brought
    return client


def _hush() -> None:
    hush(name for name in list(logging.root.manager.loggerDict) if name.partition(".")[0] in _CLIENTS)


def _said(exc: Exception) -> Unanswered:
    response = getattr(exc, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    name = code if isinstance(code, str) and code.isidentifier() else type(exc).__name__
    return Unanswered(_SAID.get(name, f"the request failed ({name})"))


def _answer(text: str) -> Answer:
    fields: dict[str, Secret] = {}
    try:
        data = json.loads(text)
    except ValueError:  # a password that is no JSON: its text repeats it
        data = None
    if isinstance(data, dict):
        fields = {
            name: Secret(str(value))
            for name, value in data.items()
            if isinstance(value, str | int) and not isinstance(value, bool)
        }
    return Answer(fields, Secret(text))
