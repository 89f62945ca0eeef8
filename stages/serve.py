"""Serve the registered model over HTTP: `python -m stages.serve --port 5001`.

curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d '{"inputs": [{"image": …}]}'
"""

import argparse
import os
import sys

from stages.params import ParamsError, load_params
from stages.run.mlflow_runs import connect


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.serve", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default="5001")
    parser.add_argument("--model", help="a model's address, for example models:/image-conductor/3; default: the alias")
    arguments = parser.parse_args()
    try:
        params = load_params()
    except ParamsError as error:
        sys.exit(str(error))
    name, alias = params.register_.model_name, params.register_.alias
    mlflow, _ = connect(params.mlflow)
    if arguments.model is None:
        try:
            mlflow.MlflowClient().get_model_version_by_alias(name, alias)
        except mlflow.exceptions.MlflowException:
            sys.exit(
                f"no version of {name} has the alias {alias}: run `make repro`, and see metrics/registration.json for "
                f"why a version did not get it. To serve one all the same: --model models:/{name}/<version>"
            )
    model = arguments.model or f"models:/{name}@{alias}"
    print(f"serving {model}: POST http://{arguments.host}:{arguments.port}/invocations, stop with Ctrl-C", flush=True)
    os.environ["MLFLOW_TRACKING_URI"] = params.mlflow.tracking_uri
    serve = ["serve", "--model-uri", model, "--env-manager", "local", "--host", arguments.host, "--port"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "models", *serve, arguments.port])


if __name__ == "__main__":
    main()
