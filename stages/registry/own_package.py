"""The code of the networks and the service as a package under a name of its own, which a model is logged with.

The name comes from the content. So two versions live in one process, and neither a package of the caller that is named
`models` nor a checkout beside the model takes the place of the logged code.
"""

import hashlib
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

PREFIX = "image_conductor_"
DIGITS = 12  # of the hash in the name


@contextmanager
def own_package(source: Path) -> Iterator[Path]:
    """For a while, a copy of a package under its own name that can be imported; MLflow runs the code that it logs."""
    with TemporaryDirectory() as folder:
        package = copy_as_own_package(source, Path(folder))
        sys.path.insert(0, folder)
        try:
            yield package
        finally:
            sys.path.remove(folder)
            for name in [name for name in sys.modules if name.partition(".")[0] == package.name]:
                del sys.modules[name]


def copy_as_own_package(source: Path, folder: Path) -> Path:
    """Copy a package into `folder` under its own name, with its imports of itself changed to that name; its path."""
    files = sorted(path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    content = hashlib.sha256()
    for file in files:
        content.update(f"{file.relative_to(source).as_posix()}\0".encode() + file.read_bytes())
    package = folder / f"{PREFIX}{content.hexdigest()[:DIGITS]}"
    own_import = re.compile(rf"^(\s*)(from|import) {re.escape(source.name)}\b", re.MULTILINE)
    for file in files:
        target = package / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        if file.suffix == ".py":
            text = own_import.sub(rf"\1\2 {package.name}", file.read_text(encoding="utf-8"))
            target.write_text(text, encoding="utf-8")
    return package
