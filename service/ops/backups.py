"""Backups: a folder with copies of both streams and of the read models, which fit each other.

The read models are copied first and the log after them, so that the log is never behind. Each
file's SHA-256 stands in the manifest, which is written last: a folder without one is no backup.
A backup of the read models alone spares another instance on the same log the fold from sequence 1.
"""

import asyncio
import hashlib
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec

from projections.read_models.copies import bind, copy_of
from service.runtime.data_folder import READ_MODELS, DataFolder, DataFolderBusy
from service.runtime.nats_server.credentials import user_url
from service.runtime.nats_server.embedded import STORE_FOLDER, EmbeddedServer, log_of_running
from service.settings.config import Settings
from streams.jetstream.connection import Connection
from streams.jetstream.permissions import MAINTENANCE
from streams.jetstream.snapshots import CHUNK_BYTES, StreamCopy, StreamSnapshot, restore_stream
from streams.jetstream.topology import epoch_of, info_of
from streams.json_values import UNREADABLE
from streams.log import LogReset

MANIFEST = "manifest.json"
FORMAT = 1
CONNECT_TIMEOUT_S = 10.0
API_TIMEOUT_S = 5.0

LOOK_EVERY_S = 1.0
READ_MODELS_PART = "read models"  # what `OnProgress` calls them

OnProgress = Callable[[str, int], None]
"""Called with the file that is being copied, and how many bytes of it are done."""


class BackupError(Exception):
    """No backup was made or restored; the message says why and what to do."""


