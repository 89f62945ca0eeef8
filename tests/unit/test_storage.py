import os
import pickle
import sys

import fsspec
import pytest
from fsspec.registry import _registry

from stages.params import RealEstate10KParams, WebVidParams
from stages.sources.listing import list_folder, list_realestate10k, list_webvid
from stages.sources.storage import LocalCopies, SourceError, find_file, keep_only, list_files, take_in
from tests.unit.test_sources import STILL

FIELD = "collect.folder.mixed"


def names(url):
    return list(list_files(url, FIELD))


def test_a_bucket_is_listed_like_a_folder(bucket):
    for name in ("b.mp4", "sub/a.MOV", "sub/deep/c d+e%.mkv", ".gitkeep", ".hidden/x.mp4", "sub/"):
        bucket.pipe(f"videos/in/{name}", b"x")
    bucket.pipe("videos/inner/other.mp4", b"x")
    bucket.pipe("videos/in//b.mp4", b"another")
    listed = ["/b.mp4", "b.mp4", "sub/a.MOV", "sub/deep/c d+e%.mkv"]
    assert names("s3://videos/in") == names("s3://videos/in/") == listed
    assert names("s3://videos")[-1] == "inner/other.mp4"


def test_a_file_url_is_a_local_path(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    assert list_files(f"file://{tmp_path}", FIELD) == list_files(str(tmp_path), FIELD) == {"a.mp4": tmp_path / "a.mp4"}


def test_other_storages_of_fsspec_are_read(tmp_path):
    fsspec.filesystem("memory").pipe("/in/a.mp4", b"content")
    (file,) = list_files("memory://in", FIELD).values()
    assert take_in(file, tmp_path).read_bytes() == b"content"


def test_files_are_named_by_content_wherever_they_come_from(bucket, tmp_path):
    (tmp_path / "here.mp4").write_bytes(b"content")
    bucket.pipe("videos/in/there.MP4", b"content")
    (file,) = list_files("s3://videos/in", FIELD).values()
    assert take_in(file, tmp_path / "taken").name == take_in(tmp_path / "here.mp4", tmp_path / "taken").name


def test_only_what_is_new_is_fetched(bucket, downloads, tmp_path):
    def fetch():
        files = list_files("s3://videos/in", FIELD)
        return {name: take_in(pickle.loads(pickle.dumps(file)), tmp_path).read_bytes() for name, file in files.items()}

    bucket.pipe({"videos/in/a.mp4": b"first", "videos/in/b.mp4": b"other"})
    assert fetch() == {"a.mp4": b"first", "b.mp4": b"other"} and downloads() == ["in/a.mp4", "in/b.mp4"]
    assert len(fetch()) == 2 and downloads() == []
    bucket.pipe("videos/in/a.mp4", b"newer")
    assert fetch() == {"a.mp4": b"newer", "b.mp4": b"other"} and downloads() == ["in/a.mp4"]
    bucket.pipe("videos/in/b.mp4", b"other")
    assert len(fetch()) == 2 and downloads() == []


def test_copies_that_were_lost_or_cut_short_are_fetched_again(bucket, downloads, tmp_path):
    bucket.pipe("videos/in/a.mp4", b"content")
    (file,) = list_files("s3://videos/in", FIELD).values()
    path = take_in(file, tmp_path)
    path.unlink()
    assert take_in(file, tmp_path) == path and downloads() == ["in/a.mp4"] * 2
    (record,) = (tmp_path / "fetched").iterdir()
    record.write_text("")
    assert take_in(file, tmp_path).read_bytes() == b"content"


def test_a_download_that_breaks_leaves_nothing_and_can_be_repeated(bucket, tmp_path, monkeypatch):
    bucket.pipe("videos/in/a.mp4", b"content")
    (file,) = list_files("s3://videos/in", FIELD).values()

    def breaks(address, path):
        with open(path, "wb") as target:
            target.write(b"con")
        raise ConnectionResetError("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(file.storage, "get_file", breaks)
        with pytest.raises(SourceError, match="s3://videos/in/a.mp4: cannot be fetched: connection lost; try again"):
            take_in(file, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert take_in(file, tmp_path).read_bytes() == b"content"


def test_what_is_no_longer_wanted_is_removed(bucket, tmp_path):
    bucket.pipe({"videos/in/a.mp4": b"first", "videos/in/b.mp4": b"other"})
    first, other = list_files("s3://videos/in", FIELD).values()
    wanted, _ = take_in(first, tmp_path), take_in(other, tmp_path)
    (tmp_path / "manifest.parquet").touch()
    keep_only(tmp_path, {"manifest.parquet"}, {first})
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"manifest.parquet", wanted.name, first.key}


def test_captions_in_a_bucket_are_fetched_once(bucket, downloads, tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4", "d.mp4"):
        bucket.pipe(f"videos/in/{name}", b"x")
    bucket.pipe("videos/in/a.txt", b"a cat")
    bucket.pipe("videos/in/b.json", b'{"caption": "a dog"}')
    bucket.pipe("videos/in/c.json", b"{")
    bucket.pipe("videos/in/captions.csv", b"video,caption\nd.mp4,a cow\n")
    found = list_folder("s3://videos/in", LocalCopies(tmp_path), FIELD)
    assert [(video.caption, bool(video.reason)) for video in found] == [
        ("a cat", False),
        ("a dog", False),
        ("", True),
        ("a cow", False),
    ]
    assert downloads() == ["in/a.txt", "in/b.json", "in/c.json", "in/captions.csv"]
    assert list_folder("s3://videos/in", LocalCopies(tmp_path), FIELD) == found and downloads() == []


def test_webvid_in_a_bucket(bucket, tmp_path):
    bucket.pipe("videos/results.csv", b"videoid,page_dir,name\n1,p,A dog\n2,p,A cow\n")
    bucket.pipe("videos/files/p/1.mp4", b"x")
    source = WebVidParams(csv="s3://videos/results.csv", videos="s3://videos/files")
    here, gone = list_webvid(source, LocalCopies(tmp_path))
    assert (here.video, here.file.url, here.caption) == ("p/1.mp4", "s3://videos/files/p/1.mp4", "A dog")
    assert (gone.video, gone.reason) == ("2.mp4", "file not found")
    bucket.pipe("videos/results.csv", b"videoid\n1\n")
    with pytest.raises(SourceError, match="s3://videos/results.csv: column page_dir, name is missing"):
        list_webvid(source, LocalCopies(tmp_path))


def test_realestate10k_in_a_bucket(bucket, tmp_path):
    line = f".5 .9 .5 .5 0 0 {STILL}\n"
    bucket.pipe("videos/cameras/a.txt", f"https://www.youtube.com/watch?v=A\n0 {line}500000 {line}".encode())
    bucket.pipe("videos/files/A.mp4", b"x")
    source = RealEstate10KParams(cameras="s3://videos/cameras", videos="s3://videos/files")
    (video,) = list_realestate10k(source, LocalCopies(tmp_path))
    assert (video.end, video.file.url, video.poses.url) == (0.5, "s3://videos/files/A.mp4", "s3://videos/cameras/a.txt")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://nobucket/in", "s3://nobucket/in: .*change collect.folder.mixed"),
        ("s3://videos/none", "s3://videos/none: no such folder; change collect.folder.mixed"),
        ("s3://videos/in/a.mp4", "a.mp4: no such folder; change collect.folder.mixed"),
        ("s3://", "s3://: cannot be read: .*; check collect.folder.mixed"),
        ("nonsense://x", "nonsense://x: cannot be read: Protocol not known: nonsense; check collect.folder.mixed"),
    ],
)
def test_a_wrong_url_names_its_parameter(bucket, url, message):
    bucket.pipe("videos/in/a.mp4", b"x")
    with pytest.raises(SourceError, match=message):
        list_files(url, FIELD)


def test_a_missing_csv_names_its_parameter(bucket, tmp_path):
    bucket.pipe("videos/in/a.mp4", b"x")
    for url in ("s3://videos/none.csv", "s3://videos/in"):
        with pytest.raises(SourceError, match=f"{url}: no such file .*change collect.webvid.csv"):
            find_file(url, "collect.webvid.csv")


def test_without_permission_the_message_says_so(bucket, monkeypatch):
    bucket.pipe("videos/in/a.mp4", b"x")
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    with pytest.raises(SourceError, match="s3://videos/in: no permission .*; check the credentials or collect.folder"):
        list_files("s3://videos/in", FIELD)


def test_without_a_server_the_message_says_so(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    type(bucket).clear_instance_cache()
    with pytest.raises(SourceError, match="s3://videos/in: cannot be read: .*; check collect.folder.mixed, the net"):
        list_files("s3://videos/in", FIELD)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(SourceError, match=r"^s3://b/in: Install s3fs to access S3 \(pip install -e '.\[s3\]'\)$"):
        list_files("s3://b/in", FIELD)


def test_unreadable_local_files_raise_what_their_rows_say(tmp_path):
    os.symlink("nothing", tmp_path / "dead.mp4")
    with pytest.raises(FileNotFoundError):
        take_in(tmp_path / "dead.mp4", tmp_path / "taken")
