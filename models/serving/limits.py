"""What the service allows, and how long it lets things take. `params.yaml` sets them in its section `serve`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one service. What is over a limit is refused with status 4xx and the limit's value.

    max_body_mb: size of a request, in MiB.
    max_json_depth: lists and objects within each other.
    max_number_digits: digits of a number in a row.
    max_points: commas and brackets of a request outside its texts, in place of the points of all its strokes.
    max_pixels: width x height, summed over the pictures of one request, before they are scaled to the model's frame.
    max_records: videos of one request.
    max_work: steps x frames, summed over the videos of one request.
    queue_length: requests that wait while one is worked on; the next is answered with 429.
    body_seconds: the longest pause while a request comes in, and the longest time that its head takes; after it the
        answer is 408.
    base_seconds, seconds_per_step: time limit of a request from the start of its work: the first plus the second for
        each sampling step of each video. Work over it is stopped, with status 504. Waiting for a turn does not count.
    shutdown_seconds: how long the running request may go on after SIGTERM, before it is handed back with 503.
    finished_jobs: jobs whose results are kept; the oldest go first.
    """

    max_body_mb: int = 32
    max_json_depth: int = 16
    max_number_digits: int = 40
    max_points: int = 65536
    max_pixels: int = 100_000_000
    max_records: int = 8
    max_work: int = 3200
    queue_length: int = 16
    body_seconds: float = 5.0
    base_seconds: float = 60.0
    seconds_per_step: float = 60.0
    shutdown_seconds: float = 30.0
    finished_jobs: int = 32
