"""The picture world: what it shows is what its tracks, parts and masks say, and everything comes from the seed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from models.pictures.album import Album, AlbumError, write_album
from models.pictures.objects import largest_thing, scenes_with_object
from models.pictures.paths import camera_path, seen_box
from models.pictures.pieces import REACH
from models.pictures.prepare import cutout, difference_hash, ground, split_of
from models.pictures.scenes import (
    MAX_OBJECTS,
    picture_captions,
    picture_masks,
    picture_parts,
    picture_tracks,
    render_pictures,
    sample_picture_scenes,
)
from models.pictures.stills import random_stills, whole_stills
from models.pixels import to_uint8
from models.worlds import picture_world, procedural_world
from stages.params import load_params

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT, FRAMES = 72, 48, 6
KINDS = ["camera", "object", "mixed"]


def row(kind: str, number: int, split: str = "train") -> dict:
    return {
        "sha256": f"{number:064x}",
        "package": "made-here",
        "file": f"{number}.png",
        "licence": "none",
        "kind": kind,
        "label": f"a {kind}",
        "split": split,
    }


def smooth_picture(seed: int) -> np.ndarray:
    """(300, 450, 3) uint8, so smooth that a pixel's colour hardly depends on how it is looked up."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:300, :450] / 450
    phase = rng.uniform(0, 6, (3, 2))
    waves = [np.sin(9 * x + a) + np.sin(9 * y + b) for a, b in phase]
    return (128 + 60 * np.stack(waves, -1)).clip(0, 255).astype(np.uint8)


