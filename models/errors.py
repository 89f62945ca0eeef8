"""The base class of all expected errors, and the wording of errors in a file or a request."""

from collections.abc import Iterator

from pydantic import ValidationError

SHOWN_PROBLEMS = 5


class UserError(ValueError):
    """An error that the user can correct. The message is one line that names the place, the fault and the remedy.

    Commands print it without a traceback. Every module that reads a user's input has its own subclass.
    """


def field_problems(error: ValidationError) -> Iterator[str]:
    """One line `field[0][2]: what is wrong` for each of the first few errors."""
    for item in error.errors(include_url=False, include_context=False, include_input=False)[:SHOWN_PROBLEMS]:
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]).lstrip(".")
        yield f"{field}: {item['msg']}"
