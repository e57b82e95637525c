"""Modules that tests run inside rendered services, in the environments of those."""
