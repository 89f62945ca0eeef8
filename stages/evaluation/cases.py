"""The evaluation's cases: test pictures with the twenty trajectories, and test clips with their own tracks.

Every picture and clip is of the subset `test`: training and the choice of weights never see it. Where synthetic videos
are made of pictures, object scenes are drawn anew from the album's test pictures, so that their masks are known.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from models.evaluation.experiment import Case, common_shift
from models.evaluation.objects import CLEARANCE, MovingObject, clear_background, find_object, staying
from models.evaluation.standard_trajectories import camera_names, camera_tracks, object_names, object_track
from models.networks.foundation import Encoders
from models.pictures.objects import scenes_with_object
from models.scenes import PRETRAIN_SEEDS
from models.worlds import picture_world
from stages.data.arrays import read_draws, read_latents, read_tracks
from stages.data.curated import CuratedClip, curated_clips
from stages.data.footage import read_clip
from stages.data.paths import FOUNDATION, latents_folder
from stages.data.tables import ContractError
from stages.params import Params, Split

MANY_STROKES = 8
FEWEST_OF_MANY = 3
TEST_SEEDS, SEEDS_APART = 3 * PRETRAIN_SEEDS, 100_000  # of drawn scenes; each evaluate.seed has its own
NO_STROKE = np.zeros((0, 0, 2), np.float32)
BACKGROUND_POINTS, BODY_POINTS = 12, 6  # points that are followed, at most; more did not change a median


class ObjectScene(NamedTuple):
    """A test picture as a case without strokes, the object it shows, and its caption."""

    case: Case
    found: MovingObject
    caption: str


def camera_cases(params: Params) -> list[Case]:
    """Every camera trajectory on the first frames of test clips of the camera split."""
    pictures = [_picture(clip, "camera") for clip in tested_clips("camera")[: params.evaluate.images]]
    return [
        replace(picture, trajectory=name, wanted=_camera(name, params), number=number)
        for number, (picture, name) in enumerate((p, name) for p in pictures for name in camera_names())
    ]


def object_scenes(params: Params) -> list[ObjectScene]:
    """Test pictures that show an object: scenes of the album, else first frames of the mixed split's test clips.

    Raises:
        ContractError: no test clip shows a moving object.
        AlbumError: scenes are made of pictures, and there is no album.
    """
    collect = params.collect
    if collect.source_of("mixed") == "synthetic" and collect.synthetic.world == "pictures":
        return _drawn_scenes(params)
    scenes: list[ObjectScene] = []
    for clip in tested_clips("mixed"):
        if len(scenes) == params.evaluate.images:
            break
        found = find_object(*read_tracks(clip.tracks), params.tracks.grid, params.video.height)
        if found is not None:
            scenes.append(ObjectScene(replace(_picture(clip, "mixed"), number=100 * len(scenes)), found, clip.caption))
    if not scenes:
        raise ContractError("data/tracks/mixed: no test clip has an object that moves against the camera")
    return scenes


@torch.no_grad()
def _drawn_scenes(params: Params) -> list[ObjectScene]:
    """Scenes of the album's test pictures, encoded by the foundation."""
    size, settings = (params.video.width, params.video.height), params.evaluate
    world = picture_world(params.collect.synthetic.pictures, "test")
    first_seed = TEST_SEEDS + SEEDS_APART * settings.seed
    encoders = Encoders.load(FOUNDATION)
    scenes = []
    for number, scene in enumerate(scenes_with_object(world, settings.images, first_seed, size, params.tracks.grid)):
        latents = encoders.encode_images(torch.from_numpy(scene.picture).movedim(-1, 0)[None] / 255)[0].half()
        text = encoders.encode_text([scene.caption])[0].half()
        case = Case(f"scene-{scene.seed}", "", scene.picture, latents, text, NO_STROKE, 100 * number)
        scenes.append(ObjectScene(case, scene.found, scene.caption))
    return scenes


def object_cases(scenes: list[ObjectScene], params: Params) -> list[Case]:
    """Every object trajectory, as one stroke on the object of each scene."""
    return [case for scene in scenes for case in _on_object(scene, scene.found.start[None], params, 10_000)]


def many_stroke_cases(scenes: list[ObjectScene], params: Params) -> list[Case]:
    """Every object trajectory, as many equal strokes spread over the object. Too small objects are left out."""
    chosen = [(scene, spread(scene.found.body, MANY_STROKES)) for scene in scenes]
    return [
        case
        for scene, starts in chosen
        if len(starts) >= FEWEST_OF_MANY
        for case in _on_object(scene, starts, params, 20_000)
    ]


