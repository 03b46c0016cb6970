"""Which endpoint a ``chat`` task asks, and with which key: both are bound in the settings."""

import os
from urllib.parse import urlsplit

import httpx
import msgspec

from holdfast_worker.failures import TaskFailed
from service.executor.handlers.chat.request import ChatInput
from service.executor.handlers.reach import Reach
from service.executor.handlers.secrets import SecretRef, Secrets
from service.executor.handlers.web import checked_url, origin
from service.runtime.masking import KNOWN
from service.settings.config import ChatSettings


class Destination(msgspec.Struct, frozen=True):
    """Where a question goes, with which key, and what may be connected to on the way."""

    url: httpx.URL
    key: str | None
    reach: Reach


class Endpoints:
    """The endpoints of the settings; any other only where `executor.chat.any_url` allows it."""

    def __init__(self, settings: ChatSettings, secrets: Secrets, reach: Reach) -> None:
        self._settings = settings
        self._secrets = secrets
        self._reach = reach
        for each in settings.endpoints.values():
            password = urlsplit(each.base_url).password or ""
            KNOWN.know((os.environ.get(each.api_key_env, "").strip(), password))

    def complaint(self, wish: ChatInput) -> str | None:
        """Which field names what the settings do not have or allow; None: none does."""
        if wish.endpoint is None:
            if self._settings.any_url:
                return None
            return f"base_url: executor.chat.any_url is off; {self._choice()}"
        if wish.endpoint not in self._settings.endpoints:
            return f"endpoint: there is no {wish.endpoint!r} in the settings; {self._choice()}"
        return None

    def place(self, wish: ChatInput) -> Destination:
        """Where to ask; raises `TaskFailed`."""
        if complaint := self.complaint(wish):
            raise TaskFailed("bad_input", complaint, retryable=False)
        if wish.endpoint is None:
            url = _completions(wish.base_url or "")
            if isinstance(wish.api_key, SecretRef):
                return Destination(
                    url, self._secrets.resolved(wish.api_key, origin(url)), self._reach
                )
            return Destination(url, _of_variable(wish.api_key_env), self._reach)
        bound = self._settings.endpoints[wish.endpoint]
        url, anywhere = _completions(bound.base_url), Reach(anywhere=True)
        if bound.secret:
            key = self._secrets.resolved(SecretRef(bound.secret), origin(url))
            return Destination(url, key, anywhere)
        return Destination(url, _of_variable(bound.api_key_env or None), anywhere)

    def _choice(self) -> str:
        names = ", ".join(sorted(self._settings.endpoints)) or "none is configured"
        return f"name an endpoint of executor.chat.endpoints ({names})"


def _completions(base_url: str) -> httpx.URL:
    return checked_url(f"{base_url.rstrip('/')}/chat/completions")


def _of_variable(name: str | None) -> str | None:
    """The key in an environment variable; raises `TaskFailed` when there is none."""
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        how = "holds what cannot be a key" if key else "is not set where this runs"
        raise TaskFailed("bad_input", f"api_key_env: the variable {name} {how}", retryable=False)
    KNOWN.know([key])
    return key
