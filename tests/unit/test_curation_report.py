"""The numbers and pictures of the page about curation."""

import numpy as np
import pandas as pd
import pytest

from models.curation.pictures import draws_sheet, strip, tracks_sheet
from models.curation.report import (
    TRACK_MEASURES,
    CaptionedPicture,
    Pictures,
    histograms,
    kind_of,
    reasons,
    split_figures,
    with_durations,
    with_track_facts,
    worst_clips,
)
from models.curation.report import write_curation_report as write
from models.curation.report_table import browser_table, duration_words, funnel_of_sources, size_words


def row(video, step=None, **changes):
    size = {"width": 160, "height": 120, "fps": 10.0, "frames": 40, "interval": 2, "subset": "train"}
    measures = dict.fromkeys(("brightness", "sharpness", "strength", "object_share", *TRACK_MEASURES), 0.5)
    status = {"status": "dropped" if step else "kept", "step": step, "reason": f"{step}: 3" if step else ""}
    status |= {"scene_start": 4, "scene_end": 36, "caption_origin": None if step else "source"}
    return (
        {"video": video, "clip_id": video[0], "motion_score": 2.0, "camera": "pan"} | size | measures | status | changes
    )


def table(rows):
    return with_durations(pd.DataFrame(rows).convert_dtypes(), clip_frames=16)


ROWS = [row("a.mp4"), row("b.mp4", "motion"), row("c.mp4", "motion", fps=0.0), row("d.mp4", "collect", fps=None)]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("little motion: score 56.1 is among the lowest 25% of the split", "little motion"),
        ("too short: 7 frames, 32 are needed", "too short"),
        ("same content as a-1.mp4", "same content as …"),
    ],
)
def test_reasons_that_differ_in_numbers_and_names_are_one_kind(reason, kind):
    assert kind_of(reason) == kind


def test_the_funnel_loses_at_each_step_what_it_dropped():
    figures = split_figures(table(ROWS))
    assert figures["funnel"]["listed"] == 4 and figures["funnel"]["collect"] == figures["funnel"]["camera"] == 3
    assert figures["funnel"]["balance"] == figures["kept"] == figures["camera"]["pan"] == 1
    assert figures["clip_seconds"]["p50"] == 3.0
    assert reasons(table(ROWS)) == [("motion", 2, "b.mp4"), ("collect", 1, "d.mp4")]


def test_a_histogram_counts_every_value_that_is_known():
    scores = [row(f"{i}.mp4", None if i < 90 else "motion", motion_score=float(i**3)) for i in range(100)]
    charts = {chart.title.split(",")[0]: chart for chart in histograms(table(scores))}
    motion = charts["motion score (Frobenius norm"]
    assert sum(bar.kept for bar in motion.bars) == 90 and sum(bar.dropped for bar in motion.bars) == 10
    assert charts["camera class"].bars == [("pan", 90, 10)] and charts["camera class"].highest == 100
    assert all(chart.bars == [] for chart in histograms(table(scores).iloc[:0]))


def test_pictures_show_tracks_and_draws():
    frames = np.full((5, 32, 48, 3), 200, np.uint8)
    tracks = np.tile(np.mgrid[4:28:4j, 4:44:4j].reshape(2, -1).T[None, :, ::-1], (5, 1, 1)).astype(np.float32)
    tracks[..., 0] += np.arange(5)[:, None]
    visibility = np.ones((5, 16), bool)
    assert strip(frames).size == (3 * 180, 120)
    sheet = np.asarray(tracks_sheet(frames, tracks, visibility))
    assert sheet.shape == (192, 4 * 288, 3) and (sheet != 200).any()
    assert (np.asarray(tracks_sheet(frames, tracks, ~visibility)) == 200).all()
    drawn = np.asarray(draws_sheet(frames[0], tracks, visibility, np.array([[5, -1], [-1, -1]], np.int32)))
    assert drawn.shape == (384, 2 * 288, 3)
    assert drawn[192:, :288].min() < 128 and drawn[192:, 288:].min() == 255 and (drawn[:192, 288:] == 200).all()


