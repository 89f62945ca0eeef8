import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from models.curation.outcome import View
from models.curation.poses import parse_camera_file, poses_at
from models.curation.quality import Bars
from models.curation.window import Window

WHOLE = View(0, 0, 1, 1)


def camera_text(times, angles=None, centres=None, intrinsics=(0.5, 0.9, 0.5, 0.5)):
    """A camera at `centres` that has turned by `angles` degrees about its y axis; times in seconds."""
    lines = ["https://www.youtube.com/watch?v=a"]
    for index, time in enumerate(times):
        rotation = Rotation.from_euler("y", angles[index] if angles else 0, degrees=True).as_matrix()
        shift = -rotation @ (centres[index] if centres else np.zeros(3))
        row = [*intrinsics, 0, 0, *np.column_stack([rotation, shift]).ravel()]
        lines.append(" ".join([str(round(time * 1e6)), *(f"{value:.12f}" for value in row)]))
    return "\n".join(lines) + "\n"


def at(text, times, view=WHOLE):
    return poses_at(parse_camera_file(text)[1], np.array(times), view)


def test_a_frame_at_a_known_time_has_the_pose_of_its_line():
    text = camera_text([1.0, 1.04, 1.1], [0, 10, 40], [[0, 0, 0], [1, 0, 2], [1, 1, 1]])
    _, path = parse_camera_file(text)
    poses, intrinsics = poses_at(path, path.times, WHOLE)
    assert np.allclose(poses, path.poses, atol=1e-9) and np.array_equal(intrinsics, path.intrinsics)


def test_between_two_poses_the_camera_turns_and_moves_evenly():
    poses, _ = at(camera_text([1.0, 1.1], [0, 60], [[0, 0, 0], [4, 0, 0]]), [1.025])
    rotation = poses[0, :, :3]
    assert np.allclose(Rotation.from_matrix(rotation).as_euler("yxz", degrees=True), [15, 0, 0])
    assert np.allclose(-rotation.T @ poses[0, :, 3], [1, 0, 0])


def test_a_frame_far_from_every_pose_has_none():
    poses, intrinsics = at(camera_text([1.0, 1.05, 2.0]), [0.8, 0.95, 1.1, 1.5, 1.95, 2.2, np.nan])
    unknown = [True, False, False, True, False, True, True]
    assert np.isnan(poses).all((1, 2)).tolist() == unknown and np.isnan(intrinsics).all(1).tolist() == unknown
    poses, _ = at(camera_text([1.0, 1.05]), [5.0])
    assert np.isnan(poses).all()


def test_lines_may_be_unordered_and_repeated():
    first, second, third = camera_text([1.0, 1.1, 1.1], [0, 20, 90]).splitlines()[1:]
    _, path = parse_camera_file("\n".join(["address", second, "", first, third]))
    assert path.times.tolist() == [1.0, 1.1]
    assert np.allclose(Rotation.from_matrix(path.poses[1, :, :3]).as_euler("yxz", degrees=True), [20, 0, 0])


def test_intrinsics_follow_the_crop():
    """A point seen at some pixel of the frame is seen at the same place of the picture in the clip."""
    (width, height), target = (200, 160), (96, 64)
    window = Window.of((width, height), Bars(left=0.1, right=0, top=0.125, bottom=0.05), target)
    fx, fy, cx, cy = intrinsics = 0.5, 0.8, 0.52, 0.49
    _, (cropped,) = at(camera_text([1.0, 1.1], intrinsics=intrinsics), [1.0], window.view)
    x, y = 0.1, -0.05  # X / Z, Y / Z
    marked = np.zeros((height, width, 3), np.float32)
    column, row = (cx + fx * x) * width, (cy + fy * y) * height
    marked[int(row) - 3 : int(row) + 4, int(column) - 3 : int(column) + 4] = 1
    from PIL import Image

    scaled = np.array(Image.fromarray((marked * 255).astype(np.uint8)).resize(window.scaled, Image.Resampling.BOX))
    clip = window.crop.crop(window.cut(scaled[None]))[0, ..., 0].astype(float)
    rows, columns = np.mgrid[: target[1], : target[0]] + 0.5
    seen = (clip * columns).sum() / clip.sum(), (clip * rows).sum() / clip.sum()
    expected = (cropped[2] + cropped[0] * x) * target[0], (cropped[3] + cropped[1] * y) * target[1]
    assert clip.shape == (64, 96) and np.allclose(seen, expected, atol=0.6)
    assert abs(cropped[0] * target[0] / (cropped[1] * target[1]) - fx * 200 / (fy * 160)) < 0.02


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "two frames or more"),
        (camera_text([1.0]), "two frames or more"),
        ("address\n1 2 3\n", "line 2: expected 19 numbers"),
        (camera_text([1.0, 1.1]) + "1 " + "x " * 18, "line 4: expected 19 numbers"),
        (camera_text([1.0, 1.1]) + "1 " + "nan " * 18, "line 4: expected 19 numbers"),
        (camera_text([1.0, 1.1]) + "1 " + "0.5 " * 18, "no rotation"),
        (camera_text([1.0, 1.1]) + "1 .5 .5 .5 .5 0 0 1 0 0 0 0 1 0 0 0 0 -1 0", "no rotation"),
    ],
)
def test_what_is_no_camera_file_says_why(text, message):
    with pytest.raises(ValueError, match=message):
        parse_camera_file(text)
