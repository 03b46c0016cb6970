"""Session cookies: a signed-in browser's credential, which every instance can check without state.

A cookie is ``<token id>.<expiry>.<proof>``. The proof is the token's secret, masked with the HMAC
of id and expiry under the SHA-256 that the tokens file keeps. To check it, an instance removes the
mask and compares the SHA-256 of the secret. So the tokens file alone forges no cookie, a stolen
cookie alone yields no token, and neither id nor expiry can be changed.
"""

import hashlib
import hmac
import re

from service.principals.principal import Principal
from service.principals.token import SECRET_BYTES, bytes_of, digest_of, text_of

split_session = re.compile(rb"([0-9a-z]{8})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})").fullmatch


def session_of(principal: Principal, secret: bytes, expires_at: int) -> bytes:
    """The cookie's value for a token's secret, valid until ``expires_at`` (seconds)."""
    claim = b"%b.%d" % (principal.id.encode(), expires_at)
    masked = _xor(bytes_of(secret), _mask(principal, claim))
    return b"%b.%b" % (claim, text_of(masked))


def proves(principal: Principal, value: bytes) -> bool:
    """Whether the cookie's value was made with the principal's secret. It may have expired."""
    claim, _, proof = value.rpartition(b".")
    secret = text_of(_xor(bytes_of(proof), _mask(principal, claim)))
    return hmac.compare_digest(digest_of(secret), principal.digest)


def _mask(principal: Principal, claim: bytes) -> bytes:
    return hmac.digest(principal.digest, b"holdfast session " + claim, hashlib.sha256)


def _xor(left: bytes, right: bytes) -> bytes:
    number = int.from_bytes(left) ^ int.from_bytes(right)
    return number.to_bytes(SECRET_BYTES)
