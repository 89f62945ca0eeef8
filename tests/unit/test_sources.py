import hashlib
import os
from pathlib import Path

import pytest
import yaml

from stages import collect
from stages.data.paths import fetched_folder
from stages.data.tables import read_manifest
from stages.params import Params, RealEstate10KParams, WebVidParams
from stages.sources import known
from stages.sources.listing import list_folder, list_realestate10k, list_webvid
from stages.sources.storage import LocalCopies, SourceError

STILL = "1 0 0 0 0 1 0 0 0 0 1 0"


def touch(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def listed(folder):
    return list_folder(str(folder), LocalCopies(folder), "collect.folder.mixed")


def webvid(folder):
    source = WebVidParams(csv=str(folder / "results.csv"), videos=str(folder / "videos"))
    return list_webvid(source, LocalCopies(folder))


def realestate10k(folder):
    source = RealEstate10KParams(cameras=str(folder / "cameras"), videos=str(folder / "videos"))
    return list_realestate10k(source, LocalCopies(folder))


def test_a_folder_lists_nested_files_with_their_captions(tmp_path):
    for name in ("b.mp4", "sub/a.MOV", "sub/deep/c.mkv", ".gitkeep", ".hidden/x.mp4"):
        touch(tmp_path / name)
    touch(tmp_path / "captions.csv", 'video,caption\nsub/a.MOV,"a cat, asleep"\ngone.mp4,lost\n')
    found = {video.video: video.caption for video in listed(tmp_path)}
    assert found == {"b.mp4": "", "sub/a.MOV": "a cat, asleep", "sub/deep/c.mkv": "", "gone.mp4": "lost"}


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path / "elsewhere/a.mp4")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "in")
    (tmp_path / "in/dead.mp4").symlink_to(tmp_path / "nothing")
    assert [video.video for video in listed(tmp_path / "in")] == ["dead.mp4", "linked/a.mp4"]


def test_pipes_are_left_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    assert listed(tmp_path) == []