def write_page(path, rows):
    """The page of rows in the split `mixed`, and none in `camera`."""
    nothing = Pictures([], [], [], 0, 0)
    shown = Pictures([], [], [CaptionedPicture("pictures/pair.jpg", ["<a>.mp4", "film.mp4"])], 1, 1_234_000)
    splits = {"mixed": rows, "camera": rows.iloc[:0]}
    write(path, splits, {"mixed": shown, "camera": nothing})
    return path.read_text(encoding="utf-8")


def test_the_page_names_everything(tmp_path):
    rows = [*ROWS, row("x/e.mp4", strip="pictures/e.jpg", clip="clips/e.mp4", motion_score=float("nan"))]
    page = write_page(tmp_path / "reports" / "index.html", table(rows))
    for text in (
        "mixed: 2 clips of 5 videos",
        "12.0 s of\nvideo, 6.0 s of clips",
        "1.2 MB",
        "Captions: 2 of 2 kept clips have\none (source 2)",
        "(no folder)",
        "&lt;a&gt;.mp4",
        "pictures/pair.jpg",
        "at the worst end of each measure",
        '<a href="#clip=a">a.mp4</a>',
        "camera: 0 clips",
    ):
        assert text in page, text


def test_the_rows_of_the_page_are_all_there_and_plain():
    shown = browser_table({"mixed": table([*ROWS, row("</script>.mp4", sharpness=1 / 3)])})
    rows = [dict(zip(shown["columns"], values, strict=True)) for values in shown["rows"]]
    assert len(rows) == 5 and shown["left_out"] == 0 and [each["status"] for each in rows][:3] == ["dropped"] * 3
    last = next(each for each in rows if each["video"] == "</script>.mp4")
    assert last["scene"] == "4 to 35" and last["sharpness"] == 0.3333 and last["clip"] is None
    assert last["clip_seconds"] == 3.0 and last["split"] == "mixed"


def test_sources_are_counted_folder_by_folder():
    rows = table([row("x/a.mp4"), row("x/y/b.mp4", "motion"), row("c.mp4")])
    assert funnel_of_sources(rows) == [
        {"source": "x", "listed": 2, "kept": 1, "dropped": {"motion": 1}},
        {"source": "(no folder)", "listed": 1, "kept": 1, "dropped": {}},
    ]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (duration_words(9.96), "10.0 s"),
        (duration_words(90), "1.5 min"),
        (duration_words(9000), "2.5 h"),
        (size_words(999), "999 bytes"),
        (size_words(2_500_000), "2.5 MB"),
    ],
)
def test_units_fit(words, wanted):
    assert words == wanted


def test_the_measured_rate_of_a_clip_counts():
    rows = with_durations(pd.DataFrame([row("a.mp4", clip_fps=3.0), row("b.mp4", clip_fps=None)]), clip_frames=16)
    assert rows["clip_seconds"].tolist() == [5.0, 3.0]


def test_clips_dropped_for_their_tracks_count_as_dropped_and_the_worst_are_named():
    clips = pd.DataFrame([row("a.mp4"), row("b.mp4"), row("c.mp4", "motion")]).drop(columns=list(TRACK_MEASURES))
    facts = {"clip_id": ["a", "b"], "status": ["kept", "dropped"], "reason": ["", "lost tracks: 3%"]}
    facts |= {name: [0.5, 0.03] for name in TRACK_MEASURES}
    rows = with_durations(with_track_facts(clips, pd.DataFrame(facts)), clip_frames=16)
    assert rows["status"].tolist() == ["kept", "dropped", "dropped"]
    assert rows["step"].tolist()[1:] == ["tracks", "motion"] and rows["reason"][1] == "lost tracks: 3%"
    assert split_figures(rows)["funnel"]["tracks"] == split_figures(rows)["kept"] == 1
    many = pd.DataFrame([row(f"{i}.mp4", seen_last=i / 10, round_trip=i / 100) for i in range(9)])
    worst = dict(worst_clips(with_durations(many, 16)))
    assert [clip_id for clip_id, _, _ in worst["share of the points seen in the last frame"]] == list("01234")
    assert worst["miss of points followed back, share of the frame's height"][0] == ("8", "8.mp4", 0.08)
