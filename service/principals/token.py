"""What a token looks like: ``hf_<id>_<secret>``; the id finds it, the secret proves it."""

import base64
import hashlib
import re
import secrets

import msgspec

SECRET_BYTES = 32

split_token = re.compile(rb"hf_([0-9a-z]{8})_([A-Za-z0-9_-]{43})").fullmatch
"""The id and the secret of a token; a secret has 256 bits, so none that a person chose fits."""


class NewToken(msgspec.Struct, frozen=True):
    """A token that was just made. ``token`` is shown once; ``sha256`` is what the file keeps."""

    id: str
    token: str
    sha256: str

    def __repr__(self) -> str:
        """The id only."""
        return f"NewToken({self.id})"


def new_token() -> NewToken:
    """A token that no other token equals."""
    token_id, secret = secrets.token_hex(4), secrets.token_urlsafe(SECRET_BYTES)
    return NewToken(token_id, f"hf_{token_id}_{secret}", digest_of(secret.encode()).hex())


def digest_of(secret: bytes) -> bytes:
    """The SHA-256 of a secret's text."""
    return hashlib.sha256(secret).digest()


def bytes_of(secret: bytes) -> bytes:
    """The 32 bytes that a secret's text stands for."""
    return base64.urlsafe_b64decode(secret + b"=")


def text_of(secret: bytes) -> bytes:
    """The text of a secret's 32 bytes; the reverse of `bytes_of`."""
    return base64.urlsafe_b64encode(secret).rstrip(b"=")
