"""How Holdfast proves who it is to an external NATS, knows that server, and names things there."""

import importlib.util
import ssl
from pathlib import Path
from typing import Any

import msgspec

from streams.jetstream.names import Names


class Credentials(msgspec.Struct, frozen=True):
    """Files of credentials and certificates; none of them: what the URL says, and public CAs.

    ``creds_file`` is a user's JWT and seed as `nsc` writes them, ``nkey_file`` a seed alone.
    ``names`` are those of streams and subjects on that server.
    """

    creds_file: Path | None = None
    nkey_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    names: Names = Names()

    def complaint(self, url: str) -> tuple[str, str] | None:
        """The field that does not fit with the others or with ``url``, and why; None: all do."""
        given = {name: getattr(self, name) for name in _FILES}
        named = [name for name, path in given.items() if path is not None]
        for name in named:
            if not url:
                return name, "is for an external server and needs nats.url"
            if not given[name].is_file():
                return name, "must name a file that exists"
            if name.startswith("tls_") and "tls://" not in url:
                return name, "needs servers named as tls://host:port in nats.url"
        if complaint := self.names.complaint(url):
            return complaint
        if self.creds_file and self.nkey_file:
            return "nkey_file", "cannot stand beside nats.creds_file"
        if (self.tls_cert is None) != (self.tls_key is None):
            return "tls_cert", "must stand together with nats.tls_key"
        if (self.creds_file or self.nkey_file) and importlib.util.find_spec("nkeys") is None:
            field = "creds_file" if self.creds_file else "nkey_file"
            return field, "needs the package nkeys: pip install 'holdfast[nkeys]'"
        return None

    def options(self) -> dict[str, Any]:
        """The arguments of nats-py's `connect`. Raises ValueError for an unfit file."""
        found: dict[str, Any] = {}
        if self.creds_file is not None:
            found["user_credentials"] = str(self.creds_file)
        if self.nkey_file is not None:
            found["nkeys_seed"] = str(self.nkey_file)
        if self.tls_ca or self.tls_cert:
            found["tls"] = self._certificates()
        return found

    def _certificates(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert is not None:
                context.load_cert_chain(self.tls_cert, self.tls_key)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ValueError(f"the certificates of nats.tls_* cannot be used: {error}") from None
        return context


_FILES = ("creds_file", "nkey_file", "tls_ca", "tls_cert", "tls_key")
URL_ALONE = Credentials()
