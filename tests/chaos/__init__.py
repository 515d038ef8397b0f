"""What happens to requests while servers die, hang and change roles: ``python -m tests.chaos``."""