def scene_cases(scenes: list[ObjectScene], params: Params) -> list[Case]:
    """Every camera trajectory on the pictures that show an object, with the points that stay in the frame."""
    return [_scene(scene, number, name, params) for scene in scenes for number, name in enumerate(camera_names())]


def both_cases(scenes: list[ObjectScene], params: Params) -> list[Case]:
    """Every object trajectory together with a camera that shifts the picture, each with one of its shifts in turn.

    Camera strokes that come near the object's path are left out: they would want another motion of the same place.
    """
    shifts = [path for path in (_camera(name, params) for name in camera_names()) if common_shift(path) is not None]
    cases = [
        _beside_camera(case, shifts[number % len(shifts)], params)
        for number, case in enumerate(object_cases(scenes, params))
    ]
    return [case for case in cases if case.camera.size]


def floor_cases(split: Split, params: Params) -> list[tuple[Case, Path]]:
    """Test clips whose drawn strokes stay visible: a case whose wanted paths are the clip's own, and the clip's video.

    As many at most as a method has videos in the table beside them. Raises ContractError if there is none.
    """
    found = []
    for clip in tested_clips(split)[: params.evaluate.images * len(camera_names())]:
        tracks, visibility = (part[: params.video.frames] for part in read_tracks(clip.tracks))
        chosen = [n for n in read_draws(clip.draws)[0] if n >= 0 and visibility[:, n].all()]
        if chosen:
            found.append((replace(_picture(clip, split), wanted=tracks[:, chosen]), clip.video))
    if not found:
        raise ContractError(f"data/sparse_flows/{split}: no test clip whose strokes stay visible; add videos")
    return found


def tested_clips(split: Split) -> list[CuratedClip]:
    """The test clips of a split, in the order in which the evaluation takes them. Raises ContractError if none."""
    clips = curated_clips(split, "test")
    if not clips:
        raise ContractError(f"data/clips/{split}: no clip for the test; add videos or raise clips.held_out")
    return clips


def spread(points: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` of points (N, 2), beginning with the first, each the furthest from those taken before."""
    taken = [0] if len(points) else []
    while len(taken) < min(count, len(points)):
        apart = np.linalg.norm(points[:, None] - points[taken], axis=-1).min(1)
        taken.append(int(apart.argmax()))
    return points[taken]


def _scene(scene: ObjectScene, number: int, name: str, params: Params) -> Case:
    size = (params.video.width, params.video.height)
    wanted = _camera(name, params)
    return replace(
        scene.case,
        trajectory=name,
        wanted=wanted,
        number=30_000 + scene.case.number + number,
        background=_thinned(staying(scene.found.background, wanted, *size), BACKGROUND_POINTS),
        body=staying(scene.found.body, wanted, *size)[:BODY_POINTS],
    )


def _on_object(scene: ObjectScene, starts: np.ndarray, params: Params, numbers_from: int) -> Iterator[Case]:
    """Every object trajectory from `starts` (N, 2). All strokes take the path of the object's own start."""
    video, found = params.video, scene.found
    for number, name in enumerate(object_names()):
        path = object_track(name, found.start, (video.width, video.height), video.frames)
        background = clear_background(found.background, path[:, 0], video.width, video.height)
        yield replace(
            scene.case,
            trajectory=name,
            wanted=(starts + path - path[:1]).astype(np.float32),
            number=numbers_from + scene.case.number + number,
            background=_thinned(background, BACKGROUND_POINTS),
            body=found.body[:BODY_POINTS],
        )


def _beside_camera(case: Case, camera: np.ndarray, params: Params) -> Case:
    video = params.video
    distance = np.linalg.norm(camera[:, :, None] - case.wanted[:, None], axis=-1).min((0, 2))
    return replace(
        case,
        camera=camera[:, distance > CLEARANCE * video.height],
        number=30_000 + case.number,
        background=staying(case.background, camera, video.width, video.height),
        body=case.body[:0],
    )


def _camera(name: str, params: Params) -> np.ndarray:
    return camera_tracks(name, (params.video.width, params.video.height), params.video.frames)


def _picture(clip: CuratedClip, split: Split) -> Case:
    latents, text = read_latents(latents_folder(split).path(clip.clip_id))
    frame = read_clip(clip.video)[0]
    # copies: a view would keep all frames of the clip in memory for as long as the case lives
    return Case(clip.clip_id, "", frame.copy(), latents[0].clone(), text, NO_STROKE, 0)


def _thinned(points: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of points (N, 2), evenly through their order."""
    if len(points) <= count:
        return points
    return points[np.linspace(0, len(points) - 1, count).round().astype(int)]
