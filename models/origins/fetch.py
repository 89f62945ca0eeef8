"""Download what the paper builds on: by pinned commit, resumable, every file checked against the hub's hash.

official    the authors' three checkpoints, and SD 1.5's VAE, text encoder and tokenizer
paper       the base of the paper and its estimators, as profiles/paper.yaml names them

Repositories go to the hub's cache, where hub ids are looked for, also without a connection. `HF_ENDPOINT`, `HF_TOKEN`,
`HF_HUB_CACHE` and `HF_HUB_OFFLINE` hold.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx
import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile
from tqdm import tqdm

from models.errors import UserError
from models.origins.addresses import DESCRIPTIONS, HubId, cached_folder, is_offline
from models.origins.weights import find_weights, first_line

RECORD = "fetched.json"
FULL_COMMIT = 40  # digits
CHUNK = 1 << 20  # bytes

SetName = Literal["official", "paper"]


class FetchError(UserError):
    """A download that failed or is not what was published; the message says what to do."""


class Repository(NamedTuple):
    """A repository on the hub. `commit` may be the beginning of one. `parts`: folders, or files, that are wanted."""

    name: str
    commit: str
    licence: str
    parts: tuple[str, ...]


class WeightFile(NamedTuple):
    """A file elsewhere. `sha256` is the beginning of its hash, None where none is published. `for_torch_hub`: it goes
    to torch hub's checkpoints, where its library looks for it."""

    url: str
    licence: str
    name: str
    sha256: str | None
    for_torch_hub: bool = False


SD15 = (
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    "CreativeML OpenRAIL-M",
)
AUTHORS = Repository(
    "TencentARC/ImageConductor",
    "7bd8a91",
    "Apache-2.0",
    ("unet.ckpt", "image_controlnet.ckpt", "flow_controlnet.ckpt"),
)
COTRACKER = Repository(
    "facebook/cotracker3",
    "b748ec5e5cd4b9f525a94cc544f0be34bbcc22e2",
    "CC-BY-NC-4.0, not for commercial use",
    ("scaled_offline.pth",),
)
REPOSITORIES: dict[SetName, tuple[Repository, ...]] = {
    "official": (AUTHORS, Repository(*SD15, ("vae", "text_encoder", "tokenizer"))),
    "paper": (
        Repository(*SD15, ("unet", "vae", "text_encoder", "tokenizer")),
        Repository(
            "guoyww/animatediff-motion-adapter-v1-5-3", "449d8993ead63a068e1030eb26925132814db1c8", "Apache-2.0", ("",)
        ),
        Repository(
            "guoyww/animatediff-sparsectrl-rgb", "b8003d681d813c095e459b9141122894daff2d13", "Apache-2.0", ("",)
        ),
        Repository("Salesforce/blip2-opt-2.7b", "59a1ef6c1e5117b3f65523d1c6066825bcf315e3", "MIT", ("",)),
        COTRACKER,
    ),
}
FILES: dict[SetName, tuple[WeightFile, ...]] = {
    "official": (),
    "paper": (
        WeightFile(
            "https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth",
            "BSD-3-Clause",
            "raft_large_C_T_SKHT_V2-ff5fadd5.pth",
            "ff5fadd5",
            for_torch_hub=True,
        ),
        WeightFile(
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
            "Apache-2.0",
            "pt_inception-2015-12-05-6726825d.pth",
            "6726825d",
        ),
        WeightFile(
            "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
            "Apache-2.0 (Kinetics I3D), packed by StyleGAN-V",
            "i3d_torchscript.pt",
            None,
        ),
    ),
}


def licences(name: SetName) -> str:
    """One line for each thing that a set brings: what it is, at which commit, under which licence."""
    rows = [(f"{each.name}@{each.commit[:7]}", each.licence) for each in REPOSITORIES[name]]
    rows += [(each.name, each.licence) for each in FILES[name]]
    width = max(len(what) for what, _ in rows)
    return "\n".join(f"{what.ljust(width)}  {licence}" for what, licence in rows)


