"""`image-conductor fetch` against a local server with the hub's API and layout."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file

from models.origins import fetch
from models.origins.addresses import local_place
from models.origins.fetch import FetchError, fetch_set
from models.origins.pocket import pocket_text_encoder, pocket_tokenizer
from models.serving.cli import main
from tests.unit import golden
from tests.unit.fake_hub import FakeHub

AUTHORS, BASE = "TencentARC/ImageConductor", "stable-diffusion-v1-5/stable-diffusion-v1-5"
COMMITS = {AUTHORS: "7bd8a91" + "0" * 33, BASE: fetch.SD15[1]}
CHECKPOINTS = ("unet.ckpt", "image_controlnet.ckpt", "flow_controlnet.ckpt")
NOT_WANTED = {"TUSUN.safetensors", "v1-5-pruned.ckpt", "diffusion_pytorch_model.bin"}


def write_repositories(root, contents: dict[str, bytes]) -> FakeHub:
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return FakeHub(root, dict(COMMITS))


@pytest.fixture
def hub(tmp_path) -> FakeHub:
    """The authors' repository and SD 1.5's by their file names; what is in the files does not matter."""
    names = [f"{AUTHORS}/{name}" for name in (*CHECKPOINTS, "TUSUN.safetensors")]
    for part in ("vae/diffusion_pytorch_model", "text_encoder/model"):
        names += [f"{BASE}/{part}.safetensors", f"{BASE}/{part.partition('/')[0]}/config.json"]
    names += [f"{BASE}/vae/diffusion_pytorch_model.bin", f"{BASE}/v1-5-pruned.ckpt"]
    names += [f"{BASE}/tokenizer/{name}" for name in ("vocab.json", "merges.txt", "tokenizer_config.json")]
    return write_repositories(tmp_path / "hub", {name: name.encode() * 2000 for name in names})


@pytest.fixture
def connected(hub, tmp_path, monkeypatch):
    """The hub's client asks the local server; what it downloads goes to a cache of its own."""
    with hub.running() as endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield hub


def downloaded(hub: FakeHub) -> set[str]:
    return {path.rpartition("/")[2] for command, path, _ in hub.requests if command == "GET" and "/resolve/" in path}


def test_what_is_wanted_is_brought_by_commit_and_recorded_with_its_hash(connected, tmp_path):
    places = fetch_set("official", tmp_path / "record")
    assert all(
        (places[AUTHORS] / name).read_bytes() == (connected.root / AUTHORS / name).read_bytes() for name in CHECKPOINTS
    )
    assert downloaded(connected) >= {*CHECKPOINTS, "vocab.json"} and not downloaded(connected) & NOT_WANTED
    record = json.loads((tmp_path / "record" / "fetched.json").read_text())
    assert len(record) == 3 + 7 and all(len(sha256) == 64 for sha256 in record.values())
    assert f"{AUTHORS}@{COMMITS[AUTHORS]}/unet.ckpt" in record


def test_a_broken_download_goes_on_where_it_was(connected, tmp_path):
    file = connected.root / AUTHORS / "unet.ckpt"
    file.write_bytes(bytes(24 << 20))
    connected.cut = {"unet.ckpt"}
    places = fetch_set("official", tmp_path / "record")
    ranges = [asked for command, path, asked in connected.requests if command == "GET" and path.endswith("unet.ckpt")]
    assert any(asked and int(asked.removeprefix("bytes=").partition("-")[0]) >= 8 << 20 for asked in ranges)
    assert (places[AUTHORS] / "unet.ckpt").read_bytes() == file.read_bytes()


def test_without_a_connection_the_cache_is_checked_and_used(connected, tmp_path, monkeypatch):
    fetch_set("official", tmp_path / "record")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(connected.requests)
    places = fetch_set("official", tmp_path / "record")
    assert local_place(f"{BASE}@{COMMITS[BASE]}", "vae") == places[BASE] / "vae"
    assert len(connected.requests) == asked
    damaged = (places[AUTHORS] / "unet.ckpt").resolve()
    damaged.write_bytes(b"?" + damaged.read_bytes()[1:])
    with pytest.raises(FetchError, match="unet.ckpt: changed since the download"):
        fetch_set("official", tmp_path / "record")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    fetch_set("official", tmp_path / "record")
    assert damaged.read_bytes() == (connected.root / AUTHORS / "unet.ckpt").read_bytes()


