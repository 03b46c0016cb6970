"""Which files of the settings other accounts of the machine may use."""

from pathlib import Path

from service.runtime.private_files import open_to_others
from service.settings.config import Settings


def open_paths(settings: Settings) -> dict[str, str]:
    """Path and what others may do with it ("read" or "write"), of what is to be private."""
    nats, http = settings.nats, settings.http
    private: list[Path | None] = [
        settings.data_dir,
        settings.auth.tokens_file,
        http.tls_key,
        nats.creds_file,
        nats.nkey_file,
        nats.tls_key,
        *(secret.file for secret in settings.secrets.values()),
    ]
    found = {str(path): open_to_others(path) for path in private if path is not None}
    return {path: what for path, what in found.items() if what is not None}
