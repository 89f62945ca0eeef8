"""Send to MLflow the runs that it could not take before: `image-conductor sync`."""

import argparse
from collections.abc import Sequence

from stages.params import load_params
from stages.run.command import one_line_errors
from stages.run.mlflow_store import TrackingError, send_left_over, short_cause


def main(arguments: Sequence[str] | None = None) -> None:
    """Send them all, or end with one line that says why not.

    Args:
        arguments: of the command line; None takes the process's own.
    """
    argparse.ArgumentParser(prog="image-conductor sync", description=__doc__).parse_args(arguments)
    with one_line_errors("sync"):
        settings = load_params().mlflow
        try:
            count = send_left_over(settings)
        except TrackingError:
            raise
        except Exception as error:  # MLflow raises errors of its own, of SQLAlchemy and of the network
            raise TrackingError(f"MLflow at {settings.tracking_uri}: {short_cause(error)}; nothing is lost") from None
        print(f"{count} runs sent to {settings.tracking_uri}")


if __name__ == "__main__":
    main()
