"""TLS modes in PostgreSQL's terms, turned into an ``ssl.SSLContext`` for every driver."""

from __future__ import annotations

import ssl


def context(
    mode: str, *, ca: str | None = None, certificate: str | None = None, key: str | None = None
) -> ssl.SSLContext | str | None:
    """Return what a driver needs for ``mode``: ``None`` for plain text, a context, or ``allow``/``prefer``.

    ``require`` encrypts without checking the certificate, ``verify-ca`` checks who signed it,
    ``verify-full`` also checks the host name. The weaker two (``allow``, ``prefer``) may fall back to plain
    text and are left to the driver. Modes: PostgreSQL manual, "SSL Support", table 34.1.
    """
    if mode == "disable":
        return None
    if mode in ("allow", "prefer"):
        return mode
    made = ssl.create_default_context(cafile=ca)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.check_hostname = mode == "verify-full"
    if mode == "require":
        made.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        made.load_cert_chain(certificate, key)
    return made
