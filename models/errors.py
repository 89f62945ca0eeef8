"""The base class of all expected errors, and the wording of errors in a file or a request."""

from collections.abc import Iterator

from pydantic import ValidationError

SHOWN_PROBLEMS = 5
LONGEST_NAME = 60  # characters that are shown of each part of a field's name


class UserError(ValueError):
    """An error that the user can correct. The message is one line that names the place, the fault and the remedy.

    Commands print it without a traceback. Every module that reads a user's input has its own subclass.
    """


def field_problems(error: ValidationError) -> Iterator[str]:
    """One line `field[0][2]: what is wrong` for each of the first few errors."""
    for item in error.errors(include_url=False, include_context=False, include_input=False)[:SHOWN_PROBLEMS]:
        parts = (f"[{part}]" if isinstance(part, int) else f".{part[:LONGEST_NAME]}" for part in item["loc"])
        field = "".join(parts).lstrip(".")
        yield f"{field}: {item['msg']}"
