"""GAUZIAN: the backend of a self-hosted, end-to-end-encrypted drive."""

__version__ = "0.1.0"
