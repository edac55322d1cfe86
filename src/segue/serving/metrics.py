"""What can be watched: requests, latency, batches, queues, events and the model."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one service, apart from those of any other in this process."""

    def __init__(self, waiting: Callable[[], float], has_remains: Callable[[], bool]) -> None:
        """Count from zero.

        Args:
            waiting: Gives what waits for the model.
            has_remains: Gives whether something that was erased is still in the database's files.
        """
        registry = CollectorRegistry()
        self._registry = registry
        self.requests = Counter(
            "segue_requests",
            "Requests by operation and status.",
            ("operation", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "segue_request_seconds",
            "Seconds from a request's first byte to its answer's last.",
            ("operation",),
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "segue_batch_size", "Questions answered together.", buckets=SIZES, registry=registry
        )
        self.events = Counter(
            "segue_events", "Events by what became of them.", ("outcome",), registry=registry
        )
        queue = Gauge(
            "segue_queue_length",
            "Questions that wait, counted in plain ones.",
            registry=registry,
        )
        queue.set_function(waiting)
        remains = Gauge(
            "segue_erasure_pending",
            "1 while something that was erased is still in the database's files.",
            registry=registry,
        )
        remains.set_function(has_remains)
        self._model = Gauge(
            "segue_model_info", "1 for the model that answers.", ("version",), registry=registry
        )

    def show_model(self, version: str) -> None:
        """Name the model that answers from now on."""
        self._model.clear()
        self._model.labels(version).set(1)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
