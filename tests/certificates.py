"""Certificates for tests, made by the openssl program."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Issued(NamedTuple):
    """Hold a certificate and its private key, in PEM."""

    certificate: str
    key: str


class Authority:
    """Sign certificates; ``certificate`` is the file that a client trusts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.certificate = folder / "ca.pem"
        usage = "keyUsage=critical,keyCertSign,cRLSign"
        name = ("-subj", "/CN=authority of the tests", "-addext", usage, "-days", "2")
        self._openssl("req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.pem", *name)

    def issue(self, subject: str, *, days: int = 2) -> Issued:
        """Return a certificate for a subject such as ``IP:127.0.0.1``; it expired if ``days`` is negative."""
        (self._folder / "extensions").write_text(f"subjectAltName={subject}\nauthorityKeyIdentifier=keyid\n")
        self._openssl("req", *_KEY, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=server")
        signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extensions")
        lifetime = ("-days", str(days))
        self._openssl("x509", "-req", "-in", "request.pem", "-out", "certificate.pem", *signer, *lifetime)
        made = [(self._folder / name).read_text() for name in ("certificate.pem", "key.pem")]
        return Issued(*made)

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._folder, check=True, capture_output=True, timeout=60)


def missing() -> bool:
    """Tell whether there is no openssl program."""
    return shutil.which("openssl") is None
