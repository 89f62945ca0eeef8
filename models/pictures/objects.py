"""First frames of picture scenes as cases of the evaluation: the thing that a stroke moves, known by its true mask."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from models.evaluation.objects import MovingObject
from models.geometry import point_grid
from models.pictures.scenes import INSIDE, picture_masks
from models.pixels import to_uint8
from models.worlds import World

DEEP = 0.09  # of the frame's height, from the thing's middle to its nearest rim, at least; more, only larger things
WITHIN = 0.03  # of the frame's height, from a point of the thing to its rim, at least; more, fewer points
FREE = 0.06  # of the frame's height, from a point of the ground to the nearest thing, at least; more, fewer points
FRAMES = 2  # of the drawn scenes, of which the first is used


class Scene(NamedTuple):
    """A picture (H, W, 3) uint8 with its caption, and the object in it; `seed` is that of the scene."""

    seed: int
    picture: np.ndarray
    caption: str
    found: MovingObject


def scenes_with_object(world: World, count: int, first_seed: int, size: tuple[int, int], grid: int) -> list[Scene]:
    """The first `count` scenes from a seed on that show a thing large enough for a stroke.

    Args:
        world: a world of pictures.
        size: width and height in pixels.
        grid: points per side of the grid that the background's points lie on.
    """
    found: list[Scene] = []
    seed = first_seed
    while len(found) < count:
        scene = world.sample(["object"], FRAMES, [seed], size[1], world.objects)
        masks = picture_masks(scene, *size)[0, :, 0].numpy()
        if (thing := largest_thing(masks, grid)) is not None:
            picture = to_uint8(world.render(scene, *size)[0])[0]
            found.append(Scene(seed, picture, world.captions(scene)[0], thing))
        seed += 1
    return found


def largest_thing(masks: np.ndarray, grid: int) -> MovingObject | None:
    """The thing with the most pixels that has a middle, and the ground; None if it is too small or hides all ground.

    Args:
        masks: (K, H, W), how much of each pixel shows each thing, 0 to 1.
        grid: points per side of the grid of ground points.
    """
    height, width = masks.shape[1:]
    mask = masks[masks.sum((1, 2)).argmax()] > INSIDE
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    ground = ndimage.distance_transform_edt(masks.max(0) < 1 - INSIDE)
    points = point_grid(width, height, grid)
    x, y = points.round().astype(int).T
    background = points[ground[y, x] > FREE * height]
    if depth.max() < DEEP * height or not len(background):
        return None
    rows, columns = np.nonzero(depth >= WITHIN * height)
    order = np.argsort(-depth[rows, columns], kind="stable")
    body = np.stack([columns, rows], -1)[order].astype(np.float32)
    return MovingObject(body[0], body, background)
