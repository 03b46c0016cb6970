"""The one module that imports OpenTelemetry: sends spans to a collector in bounded batches (OTLP).

Imported only when an endpoint is configured. A collector that is down or slow costs spans, which
are counted and logged once per outage; it never blocks the caller.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.trace import SpanKind as OtelSpanKind

from service.signals.tracing.sampling import Sampling
from service.signals.tracing.spans import Span, SpanKind
from streams.jetstream.servers import without_password
from streams.traceparent import span_id_of, trace_id_of

QUEUE_SPANS = 8192
BATCH_SPANS = 512
DELAY_S = 1.0
EXPORT_TIMEOUT_S = 5.0
LAST_FLUSH_S = 2.0

log = structlog.get_logger("holdfast.spans")

_KINDS: dict[SpanKind, OtelSpanKind] = {
    "server": OtelSpanKind.SERVER,
    "internal": OtelSpanKind.INTERNAL,
    "consumer": OtelSpanKind.CONSUMER,
    "client": OtelSpanKind.CLIENT,
}


class OtlpRecorder:
    """A recorder of spans that exports to ``url``, an address of OTLP over HTTP.

    Headers, certificates, compression and the resource's further attributes (OTEL_SERVICE_NAME
    among them) come from OpenTelemetry's own variables.
    """

    def __init__(self, url: str, instance_id: str, version: str, sampling: Sampling) -> None:
        # What it says of each batch is said here, once per outage.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        shown = without_password(url)
        self.exporter = _Counted(OTLPSpanExporter(url, timeout=EXPORT_TIMEOUT_S), shown)
        self._sampling = sampling
        self._batches = BatchSpanProcessor(
            self.exporter,
            max_queue_size=QUEUE_SPANS,
            schedule_delay_millis=DELAY_S * 1000,
            max_export_batch_size=BATCH_SPANS,
        )
        self._resource = Resource.create(
            {
                "service.name": "holdfast",
                "service.version": version,
                "service.instance.id": instance_id,
                **OTELResourceDetector().detect().attributes,
            }
        )
        self._scope = InstrumentationScope("holdfast", version)

    def ended(self, span: Span) -> None:
        """See `Recorder.ended`. When the queue is full the oldest span goes."""
        trace_id, span_id = trace_id_of(span.traceparent), span_id_of(span.traceparent)
        if trace_id is None or span_id is None or not self._sampling.records(span.traceparent):
            return
        failed = span.error_type is not None
        attributes = dict(span.attributes)
        if span.error_type is not None:
            attributes["error.type"] = span.error_type
        self._batches.on_end(
            ReadableSpan(
                span.name,
                context=_context(trace_id, span_id),
                parent=None if span.parent_id is None else _context(trace_id, span.parent_id),
                resource=self._resource,
                attributes=attributes,
                kind=_KINDS[span.kind],
                status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
                start_time=int(span.began_at * 1e9),
                end_time=int(max(span.ended_at, span.began_at) * 1e9),
                instrumentation_scope=self._scope,
            )
        )

    async def close(self) -> None:
        """Send what is left, for at most `LAST_FLUSH_S`; takes no more spans."""
        # Not a thread of the loop's pool: the end of the process would wait for it.
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            self._batches.shutdown()
            with suppress(RuntimeError):  # the caller gave up, and the loop has ended
                loop.call_soon_threadsafe(sent.set)

        Thread(target=send, name="last spans", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_FLUSH_S):
                await sent.wait()
        if not sent.is_set():
            log.warning("last_spans_not_exported", waited_s=LAST_FLUSH_S)
        self.exporter.shutdown()


class _Counted(SpanExporter):
    """Hands batches on; counts the spans that do not arrive, and logs each outage once."""

    def __init__(self, inner: OTLPSpanExporter, endpoint: str) -> None:
        self.lost = 0
        self.endpoint = endpoint
        self._inner = inner
        self._failing = False
        self._closed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send one batch, on the batches' own thread."""
        result = self._inner.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._failing:
                log.info("spans_exported_again", endpoint=self.endpoint, lost=self.lost)
            self._failing = False
            return result
        self.lost += len(spans)
        if not self._failing:
            log.warning("spans_not_exported", endpoint=self.endpoint, lost=self.lost)
        self._failing = True
        return result

    def shutdown(self) -> None:
        """Break off what is under way."""
        if not self._closed:
            self._closed = True
            self._inner.shutdown()


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=_SAMPLED)


_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
