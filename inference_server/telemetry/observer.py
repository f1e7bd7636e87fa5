"""Who is told of each request that ended: the request log and the tracer, and exemplars on the latency histogram.

A data plane without an observer pays one `if` a request.
"""

from collections.abc import Sequence

from inference_server.messages import Call, InferenceRequest
from inference_server.telemetry.request_log import RequestLog
from inference_server.telemetry.request_record import RequestRecord
from inference_server.telemetry.tracing import Tracer, parse_traceparent
from inference_server.tensors import Array


class Observer:
    """Tells a request log and a tracer, where there are such.

    Args:
        log: Where a sample of the requests is written.
        tracer: What makes spans.
    """

    def __init__(self, log: RequestLog | None, tracer: Tracer | None) -> None:
        self._log = log
        self._tracer = tracer

    def ended(
        self,
        call: Call,
        code: str,
        version: str,
        seconds: float,
        request: InferenceRequest | None,
        outputs: Sequence[Array],
    ) -> None:
        """Tell of a request.

        Args:
            call: What came, with the moments that were noted on its way.
            code: How it ended, as in `inference_requests_total`.
            version: Version that it was for; "" when there was no such model.
            seconds: From the complete request to its answer.
            request: Its tensors; None when it could not be decoded.
            outputs: Tensors of the answer; none when there was no answer.
        """
        logged = self._log is not None and self._log.wants(code)
        if not logged and self._tracer is None:
            return
        context = parse_traceparent(call.trace)
        record = RequestRecord(
            model=call.model,
            version=version,
            protocol=call.protocol,
            id="" if request is None else request.id,
            code=code,
            total=seconds,
            decode=max(0.0, call.decoded - call.received),
            queue=max(0.0, call.began - call.decoded) if call.began else 0.0,
            compute=call.computed,
            rows=call.rows,
            bytes_in=0 if request is None else sum(array.nbytes for array in request.inputs.values()),
            bytes_out=sum(array.nbytes for array in outputs),
            trace="" if context is None else context.trace_id,
            cache=call.cached,
        )
        if logged and self._log is not None:
            self._log.put(record)
        if self._tracer is not None:
            self._tracer.record(record, context)

    def close(self) -> None:
        """Write and send what is left; blocks for three seconds at most."""
        if self._log is not None:
            self._log.close()
        if self._tracer is not None:
            self._tracer.close()
