"""What a server counts, for Prometheus: requests, waiting, speech made, and how long people wait for its beginning."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from tts.errors import MissingPackageError
from tts.serve.server.schedule import Pool

SECONDS = (0.1, 0.2, 0.4, 0.6, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters of one server; another in the same process has its own."""

    def __init__(self, pool: Pool) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        except ImportError as error:
            raise MissingPackageError("the server needs prometheus-client; run `pip install 'mynah-tts[serve]'`") from error
        self._registry = CollectorRegistry()
        mine: dict[str, Any] = {"registry": self._registry, "namespace": "mynah"}
        self._requests = Counter("requests", "Answered requests.", ("route", "status"), **mine)
        self._took = Histogram(
            "request_seconds", "From a request to the end of its answer.", ("route",), buckets=SECONDS, **mine
        )
        self.first = Histogram("first_sound_seconds", "From a request for speech to its first bytes.", buckets=SECONDS, **mine)
        self.spoken = Counter("spoken_seconds", "Seconds of speech made.", ("backend",), **mine)
        self.doubted = Counter("doubted", "Answers of which the recognizer missed something.", **mine)
        self.cancelled = Counter("cancelled", "Answers that nobody waited for.", **mine)
        Gauge("waiting", "Requests in the queue.", **mine).set_function(lambda: pool.waiting)
        Gauge("running", "Requests being worked on.", **mine).set_function(lambda: pool.running)
        Gauge("workers", "Threads that work.", **mine).set(pool.workers)

    def observe(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        """Told of every request by the guard; addresses that lead nowhere are counted together."""
        route = getattr(scope.get("route"), "path", "other")
        self._requests.labels(route, str(status)).inc()
        self._took.labels(route).observe(seconds)

    def page(self) -> bytes:
        from prometheus_client import generate_latest

        return generate_latest(self._registry)
