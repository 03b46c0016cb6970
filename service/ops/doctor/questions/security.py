"""Is anything open to others? Files, the log, the HTTP server; wrong tokens."""

from functools import partial

from service.ops.doctor.evidence import Evidence, Security
from service.ops.doctor.report import Examined, Finding, answered, cannot_tell

BUSY_CONNECTIONS = 50  # of one client, before its share of all is worth a look
MANY_REFUSED_TOKENS = 10  # in the window; one or two are a mistyped file
REFUSED_TOKENS = "agent.http.token.refused.total"

_finding = partial(Finding, question="security", severity="warning")


def examine(evidence: Evidence) -> Examined:
    """Answer the question."""
    seen = evidence.security
    if seen is None:
        return cannot_tell("security", evidence.why_not)
    refused = seen.window.total(REFUSED_TOKENS) if seen.window else 0
    numbers = {
        "open_paths": dict(seen.open_paths),
        "log_takes_anyone": seen.log_takes_anyone,
        "through_proxy_without_tokens": seen.through_proxy,
        "connections": seen.connections,
        "refused_tokens": refused,
    }
    findings = [
        _open_paths(seen),
        _open_log(seen, evidence.machine.log.url),
        _proxy(seen),
        _busy_peer(seen),
        _refused_tokens(refused, evidence),
    ]
    says = "files, log and HTTP server are closed to others"
    if found := [each.summary for each in findings if each]:
        says = found[0]
    return answered("security", says, numbers, findings)


def _open_paths(seen: Security) -> Finding | None:
    if not seen.open_paths:
        return None
    writable = "write" in seen.open_paths.values()
    named = ", ".join(f"{path} ({what})" for path, what in seen.open_paths.items())
    return _finding(
        code="OpenToOtherAccounts",
        severity="critical" if writable else "warning",
        summary=f"other accounts of this machine may use {named}",
        evidence=dict(seen.open_paths),
        meaning="The data folder holds the log and its passwords, the other files hold keys. Close "
        "them; change what may have been read: remove DATA_DIR/nats/*.json for new passwords.",
        command="chmod -R go-rwx " + " ".join(f"'{path}'" for path in seen.open_paths),
    )


def _open_log(seen: Security, url: str) -> Finding | None:
    if not seen.log_takes_anyone:
        return None
    return _finding(
        code="LogWithoutCredentials",
        summary=f"NATS at {url} takes clients without credentials",
        evidence={"url": url},
        meaning="Whatever reaches it reads every plan, writes facts that run programs, and purges "
        "the log. Give Holdfast an account of its own: docs/howto/nats-accounts.md.",
        command=f"nats -s '{url}' stream ls",
    )


def _proxy(seen: Security) -> Finding | None:
    if not seen.through_proxy:
        return None
    return _finding(
        code="ProxyWithoutTokens",
        summary=f"{seen.through_proxy} requests came through a proxy, and there are no tokens",
        evidence={"requests": seen.through_proxy},
        meaning="Without tokens an instance serves its own machine only, and such requests are "
        "refused. Set auth.tokens_file before a proxy stands in front.",
        command="holdfast check-config",
    )


def _busy_peer(seen: Security) -> Finding | None:
    if seen.busiest is None or seen.busiest[1] < max(BUSY_CONNECTIONS, seen.connections / 2):
        return None
    client, held = seen.busiest
    return _finding(
        code="BusyPeer",
        summary=f"{client} holds {held} of {seen.connections} connections",
        evidence={"client": client, "connections": held, "all": seen.connections},
        meaning="One client holds most connections. It is bounded by "
        "http.max_connections_per_client; look whether it leaks them.",
        command=f"ss -tn state established dst '{client}'",
    )


def _refused_tokens(refused: int, evidence: Evidence) -> Finding | None:
    if refused < MANY_REFUSED_TOKENS:
        return None
    return _finding(
        code="TokensRefused",
        summary=f"{refused} requests had a token that is not known, cut or expired",
        evidence={"refused": refused, "window_s": evidence.window_s},
        meaning="A worker with an old token, or a guess. The audit trail names the addresses.",
        command=f"curl -s '{evidence.url}/v1/audit?event=token_refused&limit=20'",
    )
