"""Figures of the service for Prometheus. They hold numbers and codes, never pictures or prompts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

BUCKETS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)  # seconds


class ServiceMetrics:
    """Requests by path and status, length of the queue, sampling steps, seconds of work; memory and CPU by process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "image_conductor_requests", "Answers by path and status", ["path", "status"], registry=self._registry
        )
        self.queue = Gauge("image_conductor_queue", "Requests that wait", registry=self._registry)
        self.steps = Counter("image_conductor_steps", "Sampling steps", registry=self._registry)
        self.seconds = Histogram(
            "image_conductor_work_seconds", "Seconds of work on a request", buckets=BUCKETS, registry=self._registry
        )

    def text(self) -> bytes:
        """All figures in the text format of Prometheus."""
        return generate_latest(self._registry)
