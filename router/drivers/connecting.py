"""Connect as who the login is now; if the server refuses that, look once whether it is another by now."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from router.drivers.driver import Connection, Credential, Driver, Endpoint, Login
from router.errors import AuthenticationFailed


async def connect(
    driver: Driver, endpoint: Endpoint, timeout: float, clock: Callable[[], float] = time.monotonic
) -> Connection:
    """Return a connection within ``timeout`` seconds, which expires with what it was opened with.

    Raises what the driver raises, and SecretUnavailable.
    """
    account = endpoint.login.account
    if account is None:
        return await driver.connect(endpoint, timeout)
    end = clock() + timeout
    credential = await account.fetch()
    try:
        return await _connect(driver, endpoint, credential, end - clock())
    except Exception as exc:
        if not isinstance(driver.translate(exc), AuthenticationFailed):
            raise
        renewed = await account.renew(credential)
        if renewed is None:
            raise
    return await _connect(driver, endpoint, renewed, end - clock())


async def _connect(driver: Driver, endpoint: Endpoint, credential: Credential, left: float) -> Connection:
    async def password() -> str:
        return credential.password.reveal()

    login = Login(credential.username, password)
    connection = await driver.connect(replace(endpoint, login=login), max(left, 0.001))
    connection.expires_at = credential.until
    return connection
