"""Serve the registered model over HTTP: `python -m stages.serve --port 5001`.

curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d '{"inputs": [{"image": …}]}'

The service listens at once; `/ready` answers with 200 when the model is loaded. Section `serve` of params.yaml holds
its limits. SIGTERM lets the running request end, for `shutdown_seconds` at most.
"""

import argparse
import os
import sys
import threading
from pathlib import Path
from types import FrameType

import uvicorn

import models
from models.errors import UserError
from models.serving.header_timeout import with_header_timeout
from models.serving.limits import Limits
from models.serving.service import Service
from stages.params import Params, load_params
from stages.run.command import one_line_errors
from stages.run.mlflow_store import connect

SECONDS_TO_ANSWER = 5  # after the running request has ended or was stopped


class NothingToServe(UserError):
    """There is no model of that address that this service can run."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.serve", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5001)
    parser.add_argument("--model", help="a model's address, for example models:/image-conductor/3; default: the alias")
    arguments = parser.parse_args()
    with one_line_errors("serve"):
        params = load_params()
        address = arguments.model or champion(params)
        limits = Limits(**params.serve.model_dump())
        server = Server(Service(limits), arguments.host, arguments.port)
        print(f"{address}: loading; http://{arguments.host}:{arguments.port}/ready says when it is done", flush=True)
        threading.Thread(target=server.load, args=(address,), daemon=True).start()
        server.run()
        if server.failure:
            raise server.failure
    sys.stdout.flush()
    os._exit(0)  # a sampling step that still runs must not keep the process


def champion(params: Params) -> str:
    """The address of the version that has the alias.

    Raises:
        NothingToServe: there is none.
    """
    name, alias = params.register_.model_name, params.register_.alias
    mlflow, _ = connect(params.mlflow)
    try:
        mlflow.MlflowClient().get_model_version_by_alias(name, alias)
    except mlflow.exceptions.MlflowException:
        raise NothingToServe(
            f"no version of {name} has the alias {alias} in {params.mlflow.tracking_uri}. On a machine that got the "
            "artifacts by `dvc pull`, register them there: dvc repro --force --single-item register. Otherwise run "
            "`make repro`; metrics/registration.json says why a version did not get the alias. To serve one all the "
            f"same: --model models:/{name}/<version>"
        ) from None
    return f"models:/{name}@{alias}"


def differs(logged: Path, running: Path) -> bool:
    """Whether the code that was registered with a model, if any, is another one than the package that runs."""
    sources = [
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.py")} for folder in (logged, running)
    ]
    return bool(sources[0]) and sources[0] != sources[1]


class Server(uvicorn.Server):
    """Uvicorn, which loads the model beside and drains the service when it is told to end."""

    def __init__(self, service: Service, host: str, port: int):
        limits = service.limits
        super().__init__(
            uvicorn.Config(
                service.app,
                host,
                port,
                http=with_header_timeout(limits.body_seconds),
                log_level="warning",
                timeout_graceful_shutdown=int(limits.shutdown_seconds) + SECONDS_TO_ANSWER,
            )
        )
        self._service = service
        self.failure: Exception | None = None

    def load(self, address: str) -> None:
        """Load the model and open the service; if that fails, end the server and keep the reason."""
        import mlflow
        from mlflow.pyfunc import scoring_server

        try:
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=address))
            loaded = mlflow.pyfunc.load_model(str(folder))
            model = loaded.unwrap_python_model()
            if not hasattr(model, "plan"):
                raise NothingToServe(f"{address}: of an older format; register it anew: dvc repro -f -s register")
            if differs(folder / "code" / "models", Path(models.__path__[0])):
                print(f"{address}: registered with other code; it runs on the code of this folder", flush=True)
            self._service.open(model, scoring_server.init(loaded))
            print(f"{address}: ready, POST /invocations; stop with Ctrl-C", flush=True)
        except NothingToServe as error:
            self._fail(error)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            self._fail(
                NothingToServe(
                    f"{address}: could not be loaded: {reason}. Where its files have moved, register it again: "
                    "dvc repro --force --single-item register"
                )
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM and SIGINT; the second one ends the server at once."""
        self._service.drain()
        self.force_exit = self.should_exit
        self.should_exit = True

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.should_exit = True


if __name__ == "__main__":
    main()