def disc(colour: tuple[int, int, int]) -> np.ndarray:
    y, x = np.mgrid[:100, :100] - 49.5
    alpha = (np.hypot(x, y) < 49).astype(np.uint8)[..., None]
    return np.concatenate([alpha * np.array(colour, np.uint8), 255 * alpha], -1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("album")
    pictures = [(row("photograph", n), smooth_picture(n)) for n in range(3)]
    pictures += [(row("cutout", 10 + n), disc(c)) for n, c in enumerate([(255, 0, 0), (0, 0, 255)])]
    pictures += [(row("photograph", 20, "test"), smooth_picture(9)), (row("cutout", 21, "test"), disc((0, 255, 0)))]
    write_album(folder, pictures)
    return folder


@pytest.fixture(scope="module")
def scenes(folder):
    return sample_picture_scenes(Album(folder, "train"), KINDS * 6, FRAMES, list(range(18)), HEIGHT, MAX_OBJECTS)


def grid() -> torch.Tensor:
    x, y = torch.meshgrid(torch.arange(2, WIDTH, 5), torch.arange(2, HEIGHT, 5), indexing="xy")
    return torch.stack([x, y], -1).reshape(1, -1, 2).float().expand(18, -1, -1)


def test_the_same_seed_gives_the_same_frames_alone_or_in_a_batch(folder, scenes):
    album = Album(folder, "train")
    alone = render_pictures(sample_picture_scenes(album, ["object"], FRAMES, [4], HEIGHT, MAX_OBJECTS), WIDTH, HEIGHT)[
        0
    ]
    assert torch.equal(alone, render_pictures(scenes, WIDTH, HEIGHT)[4])
    other = render_pictures(sample_picture_scenes(album, ["object"], FRAMES, [5], HEIGHT, MAX_OBJECTS), WIDTH, HEIGHT)[
        0
    ]
    assert not torch.equal(alone, other)


def test_a_visible_track_shows_the_same_colour_in_every_frame(scenes):
    steady = (scenes.light == 1).all(1) & (scenes.shadow[..., 0] == 0).all(1)
    frames = render_pictures(scenes, WIDTH, HEIGHT)
    points = grid()
    tracks, visible = picture_tracks(scenes, points, WIDTH, HEIGHT)
    assert torch.allclose(tracks[:, 0], points, atol=1e-3) and visible[:, 0].all()
    place = (2 * tracks + 1) / torch.tensor([WIDTH, HEIGHT]) - 1
    colours = torch.nn.functional.grid_sample(
        frames.flatten(0, 1), place.flatten(0, 1)[:, None], align_corners=False, padding_mode="border"
    )[:, :, 0].unflatten(0, (18, FRAMES))  # (B, T, 3, N)
    off = (colours - colours[:, :1]).abs().amax(2)
    assert steady.sum() >= 8
    assert off[steady][visible[steady]].quantile(0.95) < 0.06


def test_the_camera_rests_in_object_scenes_and_things_rest_in_camera_scenes(scenes):
    kinds = np.array(KINDS * 6)
    assert (scenes.camera[kinds == "object"] == 0).all() and scenes.camera[kinds == "camera"].abs().amax((1, 2)).all()
    parts = picture_parts(scenes, grid(), WIDTH, HEIGHT)
    assert (parts[kinds == "camera"] == 0).all()
    assert (scenes.centres - scenes.centres[:, :, :1])[kinds != "camera", 0].abs().amax((1, 2)).all()


def test_parts_are_the_things_that_the_masks_show(scenes):
    shown = picture_masks(scenes, WIDTH, HEIGHT)[:, :, 0]  # (B, K, H, W)
    x, y = grid()[0].long().unbind(-1)
    coverage = shown[:, :, y, x]
    parts = picture_parts(scenes, grid(), WIDTH, HEIGHT)
    for k in range(coverage.shape[1]):
        assert (coverage[:, k][parts == k + 1] > 0.4).all()
    assert shown.sum(1).max() < 1.001 and (shown[~scenes.present] == 0).all()


def test_the_frame_shows_true_ground_wherever_the_camera_looks(scenes):
    """The unfilled part of the ground is black; the smooth pictures are nowhere."""
    frames = render_pictures(scenes, WIDTH, HEIGHT)
    assert (frames.amax(2) > 0.01).float().mean() > 0.999


def test_captions_name_things_and_ground(scenes):
    captions = picture_captions(scenes)
    assert any("a cutout" in caption and " on a photograph" in caption for caption in captions)
    assert all(caption.endswith("a photograph") for caption in captions)


def test_splits_share_no_picture(folder):
    train, test = Album(folder, "train"), Album(folder, "test")
    assert len(train.photographs) == 3 and len(test.photographs) == 1 and len(test.cutouts) == 1
    assert not {p.sha256 for p in train.photographs} & {p.sha256 for p in test.photographs}
    with pytest.raises(AlbumError, match="validation has 0 photographs"):
        Album(folder, "validation")


def test_a_scene_with_an_object_has_strokes_inside_one_thing_and_background_outside_all(folder):
    world, size = picture_world(folder, "train"), (WIDTH, HEIGHT)
    found = scenes_with_object(world, 4, 100, size, 16)
    assert [scene.seed for scene in found] == [s.seed for s in scenes_with_object(world, 4, 100, size, 16)]
    for scene in found:
        drawn = world.sample(["object"], 2, [scene.seed], HEIGHT, world.objects)
        masks = picture_masks(drawn, *size)[0, :, 0].numpy()
        assert np.array_equal(scene.picture, to_uint8(render_pictures(drawn, *size)[0])[0])
        x, y = scene.found.body.astype(int).T
        assert (masks[:, y, x].min(1) > 0.5).sum() == 1 and np.array_equal(scene.found.start, scene.found.body[0])
        x, y = scene.found.background.round().astype(int).T
        assert masks[:, y, x].max() < 0.5 and len(x) > 3


def test_a_thing_without_a_middle_and_ground_that_is_hidden_make_no_case():
    masks = np.zeros((2, HEIGHT, WIDTH), np.float32)
    masks[0, 10:12, 5:60] = 1
    assert largest_thing(masks, 16) is None
    assert largest_thing(np.ones_like(masks[:1]), 16) is None
    masks[1, 15:35, 10:40] = 1
    assert largest_thing(masks, 16) is not None


def test_in_videos_of_the_profile_the_camera_hardly_ever_leaves_the_ground():
    longest = load_params(ROOT / "profiles/pictures.yaml").collect.synthetic.frames[1]
    boxes = [seen_box(camera_path(np.random.default_rng(seed), "camera", longest)) for seed in range(400)]
    assert np.mean([(np.abs(box).max(0) > REACH).any() for box in boxes]) < 0.08


def test_without_an_album_the_message_names_the_command(tmp_path):
    with pytest.raises(AlbumError, match=r"python -m models\.pictures\.fetch"):
        picture_world(tmp_path, "train")


def test_both_worlds_have_one_face(folder):
    for world in (procedural_world(), picture_world(folder, "train")):
        scenes = world.sample(["mixed"], FRAMES, [3], HEIGHT, world.objects)
        assert world.render(scenes, WIDTH, HEIGHT).shape == (1, FRAMES, 3, HEIGHT, WIDTH)
        tracks, visible = world.true_tracks(scenes, grid()[:1], WIDTH, HEIGHT)
        assert tracks.shape[:2] == visible.shape[:2] == (1, FRAMES)
        assert world.moving_parts(scenes, grid()[:1], WIDTH, HEIGHT).max() <= world.objects
        assert len(world.captions(scenes)) == 1


def test_stills_have_the_frames_size_and_lie_in_range(folder):
    album = Album(folder, "train")
    for stills, count in ((random_stills(album, 5, WIDTH, HEIGHT, 0), 5), (whole_stills(album, WIDTH, HEIGHT), 3)):
        assert stills.shape == (count, 3, HEIGHT, WIDTH) and stills.min() >= 0 and stills.max() <= 1
    assert torch.equal(random_stills(album, 2, WIDTH, HEIGHT, 1), random_stills(album, 2, WIDTH, HEIGHT, 1))


def test_a_cutout_is_one_thing_on_nothing():
    image = Image.new("RGBA", (120, 90))
    drawing = ImageDraw.Draw(image)
    drawing.ellipse((20, 20, 100, 80), fill=(200, 100, 0, 255))
    kept = cutout(image)
    assert kept is not None and kept.shape == (61, 81, 4)
    assert (kept[..., :3] <= kept[..., 3:]).all()  # premultiplied
    assert cutout(image.convert("RGB")) is None
    two = Image.new("RGBA", (120, 90))
    drawing = ImageDraw.Draw(two)
    drawing.ellipse((0, 20, 50, 70), fill=(9, 9, 9, 255))
    drawing.ellipse((65, 20, 115, 70), fill=(9, 9, 9, 255))
    assert cutout(two) is None
    assert cutout(Image.new("RGBA", (120, 90), (1, 2, 3, 255))) is None


def test_the_same_picture_at_another_size_looks_alike():
    picture = Image.fromarray(smooth_picture(0)).resize((900, 600), Image.Resampling.BICUBIC)
    small, large = ground(picture.resize((600, 400))), ground(picture)
    assert (difference_hash(small) ^ difference_hash(large)).bit_count() <= 5
    assert (difference_hash(small) ^ difference_hash(ground(Image.fromarray(smooth_picture(5))))).bit_count() > 5
    assert ground(picture.resize((100, 80))) is None


def test_the_split_is_a_function_of_the_content():
    splits = [split_of(f"{n:08x}", "photograph") for n in range(1000)]
    assert splits.count("test") == 200 and splits.count("validation") == 100
    assert {split_of(f"{n:08x}", "pattern") for n in range(20)} == {"train"}
