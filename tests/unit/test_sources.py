import os

import pytest

from stages.sources import SourceError, list_folder, list_realestate10k, list_webvid


def touch(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_folder_lists_nested_files_with_their_captions(tmp_path):
    for name in ("b.mp4", "sub/a.MOV", "sub/deep/c.mkv", ".gitkeep", ".hidden/x.mp4"):
        touch(tmp_path / name)
    touch(tmp_path / "captions.csv", 'video,caption\nsub/a.MOV,"a cat, asleep"\ngone.mp4,lost\n')
    found = {video.video: video.caption for video in list_folder(tmp_path)}
    assert found == {"b.mp4": "", "sub/a.MOV": "a cat, asleep", "sub/deep/c.mkv": "", "gone.mp4": "lost"}


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path / "elsewhere/a.mp4")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "in")
    (tmp_path / "in/dead.mp4").symlink_to(tmp_path / "nothing")
    assert [video.video for video in list_folder(tmp_path / "in")] == ["dead.mp4", "linked/a.mp4"]


def test_pipes_are_left_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    assert list_folder(tmp_path) == []


def test_names_that_are_no_utf8_are_escaped(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.mp4", "w"):
        pass
    assert [video.video for video in list_folder(tmp_path)] == ["caf\\xe9.mp4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,caption\na,b\n", "column video is missing"),
        ("", "not a readable csv"),
        ("video,caption\n\xff\n", "UTF-8"),
    ],
)
def test_a_wrong_captions_csv_says_so(tmp_path, text, message):
    (tmp_path / "captions.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError, match=f"captions.csv: .*{message}"):
        list_folder(tmp_path)


def test_a_missing_folder_names_its_parameter(tmp_path):
    with pytest.raises(SourceError, match="no such folder; create it or change collect.folder"):
        list_folder(tmp_path / "none")


def test_webvid(tmp_path):
    csv = "videoid,contentUrl,duration,page_dir,name\n1,u,PT1S,000001_000050,A dog\n2,u,PT1S,000001_000050,A cow\n"
    touch(tmp_path / "results.csv", csv)
    touch(tmp_path / "videos/000001_000050/1.mp4")
    touch(tmp_path / "videos/2.mp4")
    found = {video.video: video.caption for video in list_webvid(tmp_path / "results.csv", tmp_path / "videos")}
    assert found == {"000001_000050/1.mp4": "A dog", "2.mp4": "A cow"}
    with pytest.raises(SourceError, match="no such file; see collect.webvid.csv"):
        list_webvid(tmp_path / "none.csv", tmp_path)


def test_realestate10k(tmp_path):
    line = " ".join(["0.5"] * 18)
    touch(tmp_path / "cameras/ab.txt", f"https://www.youtube.com/watch?v=XyZ\n1500000 {line}\n4000000 {line}\n")
    touch(tmp_path / "cameras/bad.txt", "nothing\n")
    good, bad = list_realestate10k(tmp_path / "cameras", tmp_path / "videos")
    assert (good.video, good.path, good.start, good.end) == ("ab.txt", tmp_path / "videos/XyZ.mp4", 1.5, 4.0)
    assert bad.video == "bad.txt" and "not a RealEstate10K camera file" in bad.reason
