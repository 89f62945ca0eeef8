"""Settings for all tests, made before anything heavy is imported."""

import logging
import os
import re
from collections.abc import Iterator
from urllib.request import urlopen

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks are tiny: more threads only wait for each other
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")


LONG_FILES = ("test_whole_path.py", "test_training.py", "test_official.py", "test_device.py", "test_pretrain.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: parallel processes share files, and one would be alone with the last."""
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server in memory."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """The file system of an empty server with a bucket `videos`; the environment has all that is needed to reach it."""
    from s3fs import S3FileSystem

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    urlopen(f"{s3_server}/moto-api/reset", data=b"")
    S3FileSystem.clear_instance_cache()
    storage = S3FileSystem()
    storage.mkdir("videos")
    yield storage
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def downloads(bucket, caplog):
    """A function that says which objects were read since it was asked last."""
    caplog.set_level(logging.INFO, "werkzeug")

    def read() -> list[str]:
        found = [re.search(r"GET /videos/(\S+) HTTP", record.getMessage()) for record in caplog.records]
        caplog.clear()
        return sorted(match[1] for match in found if match and "?" not in match[1])

    return read