def fetch_set(name: SetName, folder: Path) -> dict[str, Path]:
    """Download a set and check it. What is there already is checked and not downloaded again.

    Args:
        folder: gets the files that are not in a repository, and `fetched.json`: the hash of every file.

    Returns:
        The local folder of each repository, by its name.

    Raises:
        FetchError: a repository or file cannot be had, or its content is not what was published.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recorded = _read_record(folder / RECORD)
    places: dict[str, Path] = {}
    for repository in REPOSITORIES[name]:
        places[repository.name], found = _fetch_repository(repository, recorded)
        recorded |= found
    checkpoints = Path(torch.hub.get_dir()) / "checkpoints"
    if COTRACKER.name in places:
        checkpoints.mkdir(parents=True, exist_ok=True)
        for file_name in COTRACKER.parts:
            shutil.copyfile(places[COTRACKER.name] / file_name, checkpoints / file_name)
    for file in FILES[name]:
        place = checkpoints if file.for_torch_hub else folder
        recorded[file.name] = _fetch_file(file, place / file.name, recorded.get(file.name))
    text = json.dumps(recorded, indent=2, sort_keys=True) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")
    return places


def _fetch_repository(repository: Repository, recorded: Mapping[str, str]) -> tuple[Path, dict[str, str]]:
    """The folder of a repository, and the sha256 of each of its files by `repository@commit/file`."""
    try:
        if is_offline():
            return _from_cache(repository, recorded)
        commit = _whole_commit(repository)
        listed = HfApi().list_repo_tree(repository.name, revision=commit, recursive=True)
        files = {each.path: each for each in listed if isinstance(each, RepoFile)}
        wanted = _wanted(files, repository.parts)
        place = Path(snapshot_download(repository.name, revision=commit, allow_patterns=wanted))
        if damaged := _damaged(place, wanted, files):
            snapshot_download(repository.name, revision=commit, allow_patterns=damaged, force_download=True)
            if damaged := _damaged(place, damaged, files):
                raise FetchError(f"{repository.name}: {', '.join(damaged)}: not what the hub lists; try again")
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise FetchError(
            f"{repository.name}: cannot be downloaded ({first_line(error)}). Check the connection, HF_ENDPOINT and "
            "HF_TOKEN; the same command goes on where it was"
        ) from None
    return place, _hashes(repository, commit, place, wanted)


def _from_cache(repository: Repository, recorded: Mapping[str, str]) -> tuple[Path, dict[str, str]]:
    """What an earlier download left in the cache, checked against the hashes that it recorded."""
    prefix = f"{repository.name}@{repository.commit}"
    known = {key: sha256 for key, sha256 in recorded.items() if key.startswith(prefix)}
    if not known:
        raise FetchError(
            f"{repository.name}: not downloaded yet, and HF_HUB_OFFLINE is set; fetch it with a connection"
        )
    commit = next(iter(known)).partition("@")[2].partition("/")[0]
    names = [key.partition("@")[2].partition("/")[2] for key in known]
    place = cached_folder(HubId(repository.name, commit), names)
    found = _hashes(repository, commit, place, names)
    if wrong := sorted(key for key, sha256 in known.items() if found[key] != sha256):
        raise FetchError(f"{', '.join(wrong)}: changed since the download; fetch it again with a connection")
    return place, found


def _whole_commit(repository: Repository) -> str:
    if len(repository.commit) == FULL_COMMIT:
        return repository.commit
    commits = [each.commit_id for each in HfApi().list_repo_commits(repository.name)]
    match = next((each for each in commits if each.startswith(repository.commit)), None)
    if match is None:
        raise FetchError(f"{repository.name}: has no commit {repository.commit} any more")
    return match


def _wanted(names: Iterable[str], parts: Iterable[str]) -> list[str]:
    """The files of the wanted parts: a file itself; of a folder its descriptions, and its weights in one variant."""
    names, chosen = list(names), set[str]()
    for part in parts:
        if part in names:
            chosen.add(part)
            continue
        prefix = f"{part}/" if part else ""
        here = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        here = [name for name in here if "/" not in name]
        chosen |= {prefix + name for name in here if name.endswith(DESCRIPTIONS) or name in find_weights(here)}
    return sorted(chosen)


def _damaged(place: Path, names: Iterable[str], files: Mapping[str, Any]) -> list[str]:
    """The files whose content is not that of the hub's list; large files are listed by sha256, others by git's id."""
    wrong = []
    for name in tqdm(list(names), desc="check", unit="file"):
        file = files[name]
        if not (place / name).is_file():
            wrong.append(name)
        elif file.lfs is not None:
            wrong += [name] * (_digest(place / name, hashlib.sha256()) != file.lfs.sha256)
        else:
            wrong += [name] * (_digest(place / name, hashlib.sha1(b"blob %d\0" % file.size)) != file.blob_id)
    return wrong


def _hashes(repository: Repository, commit: str, place: Path, names: Iterable[str]) -> dict[str, str]:
    key: Callable[[str], str] = f"{repository.name}@{commit}/{{}}".format
    missing = [name for name in names if not (place / name).is_file()]
    if missing:
        raise FetchError(f"{repository.name}: {', '.join(missing)} not in the cache; fetch it with a connection")
    return {key(name): _digest(place / name, hashlib.sha256()) for name in names}


def _fetch_file(file: WeightFile, path: Path, recorded: str | None) -> str:
    """Download a file unless it is there; returns its sha256."""
    if not path.is_file():
        if is_offline():
            raise FetchError(f"{path}: not there, and HF_HUB_OFFLINE is set; put {file.url} there")
        try:
            torch.hub.download_url_to_file(file.url, str(path), hash_prefix=file.sha256)
        except (OSError, RuntimeError) as error:
            raise FetchError(f"{path}: cannot be downloaded ({first_line(error)}); put {file.url} there") from None
    found = _digest(path, hashlib.sha256())
    if recorded not in (None, found) or not found.startswith(file.sha256 or ""):
        raise FetchError(f"{path}: not the file that was published or downloaded before; remove it and fetch it again")
    return found


def _digest(path: Path, algorithm: Any) -> str:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            algorithm.update(chunk)
    return algorithm.hexdigest()


def _read_record(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise FetchError(f"{path}: not a record of downloads; remove it and fetch again") from None
