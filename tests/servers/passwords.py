"""Passwords of the test servers: new in every run, all with one canary that must never show up anywhere."""

import secrets

CANARY = "canary-5ecre7"
"""Part of every password; a log, repr, event or exception that holds it leaks a password."""

USERS = ("admin", "router_app", "router_ro", "router_monitor", "router_replication")
"""Whom the scripts under config/servers create on every engine that has users."""


def new_password() -> str:
    """Return a fresh password that holds the canary, of letters that need no quoting in SQL or a shell."""
    return f"{CANARY}-{secrets.token_hex(8)}"


def variables(passwords: dict[str, str]) -> dict[str, str]:
    """Return the passwords as the environment variables that the scripts under config/servers read."""
    names = {user: user.removeprefix("router_").upper() for user in passwords}
    return {f"ROUTER_{names[user]}_PASSWORD": password for user, password in passwords.items()}
