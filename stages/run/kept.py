"""Results that are kept with a hash of code and inputs, so that a run without a change does not compute them again."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from stages.data.items import write_atomically
from stages.run.code import code_of


def kept_result(file: Path, function: Callable[..., Any], inputs: Iterable[Any], *arguments: Any) -> Any:
    """`function(*arguments)`, read from `file` if that was made by the same code from the same inputs.

    A file that is damaged counts as absent.

    Args:
        file: keeps result and hash as JSON.
        function: gives what JSON can hold, and the same for the same inputs.
        inputs: everything in `arguments` that shapes the result, as parts that JSON can hold.
    """
    digest = hashlib.sha256(repr(code_of(function)).encode())
    for part in inputs:
        digest.update(json.dumps(part).encode() + b"\n")
    made_of = digest.hexdigest()
    try:
        kept = json.loads(file.read_bytes())
        if kept["made_of"] == made_of:
            return kept["result"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    result = function(*arguments)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps({"made_of": made_of, "result": result}).encode(), lasting=False)
    return result
