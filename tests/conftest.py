"""Settings for all tests, made before anything heavy is imported."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks are tiny: more threads only wait for each other
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
