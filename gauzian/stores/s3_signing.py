"""URLs that carry their own permission: presigned by minio's signer, which does no I/O."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from minio.credentials.credentials import Credentials
from minio.signer import presign_v4
from yarl import URL

# The signature is checked when a request begins: this only has to cover clocks that disagree.
_EXPIRES_SECONDS = 3600
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Signer:
    """For one bucket. Path-style addresses (endpoint/bucket/key): every S3 knows them."""

    def __init__(self, *, endpoint: str, access_key: str, secret_key: str, bucket: str, region: str) -> None:
        parts = urlsplit(endpoint if "//" in endpoint else f"https://{endpoint}")
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.path.strip("/"):
            raise ValueError("an S3 endpoint is http://host[:port] or https://host[:port]")
        self._scheme = parts.scheme
        self._host = parts.netloc.rpartition("@")[2]
        if parts.port == _DEFAULT_PORTS[parts.scheme]:
            self._host = self._host.rpartition(":")[0]  # aiohttp leaves it out of Host, and Host is signed
        self._bucket = bucket
        self._region = region
        self._credentials = Credentials(access_key, secret_key)

    def url(self, method: str, key: str = "", **query: str) -> URL:
        """Of an object, or without `key` of the bucket itself. Names in `query` have _ for -."""
        path = f"/{self._bucket}/{key}" if key else f"/{self._bucket}"
        fields = "&".join(f"{name.replace('_', '-')}={quote(value, safe='')}" for name, value in sorted(query.items()))
        signed = presign_v4(
            method=method,
            url=SplitResult(self._scheme, self._host, path, fields, ""),
            region=self._region,
            credentials=self._credentials,
            date=datetime.now(UTC),
            expires=_EXPIRES_SECONDS,
        )
        return URL(urlunsplit(signed), encoded=True)