class StreamFile(msgspec.Struct, frozen=True):
    """One stream's copy in the folder; ``bytes`` and ``sha256`` are of the file."""

    file: str
    bytes: int
    sha256: str
    copy: StreamCopy


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds; ``at`` in seconds since the epoch.

    ``read_models_sequence`` is how far the read models have folded the log, None: there are none.
    """

    format: int
    at: float
    streams: dict[str, StreamFile]
    read_models_sequence: int | None
    read_models_sha256: str = ""


async def back_up(
    settings: Settings, to: Path, progress: OnProgress, *, only_read_models: bool = False
) -> Manifest:
    """Copy log, audit trail and read models into the new folder ``to``, beside a running instance.

    With ``only_read_models`` neither stream, and no server is asked. Raises BackupError,
    DatabaseUnavailable, DataFolderError, EmbeddedServerError, LogUnavailable, OSError.
    """
    unfinished = to.with_name(f"{to.name}.partial")
    for path in (to, unfinished):
        if path.exists():
            raise BackupError(f"{path} exists: name a folder that does not, or remove it")
    live = settings.data_dir / READ_MODELS
    if only_read_models and not live.exists():
        raise BackupError(f"there are no read models in {settings.data_dir}")
    unfinished.mkdir(mode=0o700, parents=True)
    models = unfinished / READ_MODELS
    streams: dict[str, StreamFile] = {}
    if only_read_models:
        sequence = await _copied(live, models, progress)
    else:
        async with _maintenance(settings) as connection:
            sequence = await _copied(live, models, progress) if live.exists() else None
            names = connection.names
            for role, stream in (("audit", names.audit_stream), ("plans", names.plans_stream)):
                file = unfinished / f"{role}.snapshot"
                streams[role] = await _save(connection, stream, file, progress)
    manifest = Manifest(
        format=FORMAT,
        at=time.time(),
        streams=streams,
        read_models_sequence=sequence,
        read_models_sha256=_digest(models) if sequence is not None else "",
    )
    (unfinished / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    unfinished.rename(to)
    return manifest


async def restore(settings: Settings, backup: Path, progress: OnProgress) -> Manifest:
    """Make the log and the read models of a backup where there are none.

    Raises BackupError when the backup is damaged or something is there already,
    DatabaseUnavailable, DataFolderError, EmbeddedServerError, LogUnavailable, OSError.
    """
    manifest = await asyncio.to_thread(checked, backup)
    if not manifest.streams:
        raise BackupError(f"{backup} holds no log: restore it with --read-models")
    data_dir = settings.data_dir
    async with AsyncExitStack() as stack:
        stack.enter_context(DataFolder.acquire(data_dir, settings.executor.instance_id))
        _refuse_what_is_there(data_dir, embedded=not settings.nats.url)
        connection = await stack.enter_async_context(_maintenance(settings, held=True))
        names = connection.names
        wanted = {"plans": names.plans_stream, "audit": names.audit_stream}
        for stream in wanted.values():
            await _refuse_stream(connection, stream)
        epochs: dict[str, str] = {}
        for role, stream in wanted.items():
            saved = manifest.streams[role]
            if saved.copy.config.get("name") != stream:
                raise BackupError(
                    f"the backup is of stream {saved.copy.config.get('name')} and this instance "
                    f"uses {stream}: set nats.prefix as it was"
                )
            chunks = _chunks(backup / saved.file, stream, progress)
            await restore_stream(connection, stream, saved.copy, chunks)
            epochs[role.upper()] = await _restored(connection, stream, saved.copy)
        if manifest.read_models_sequence is not None:
            await asyncio.to_thread(_put_read_models, backup, data_dir, epochs)
    return manifest


def restore_read_models(settings: Settings, backup: Path) -> Manifest:
    """Copy the read models of a backup into a data folder without any; the log stays as it is.

    The start that follows compares them with its log, and folds what came after them. Raises
    BackupError, DataFolderError, OSError.
    """
    manifest = checked(backup, only_read_models=True)
    data_dir = settings.data_dir
    with DataFolder.acquire(data_dir, settings.executor.instance_id):
        _refuse_what_is_there(data_dir, embedded=False)
        _put_read_models(backup, data_dir, {})
    return manifest


def checked(backup: Path, *, only_read_models: bool = False) -> Manifest:
    """The manifest of a backup whose files, or read models, are whole. Raises BackupError."""
    try:
        manifest = msgspec.json.decode((backup / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, *UNREADABLE) as error:
        raise BackupError(f"{backup} holds no backup: {MANIFEST}: {error}") from error
    if manifest.format != FORMAT:
        raise BackupError(f"{backup} was made in format {manifest.format}, this reads {FORMAT}")
    if only_read_models and manifest.read_models_sequence is None:
        raise BackupError(f"{backup} holds no read models: they would be folded from the log")
    streams = () if only_read_models else manifest.streams.values()
    expected = {saved.file: saved.sha256 for saved in streams}
    if manifest.read_models_sequence is not None:
        expected[READ_MODELS] = manifest.read_models_sha256
    for file, sha256 in expected.items():
        try:
            found = _digest(backup / file)
        except OSError as error:
            raise BackupError(f"{backup} is damaged: {file}: {error.strerror}") from error
        if found != sha256:
            raise BackupError(f"{backup} is damaged: {file} is not the file that was written")
    return manifest


async def _copied(live: Path, to: Path, progress: OnProgress) -> int:
    """Copy the read models; answers the sequence that they have reached."""
    copying = asyncio.create_task(asyncio.to_thread(copy_of, live, to))
    while not (await asyncio.wait({copying}, timeout=LOOK_EVERY_S))[0]:
        progress(READ_MODELS_PART, _size_of(to))
    return await copying


def _put_read_models(backup: Path, data_dir: Path, epochs: Mapping[str, str]) -> None:
    """Copy them to their place, whole or not at all; ``epochs`` are those of restored streams."""
    unfinished = data_dir / f"{READ_MODELS}.partial"
    shutil.copyfile(backup / READ_MODELS, unfinished)
    if epochs:
        bind(unfinished, epochs)
    unfinished.rename(data_dir / READ_MODELS)


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def _save(
    connection: Connection, stream: str, path: Path, progress: OnProgress
) -> StreamFile:
    snapshot, digest, size = StreamSnapshot(connection, stream), hashlib.sha256(), 0
    with path.open("xb") as file:
        async for chunk in snapshot.chunks():
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            progress(stream, size)
    return StreamFile(path.name, size, digest.hexdigest(), snapshot.copy)


def _refuse_what_is_there(data_dir: Path, *, embedded: bool) -> None:
    held = [data_dir / READ_MODELS]
    if embedded:
        held.append(data_dir / STORE_FOLDER / "jetstream")
    for path in held:
        if path.exists():
            raise BackupError(
                f"{path} exists, and a backup is restored only where nothing is: "
                "name an empty folder with --data-dir, or move this one away"
            )


async def _refuse_stream(connection: Connection, stream: str) -> None:
    try:
        await info_of(partial(_ask, connection), stream)
    except LogReset:
        return
    raise BackupError(
        f"stream {stream} exists at this server, and a backup is restored only where nothing is"
    )


async def _restored(connection: Connection, stream: str, copy: StreamCopy) -> str:
    """The epoch of a stream that has just been restored. Raises BackupError, LogUnavailable."""
    info = await info_of(partial(_ask, connection), stream)
    if info.state.last_seq != copy.last_sequence:
        raise BackupError(
            f"stream {stream} was restored up to sequence {info.state.last_seq:,} "
            f"and the backup reaches {copy.last_sequence:,}: remove it, and restore again"
        )
    return epoch_of(stream, info)


async def _ask(connection: Connection, question: str, body: bytes) -> bytes:
    subject = connection.names.api(question)
    return (await connection.request(subject, body, timeout_s=API_TIMEOUT_S)).payload


def _chunks(path: Path, stream: str, progress: OnProgress) -> Iterator[bytes]:
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
            done += len(chunk)
            progress(stream, done)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@asynccontextmanager
async def _maintenance(settings: Settings, *, held: bool = False) -> AsyncGenerator[Connection]:
    """A connection that may copy and restore streams; ``held``: we hold the data folder."""
    async with AsyncExitStack() as stack:
        url = settings.nats.url or await _own_server(settings, stack, held=held)
        connection = await Connection.open(
            url, name="holdfast backup", timeout_s=CONNECT_TIMEOUT_S, access=settings.nats.access
        )
        stack.push_async_callback(connection.close)
        yield connection


async def _own_server(settings: Settings, stack: AsyncExitStack, *, held: bool) -> str:
    """The embedded server of the folder: that of a running instance, or one of our own."""
    data_dir = settings.data_dir
    if not held:
        if not data_dir.is_dir():
            raise BackupError(f"there is no data folder {data_dir}")
        try:
            stack.enter_context(DataFolder.acquire(data_dir, settings.executor.instance_id))
        except DataFolderBusy:
            return log_of_running(data_dir, MAINTENANCE)
    server = EmbeddedServer(data_dir, port=0)
    stack.push_async_callback(server.stop)
    await server.start()
    return user_url(data_dir / STORE_FOLDER, server.address, MAINTENANCE)