def test_nothing_fetched_and_no_connection_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FetchError, match="not downloaded yet, and HF_HUB_OFFLINE is set"):
        fetch_set("official", tmp_path)


def test_a_file_that_is_not_what_the_hub_lists_is_refused(connected, tmp_path):
    connected.altered.add("flow_controlnet.ckpt")
    with pytest.raises(FetchError, match="flow_controlnet.ckpt"):
        fetch_set("official", tmp_path / "record")


def test_a_commit_that_is_gone_is_said(connected, tmp_path):
    connected.commits[AUTHORS] = "1" * 40
    with pytest.raises(FetchError, match="has no commit 7bd8a91 any more"):
        fetch_set("official", tmp_path / "record")


def test_a_token_opens_what_is_gated(connected, tmp_path, monkeypatch):
    connected.token = "secret"
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(FetchError, match=f"{AUTHORS}: cannot be downloaded .* HF_TOKEN"):
        fetch_set("official", tmp_path / "record")
    monkeypatch.setenv("HF_TOKEN", "secret")
    fetch_set("official", tmp_path / "record")


def test_a_hub_id_brings_one_folder_in_one_variant(connected, tmp_path):
    place = local_place(f"{BASE}@{COMMITS[BASE]}", "vae", "foundation.base")
    assert {path.name for path in place.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert not downloaded(connected) & (NOT_WANTED | {"vocab.json"})


def test_paper_brings_every_part_that_the_profile_names(connected, tmp_path, monkeypatch):
    for repository in fetch.REPOSITORIES["paper"]:
        connected.commits[repository.name] = repository.commit
        folder = connected.root / repository.name
        for part in repository.parts:
            names = [part] if part.endswith(".pth") else [f"{part}/config.json", f"{part}/model.safetensors"]
            for name in names:
                path = folder / name.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(name.encode())
    (tmp_path / "raft.pth").write_bytes(b"raft")
    digest = hashlib.sha256(b"raft").hexdigest()
    raft = fetch.WeightFile((tmp_path / "raft.pth").as_uri(), "BSD-3-Clause", "r.pth", digest[:8], for_torch_hub=True)
    monkeypatch.setitem(fetch.FILES, "paper", (raft,))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    fetch_set("paper", tmp_path / "weights")
    profile = (Path(__file__).parents[2] / "profiles" / "paper.yaml").read_text()
    named = [each for each in fetch.REPOSITORIES["paper"] if each.name != "facebook/cotracker3"]
    assert len(named) == 4 and all(f"{each.name}@{each.commit}" in profile for each in named)
    assert {path.name for path in (tmp_path / "torch" / "checkpoints").iterdir()} == {"r.pth", "scaled_offline.pth"}
    (tmp_path / "torch" / "checkpoints" / "r.pth").write_bytes(b"changed")
    with pytest.raises(FetchError, match="r.pth: not the file that was published"):
        fetch_set("paper", tmp_path / "weights")


@pytest.mark.skipif(not golden.FOLDER.is_dir(), reason=f"no golden tensors in {golden.FOLDER}")
def test_the_command_shows_licences_and_makes_a_model_that_generate_uses(connected, tmp_path, capsys):
    for name in CHECKPOINTS:
        torch.save(load_file(golden.FOLDER / name.replace(".ckpt", ".safetensors")), connected.root / AUTHORS / name)
    base, tokenizer = connected.root / BASE, pocket_tokenizer()
    golden.vae().save_pretrained(base / "vae")
    pocket_text_encoder(tokenizer, 32).save_pretrained(base / "text_encoder")
    for path in (base / "tokenizer").iterdir():
        path.unlink()
    tokenizer.save_pretrained(base / "tokenizer")
    main(["fetch", "official", f"--config={golden.FOLDER / 'config.json'}", f"--output={tmp_path / 'official'}"])
    licences, _, rest = capsys.readouterr().out.partition("accept their licences")
    assert "TencentARC/ImageConductor@7bd8a91" in licences and "CreativeML OpenRAIL-M" in licences
    assert "generate --model" in rest
    Image.new("RGB", (192, 128)).save(tmp_path / "i.png")
    (tmp_path / "t.json").write_text(json.dumps({"width": 192, "height": 128, "trajectories": [[[50, 50], [90, 60]]]}))
    options = {"image": "i.png", "trajectories": "t.json", "model": "official", "output": "v.gif"}
    main(["generate", "--steps=1", *(f"--{key}={tmp_path / value}" for key, value in options.items())])
    assert Image.open(tmp_path / "v.gif").n_frames == 6
