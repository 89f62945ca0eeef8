"""The worlds that scenes come from: procedural ones (`models.scenes`) and ones made of pictures (`models.pictures`).

Both know every motion exactly. A world is the five functions that pre-training and evaluation need of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from models import scenes as procedural
from models.pictures import scenes as pictures
from models.pictures.album import Album, Split
from models.scenes import Kind


@dataclass(frozen=True)
class World:
    """Scenes of one kind; the functions are those of `models.scenes`, whose docstrings say what they take and give.

    sample: (kinds, frames, seeds, height of the rendered frames in pixels, things that move at most) -> a batch of
        scenes.
    objects: things a scene has at most. album: the pictures, where scenes are made of pictures.
    """

    sample: Callable[[list[Kind], int, list[int], int, int], Any]
    render: Callable[[Any, int, int], Tensor]
    true_tracks: Callable[[Any, Tensor, int, int], tuple[Tensor, Tensor]]
    moving_parts: Callable[[Any, Tensor, int, int], Tensor]
    captions: Callable[[Any], list[str]]
    objects: int
    album: Album | None = None


def procedural_world() -> World:
    """Marbled grounds and two-tone shapes; needs no files."""
    return World(
        lambda kinds, frames, seeds, height, movers: procedural.sample_scenes(kinds, frames, seeds, movers),
        procedural.render,
        procedural.true_tracks,
        procedural.moving_parts,
        procedural.scene_captions,
        procedural.MAX_OBJECTS,
    )


def picture_world(folder: str | Path, split: Split) -> World:
    """Photographs and cut-outs of an album's split.

    Raises:
        AlbumError: there is no such album; the message names the command that makes it.
    """
    album = Album(folder, split)
    return World(
        partial(pictures.sample_picture_scenes, album),
        pictures.render_pictures,
        pictures.picture_tracks,
        pictures.picture_parts,
        pictures.picture_captions,
        pictures.MAX_OBJECTS,
        album,
    )
