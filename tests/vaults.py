"""Servers that speak the protocols of Vault and of AWS Secrets Manager, for the real clients to talk to.

Written from the published protocols: none of the real ones is run here. Each answers in threads of its own,
and keeps what it was asked.
"""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, NamedTuple, TypeVar

import pytest

from tests.servers.passwords import CANARY

TOKEN = f"hvs.{CANARY}-token"
SECRET_ID = f"{CANARY}-secret-id"
KEY_ID, SECRET_KEY, SESSION_TOKEN = "AKIDEXAMPLE", f"{CANARY}-secret-key", f"{CANARY}-session-token"

_SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/\d{8}/eu-test-1/secretsmanager/aws4_request, "
    r"SignedHeaders=[a-z0-9;-]*host;x-amz-date[a-z0-9;-]*, Signature=[0-9a-f]{64}"
)


class Asked(NamedTuple):
    """Hold one request."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Spoken:
    """Answer over HTTP on a free port; while ``slow`` is set, only after so many seconds."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.slow = 0.0
        self.turn = threading.Lock()  # held by a test that changes two things at once
        handler = type("Handler", (_Handler,), {"spoken": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, asked: Asked) -> tuple[int, Any]:
        """Return status and body."""
        raise NotImplementedError

    def reset(self) -> None:
        """Be as at the beginning."""
        self.__dict__.update(asked=[], slow=0.0)

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    spoken: ClassVar[Any]

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        self.spoken.asked.append(asked)
        time.sleep(self.spoken.slow)
        with self.spoken.turn:
            status, answer = self.spoken.answer(asked)
        text = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status == 307:
                self.send_header("Location", self.spoken.redirect)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        except OSError:  # who asked has gone
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Vault(Spoken):
    """Vault's HTTP API as far as reading goes: KV 1 and 2, credentials on lease, and two ways to log in."""

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        super().reset()
        self.tokens = {TOKEN}
        self.kv: dict[str, dict[str, Any]] = {}  # of version 2, by the path with data/
        self.kv1: dict[str, dict[str, Any]] = {}
        self.leases: dict[str, list[tuple[str, str]]] = {}  # users and passwords to give out, by path
        self.lease = 3600
        self.sealed = False
        self.redirect = ""
        self.life = 1200  # of a token that somebody logs in for
        self.logins = 0

    def answer(self, asked: Asked) -> tuple[int, Any]:
        path = asked.path.removeprefix("/v1/")
        if self.redirect:
            return 307, None
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if path.endswith("/login") and asked.method == "POST":
            return self._log_in(path, asked.body)
        if asked.headers.get("x-vault-token") not in self.tokens:
            return 403, {"errors": ["permission denied"]}
        if path in self.kv:
            version = {"version": 1, "created_time": "2026-01-01T00:00:00Z", "deletion_time": ""}
            return 200, _said({"data": self.kv[path], "metadata": {**version, "destroyed": False}})
        if path in self.kv1:
            return 200, _said(self.kv1[path], seconds=2764800)
        if self.leases.get(path):
            user, password = self.leases[path].pop(0)
            data = {"username": user, "password": password}
            return 200, _said(data, f"{path}/{len(self.asked)}", self.lease)
        return 404, {"errors": []}

    def _log_in(self, path: str, body: dict[str, str]) -> tuple[int, Any]:
        known = {
            "auth/approle/login": {"role_id": "router", "secret_id": SECRET_ID},
            "auth/kubernetes/login": {"role": "router", "jwt": SECRET_ID},
        }
        if known.get(path) != body:
            return 400, {"errors": ["invalid role or secret ID"]}
        self.logins += 1
        token = f"{TOKEN}-{self.logins}"
        self.tokens.add(token)
        auth = {"client_token": token, "lease_duration": self.life, "renewable": True, "policies": ["app"]}
        return 200, {**_said(None), "auth": auth}


def _said(data: Any, lease: str = "", seconds: int = 0) -> dict[str, Any]:
    return {
        "request_id": "5ecre7",
        "lease_id": lease,
        "renewable": bool(lease),
        "lease_duration": seconds,
        "data": data,
        "wrap_info": None,
        "warnings": None,
        "auth": None,
    }


class Aws(Spoken):
    """GetSecretValue of AWS Secrets Manager: JSON 1.1, and only for who signs."""

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        super().reset()
        self.secrets: dict[str, str | bytes] = {}
        self.refusal = ""

    def answer(self, asked: Asked) -> tuple[int, Any]:
        if asked.headers.get("x-amz-target") != "secretsmanager.GetSecretValue":
            return 400, {"__type": "UnknownOperationException"}
        signed = _SIGNED.fullmatch(asked.headers.get("authorization", ""))
        if signed is None or "x-amz-date" not in asked.headers:
            return 400, {"__type": "MissingAuthenticationTokenException", "Message": "not signed"}
        if self.refusal:
            return 400, {"__type": self.refusal, "Message": f"no, {CANARY}"}
        name = asked.body["SecretId"]
        if name not in self.secrets:
            return 400, {"__type": "ResourceNotFoundException", "Message": "can't find it"}
        value = self.secrets[name]
        kept = {"SecretString": value} if isinstance(value, str) else {"SecretBinary": "AAE="}
        return 200, {"Name": name, "VersionId": "1", "VersionStages": ["AWSCURRENT"], **kept}


def aws_keys(patch: pytest.MonkeyPatch) -> None:
    """Let boto3 find the keys of a test, and nothing else of this machine."""
    keys = {"ACCESS_KEY_ID": KEY_ID, "SECRET_ACCESS_KEY": SECRET_KEY, "SESSION_TOKEN": SESSION_TOKEN}
    for name, value in keys.items():
        patch.setenv(f"AWS_{name}", value)
    for name in ("REGION", "DEFAULT_REGION", "PROFILE"):
        patch.delenv(f"AWS_{name}", raising=False)
    for name in ("CONFIG_FILE", "SHARED_CREDENTIALS_FILE"):
        patch.setenv(f"AWS_{name}", "/nowhere")


S = TypeVar("S", bound=Spoken)


@contextmanager
def running(spoken: S) -> Iterator[S]:
    """Let a server run for a while."""
    try:
        yield spoken
    finally:
        spoken.close()
