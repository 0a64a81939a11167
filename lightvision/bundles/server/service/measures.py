"""What the service tells Prometheus of itself."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Measures:
    def __init__(self, waiting: Callable[[], int], at_work: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "lightvision_requests", "Requests answered", ["path", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "lightvision_request_seconds", "From headers to answer", ["path"], buckets=SECONDS, registry=self._registry
        )
        self.batches = Histogram(
            "lightvision_batch_pictures", "Pictures asked about at once", buckets=SIZES, registry=self._registry
        )
        queue = Gauge("lightvision_queue_pictures", "Pictures that wait for the network", registry=self._registry)
        queue.set_function(waiting)
        working = Gauge("lightvision_requests_at_work", "Requests for answers at work", registry=self._registry)
        working.set_function(at_work)

    def text(self) -> bytes:
        return generate_latest(self._registry)
