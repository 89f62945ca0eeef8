"""The answer to a request that is refused: a status, a code and one sentence that begins with the field."""

from typing import Any

from mlflow.exceptions import MlflowException

LONGEST = 1000  # characters of a message


class Refusal(MlflowException):
    """A refusal that MLflow's scoring server can give. It keeps its message: the server would put the request in it."""

    def __init__(self, message: str, error_code: int):
        super().__init__(shortened(message), error_code)

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "message" or "message" not in vars(self):
            super().__setattr__(name, value)


def shortened(message: str, longest: int = LONGEST) -> str:
    """The message, with its end replaced by dots where it is longer."""
    return message if len(message) <= longest else f"{message[: longest - 3]}..."