def test_names_that_are_no_utf8_are_escaped(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.mp4", "w"):
        pass
    assert [video.video for video in listed(tmp_path)] == ["caf\\xe9.mp4"]


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
        listed(tmp_path)


def test_a_missing_folder_names_its_parameter(tmp_path):
    with pytest.raises(SourceError, match="no such folder; create it or change collect.folder.mixed"):
        listed(tmp_path / "none")


def test_captions_beside_videos(tmp_path):
    for name in ("a.mp4", "a.mov", "sub/b.MP4", "sub/c.mkv", "d.mp4", "sub.dir/e"):
        touch(tmp_path / name)
    touch(tmp_path / "a.txt", "\ufeffa cat,\nasleep\n")
    touch(tmp_path / "a.json", '{"caption": "the .txt counts"}')
    touch(tmp_path / "sub/b.TXT", "a dog")
    touch(tmp_path / "sub/c.json", '{"url": "u", "text": "a cow "}')
    touch(tmp_path / "d.txt", "of the file beside it")
    touch(tmp_path / "sub.dir/e.json", '{"caption": "a bird", "text": "no"}')
    touch(tmp_path / "captions.csv", "video,caption\nd.mp4,of captions.csv\n")
    found = {video.video: video.caption for video in listed(tmp_path)}
    assert found == {
        "a.mov": "a cat,\nasleep",
        "a.mp4": "a cat,\nasleep",
        "d.mp4": "of captions.csv",
        "sub/b.MP4": "a dog",
        "sub/c.mkv": "a cow",
        "sub.dir/e": "a bird",
    }


def test_a_text_without_a_video_beside_it_is_listed_like_any_file(tmp_path):
    for name in ("notes.txt", "more.json", "sub/a.mp4", "a.txt"):
        touch(tmp_path / name)
    assert [(video.video, video.reason) for video in listed(tmp_path)] == [
        (name, "") for name in ("a.txt", "more.json", "notes.txt", "sub/a.mp4")
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", b"{", "Expecting property name"),
        ("a.json", b"[1]", "no text in a field caption or text"),
        ("a.json", b'{"caption": 3}', "no text in a field caption or text"),
        ("a.json", b"[" * 100_000, "recursion"),
        ("a.txt", b"caf\xe9", "utf-8"),
    ],
)
def test_a_malformed_caption_is_a_reason(tmp_path, name, text, message):
    touch(tmp_path / "a.mp4")
    touch(tmp_path / "b.mp4")
    (tmp_path / name).write_bytes(text)
    bad, good = listed(tmp_path)
    assert (bad.video, bad.file) == ("a.mp4", None) and good.reason == ""
    assert bad.reason.startswith(f"its caption in {name} cannot be read: ") and message in bad.reason


def test_webvid(tmp_path):
    rows = "".join(f"{i},u,PT1S,000001_000050,A {name}\n" for i, name in ((1, "dog"), (2, "cow"), (3, "cat")))
    touch(tmp_path / "results.csv", f"videoid,contentUrl,duration,page_dir,name\n{rows}")
    touch(tmp_path / "videos/000001_000050/1.mp4")
    touch(tmp_path / "videos/2.mp4")
    assert [(video.video, video.caption, video.reason) for video in webvid(tmp_path)] == [
        ("000001_000050/1.mp4", "A dog", ""),
        ("2.mp4", "A cow", ""),
        ("3.mp4", "A cat", "file not found"),
    ]


def test_webvid_without_its_csv_or_its_folder(tmp_path):
    with pytest.raises(SourceError, match="no such file; change collect.webvid.csv"):
        webvid(tmp_path)
    touch(tmp_path / "results.csv", "videoid,page_dir,name\n")
    with pytest.raises(SourceError, match="no such folder; create it or change collect.webvid.videos"):
        webvid(tmp_path)


def test_realestate10k(tmp_path):
    lines = "".join(f"{time} .5 .9 .5 .5 0 0 {STILL}\n" for time in (1500000, 4000000))
    touch(tmp_path / "cameras/ab.txt", f"https://www.youtube.com/watch?v=XyZ\n{lines}")
    touch(tmp_path / "cameras/bad.txt", "nothing\n")
    touch(tmp_path / "cameras/gone.txt", f"https://www.youtube.com/watch?v=gone\n{lines}")
    touch(tmp_path / "cameras/unknown.txt", f"https://www.youtube.com/\n{lines}")
    touch(tmp_path / "videos/XyZ.mp4")
    good, bad, gone, unknown = realestate10k(tmp_path)
    assert (good.video, good.file, good.start, good.end) == ("ab.txt", tmp_path / "videos/XyZ.mp4", 1.5, 4.0)
    assert good.poses == tmp_path / "cameras/ab.txt"
    assert bad.reason == "not a RealEstate10K camera file: expected lines for two frames or more"
    assert gone.reason == "file not found: gone.mp4"
    assert unknown.reason == "not a RealEstate10K camera file: line 1 is no address with v=<id>"


def test_names_in_captions_csv_may_be_written_in_another_way(tmp_path):
    on_disk = ["caf\u00e9.mp4", "Sub/Clip.MP4", "sub/plain.mp4", "two.mp4", "TWO.mp4"]
    in_csv = ["cafe\u0301.mp4", ".\\sub\\clip.mp4", "./sub/plain.mp4", "two.mp4", "Two.mp4"]
    for name in on_disk:
        touch(tmp_path / name)
    lines = "".join(f"{name},text {index}\n" for index, name in enumerate(in_csv))
    touch(tmp_path / "captions.csv", "video,caption\n" + lines)
    found = {video.video: (video.caption, video.reason) for video in listed(tmp_path)}
    assert [found[name] for name in on_disk] == [
        ("text 0", ""),
        ("text 1", ""),
        ("text 2", ""),
        ("text 3", ""),
        ("", ""),
    ]
    assert found["Two.mp4"] == ("text 4", "file not found")  # it may be either file


def test_files_beside_videos_that_are_none_are_said_once_and_are_no_videos(tmp_path, caplog):
    videos = ["a.mp4", "sub/b.webm", "film.gif", "notes.md"]
    beside = ["a.srt", "a.info.json", "a.mp4.json", "a.jpg", "sub/b.en.vtt", "film.txt"]
    for name in (*videos, *beside):
        touch(tmp_path / name, '{"caption": "x"}')
    assert sorted(video.video for video in listed(tmp_path)) == sorted(videos)  # notes.md lies beside no video
    (message,) = [record.getMessage() for record in caplog.records]
    assert all(name in message for name in beside)


def test_of_webvids_rows_with_one_id_the_one_counts_whose_file_is_there(tmp_path):
    touch(tmp_path / "videos/first/4.mp4")
    rows = "4,u,PT1S,first,found\n4,u,PT1S,second,not there\n5,u,PT1S,first,  \n"
    touch(tmp_path / "results.csv", f"videoid,contentUrl,duration,page_dir,name\n{rows}")
    found = {video.video: (video.caption, video.reason) for video in webvid(tmp_path)}
    assert found == {"first/4.mp4": ("found", ""), "5.mp4": ("", "file not found")}


def test_a_blank_caption_never_replaces_one_that_is_not(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4", "videos/4.mp4"):
        touch(tmp_path / "in" / name)
    touch(tmp_path / "in/captions.csv", "video,caption\na.mp4,A dog\na.mp4,\nB.mp4, \n./b.mp4,A cow\nc.mp4,\n")
    touch(tmp_path / "in/c.txt", "A cat")
    found = {video.video: video.caption for video in listed(tmp_path / "in")}
    assert (found["a.mp4"], found["b.mp4"], found["c.mp4"]) == ("A dog", "A cow", "A cat")
    touch(tmp_path / "in/results.csv", "videoid,page_dir,name\n4,p,A hen\n4,p, \n")
    assert [video.caption for video in webvid(tmp_path / "in")] == ["A hen"]


def test_realestate10ks_videos_may_be_in_any_container(tmp_path):
    for name in ("aa.webm", "bb.mkv", "bb.mp4", "bb.info.json", "bb.srt"):
        touch(tmp_path / "videos" / name)
    for video in ("aa", "bb"):
        lines = "".join(f"{time} 0.5 0.5 0.5 0.5 0 0 {STILL}\n" for time in (1_000_000, 2_000_000))
        touch(tmp_path / f"cameras/{video}.txt", f"https://www.youtube.com/watch?v={video}\n{lines}")
    assert [video.file.name for video in realestate10k(tmp_path)] == ["aa.webm", "bb.mp4"]


def test_an_unchanged_local_video_is_taken_without_reading_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inputs/mixed").mkdir(parents=True)
    (tmp_path / "inputs/camera").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"inputs/mixed/{name}.mp4").write_bytes(name.encode())
    values = yaml.safe_load((Path(__file__).parents[2] / "profiles/pocket.yaml").read_text())
    values["collect"]["source"], values["compute"]["backend"] = "folder", "serial"
    params, read = Params.model_validate(values), []
    original = collect.content_hash
    monkeypatch.setattr(collect, "content_hash", lambda path: read.append(path.stem) or original(path))

    def collected():
        read.clear()
        collect.run("mixed", params)
        return list(read)

    assert collected() == ["a", "b"] and collected() == ["a", "b"]  # changed a moment ago: not trusted
    monkeypatch.setattr(known, "TOO_NEW", 0)
    assert collected() == ["a", "b"] and collected() == []
    (tmp_path / "inputs/mixed/a.mp4").write_bytes(b"c")  # of the same size
    assert collected() == ["a"]
    rows = read_manifest("mixed").set_index("video")["content"]
    assert rows["a.mp4"] == hashlib.sha256(b"c").hexdigest()
    assert read_manifest("mixed")["file"].tolist() == ["inputs/mixed/a.mp4", "inputs/mixed/b.mp4"]
    (Path(os.fsdecode(b"inputs/mixed/\xff.mp4"))).write_bytes(b"d")  # no table can hold this path
    assert collected() == []
    (copy,) = fetched_folder("mixed").glob("*.mp4")
    assert copy.read_bytes() == b"d" and read_manifest("mixed")["file"].tolist()[0] == str(copy)
