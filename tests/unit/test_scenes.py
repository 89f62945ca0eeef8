"""The procedural scenes and what is known exactly about them."""

import torch

from models.scenes import render, sample_scenes, scene_captions, true_tracks


def test_the_same_seed_gives_the_same_picture_and_another_one_another():
    first, again, other = (render(sample_scenes(["mixed"], 4, [seed]), 48, 32) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (1, 4, 3, 32, 48) and first.min() >= 0 and first.max() <= 1


def test_true_tracks_stick_to_colours():
    scenes = sample_scenes(["mixed"] * 8, 8, list(range(8)))
    frames = render(scenes, 192, 128)
    points = torch.rand(8, 200, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([191.0, 127.0])
    tracks, visibility = true_tracks(scenes, points, 192, 128)
    assert torch.allclose(tracks[:, 0], points, atol=1e-3) and visibility[:, 0].all()
    grid = 2 * (tracks + 0.5) / torch.tensor([192.0, 128.0]) - 1
    colours = torch.stack(
        [
            torch.nn.functional.grid_sample(frames[:, t], grid[:, t, None], align_corners=False)[:, :, 0]
            for t in range(8)
        ]
    )
    off = (colours - colours[:1]).abs().amax(2)[visibility.transpose(0, 1)]
    assert (off < 0.1).float().mean() > 0.95


def test_camera_scenes_move_everything_and_object_scenes_leave_the_background():
    points = torch.tensor([[[2.0, 2.0], [93.0, 2.0], [2.0, 61.0], [93.0, 61.0]]]).repeat(6, 1, 1)
    moved = {}
    for kind in ("camera", "object"):
        tracks, _ = true_tracks(sample_scenes([kind] * 6, 8, list(range(6))), points, 96, 64)
        moved[kind] = (tracks[:, -1] - tracks[:, 0]).norm(dim=-1).median()
    assert moved["camera"] > 1 and moved["object"] < 1e-3


def test_captions_say_what_is_there_and_not_how_it_moves():
    for caption in scene_captions(sample_scenes(["mixed"] * 20, 2, list(range(20)))):
        assert caption.endswith(" background") and " on a " in caption
        assert not any(word in caption for word in ("pan", "zoom", "move", "left", "right"))
