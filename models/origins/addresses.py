"""Where published weights lie: a local file, a local folder, or a hub id with a revision (`owner/name@revision`).

The hub client's own settings hold: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import httpx
from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from models.errors import UserError
from models.origins.weights import find_weights, first_line

HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
MARKS = ("config.json", "tokenizer_config.json", "vocab.json")  # one of them is in each folder of a repository
DESCRIPTIONS = (".json", ".txt", ".model")  # of a network or a tokenizer, beside the weights


class NotPublished(UserError):
    """Nothing can be had at this address; the message says what is missing and what to do."""


class HubId(NamedTuple):
    """A repository on the hub, and the branch, tag or commit of it; None is its main branch."""

    repository: str
    revision: str | None


def parse_hub_id(address: str) -> HubId | None:
    """`owner/name` or `owner/name@revision`; None if the text is neither."""
    match = HUB_ID.fullmatch(address)
    return HubId(match["repository"], match["revision"]) if match else None


def local_place(address: str | Path, subfolder: str = "", field: str = "") -> Path:
    """The local file or folder of an address; what lies on the hub is downloaded, its weights in one variant only.

    Args:
        address: a file, a folder, or a hub id.
        subfolder: the part of a folder or repository that is wanted; a file has no parts.
        field: what messages call the address.

    Raises:
        NotPublished: there is no such place, or the hub does not give it.
    """
    name = f"{field}: {address}" if field else str(address)
    path = Path(address).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        if not (path / subfolder).is_dir():
            raise NotPublished(f"{name}: no folder {subfolder} in it; expected a folder in diffusers' layout")
        return path / subfolder
    hub_id = parse_hub_id(str(address))
    if hub_id is None:
        raise NotPublished(f"{name}: no such file or folder, and no hub id (owner/name or owner/name@revision)")
    try:
        folder = _download(hub_id, subfolder)
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise NotPublished(
            f"{name}: the hub does not give this repository ({first_line(error)}); check the name, or set HF_TOKEN to "
            "a token that may read it"
        ) from None
    except RevisionNotFoundError:
        raise NotPublished(f"{name}: the repository has no revision {hub_id.revision}") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise NotPublished(
            f"{name}: no such file or folder, and the hub cannot be had ({first_line(error)}). Give a local folder or "
            "file, or download it while there is a connection (`image-conductor fetch`)"
        ) from None
    if not (folder / subfolder).is_dir():
        raise NotPublished(f"{name}: the repository has no folder {subfolder}")
    return folder / subfolder


def is_offline() -> bool:
    """Whether `HF_HUB_OFFLINE` forbids connections."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def cached_folder(hub_id: HubId, names: Collection[str]) -> Path:
    """The folder of a repository in the hub's cache, if one of these files of it is there.

    Raises:
        FileNotFoundError: none of them is.
    """
    for name in names:
        file = try_to_load_from_cache(hub_id.repository, name, revision=hub_id.revision)
        if isinstance(file, str):
            return Path(file).parents[name.count("/")]
    raise FileNotFoundError("it is not in the cache")


def _download(hub_id: HubId, subfolder: str) -> Path:
    """Download one folder of a repository: descriptions, and the weights in the variant that `find_weights` prefers."""
    repository, revision = hub_id
    if is_offline():
        return cached_folder(hub_id, [f"{subfolder}/{name}".lstrip("/") for name in MARKS])
    try:
        names = HfApi().list_repo_files(repository, revision=revision)
    except (httpx.HTTPError, ConnectionError):
        return cached_folder(hub_id, [f"{subfolder}/{name}".lstrip("/") for name in MARKS])
    return Path(snapshot_download(repository, revision=revision, allow_patterns=_wanted(names, subfolder)))


def _wanted(names: Collection[str], subfolder: str) -> list[str]:
    prefix = f"{subfolder}/" if subfolder else ""
    here = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    here = [name for name in here if "/" not in name]
    chosen = {name for name in here if name.endswith(DESCRIPTIONS)} | set(find_weights(here))
    return sorted(prefix + name for name in chosen)
