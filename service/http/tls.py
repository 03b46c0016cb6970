"""TLS of the API: one certificate and its key, from PEM files that are read at the start."""

import ssl

from service.settings.config import ConfigError, HttpSettings


def tls_of(settings: HttpSettings) -> ssl.SSLContext | None:
    """What connections are encrypted with; None: they are not.

    TLS 1.2 and newer with Python's choice of ciphers. Raises ConfigError, which shows no key.
    """
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without this callback a key with a passphrase would ask the terminal for it.
        context.load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ValueError) as error:
        reason = f"they cannot be used: {error}"
        raise ConfigError(f"http.tls_cert = {cert}, http.tls_key = {key}: {reason}") from None
    return context
