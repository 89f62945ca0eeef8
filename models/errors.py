"""The base class of all expected errors, and the wording of errors in a file or a request."""

from collections.abc import Collection, Iterator
from difflib import get_close_matches

from pydantic import ValidationError

SHOWN_PROBLEMS = 5
LONGEST_NAME = 60  # characters that are shown of each part of a field's name


class UserError(ValueError):
    """An error that the user can correct. The message is one line that names the place, the fault and the remedy.

    Commands print it without a traceback. Every module that reads a user's input has its own subclass.
    """


def field_problems(error: ValidationError, known: Collection[str] | None = None) -> Iterator[str]:
    """One line `field[0][2]: what is wrong` for each of the first few errors.

    Args:
        known: names of fields. Other names are then shown as `*`, with the known name that they are like.
    """
    for item in error.errors(include_url=False, include_context=False, include_input=False)[:SHOWN_PROBLEMS]:
        parts = [part[:LONGEST_NAME] if isinstance(part, str) else part for part in item["loc"]]
        message = item["msg"]
        if known is not None:
            if item["type"] == "extra_forbidden":
                like = get_close_matches(str(parts[-1]), known, 1)
                message = f"unknown field{f'; did you mean {like[0]}?' if like else ''}"
            parts = [part if isinstance(part, int) or part in known else "*" for part in parts]
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
        yield f"{field}: {message}"
