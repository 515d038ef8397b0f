"""Stores of secrets: Vault or OpenBao, AWS Secrets Manager, functions of the application; what they gave."""
