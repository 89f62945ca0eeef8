"""One result, to be made again elsewhere: as a command line, as Python, as curl."""

import base64
import io
import shlex
from pathlib import Path
from typing import Any

from PIL import Image

from models.serving.make_video import Wish
from models.serving.studio.drawing import Drawing
from models.strokes.formats.project import as_object

OPTIONS = {
    "num_inference_steps": "--steps",
    "guidance_scale": "--guidance-scale",
    "trajectory_guidance_scale": "--trajectory-guidance-scale",
    "solver": "--solver",
    "controlnet_conditioning_scale": "--control-scale",
    "control_guidance_start": "--control-start",
    "control_guidance_end": "--control-end",
}


def as_request(drawing: Drawing, wish: Wish) -> dict[str, Any]:
    """The wish as a scoring server takes it."""
    strokes = as_object(drawing.trajectories)
    kept = {key: value for key, value in strokes.items() if key not in ("width", "height")}
    options: dict[str, Any] = {name: value for name, value in wish.options.items() if name != "solver"}
    if wish.keyframes:
        options["keyframes"] = [{"frame": frame, "image": _png(picture)} for frame, picture in wish.keyframes]
    return {
        "image": base64.b64encode(drawing.picture_bytes).decode(),
        "mode": wish.mode,
        "prompt": wish.prompt,
        "negative_prompt": wish.negative_prompt,
        "seed": wish.seed,
        **kept,
        **options,
    }


def as_command(wish: Wish, folder: Path, picture: Path, model: str) -> str:
    """The command line of `generate`."""
    words = ["image-conductor", "generate", "--model", model, "--image", str(picture)]
    words += [f"--keyframe={frame}={folder / f'keyframe-{frame}.png'}" for frame, _ in wish.keyframes]
    words += ["--trajectories", str(folder / "strokes.json"), "--mode", wish.mode, f"--prompt={wish.prompt}"]
    words += [f"--negative-prompt={wish.negative_prompt}"] if wish.negative_prompt else []
    words += ["--seed", str(wish.seed)]
    for name, option in OPTIONS.items():
        value = wish.options.get(name, ...)
        if value is None and name == "trajectory_guidance_scale":
            words.append("--plain-guidance")
        elif value is not ... and value is not None:
            words.append(f"{option}={value}")
    words += [f"--lora-weight={name}={weight}" for name, weight in (wish.options.get("personal_loras") or {}).items()]
    return shlex.join([*words, "--output", "video.mp4"])


def as_python(wish: Wish, folder: Path, picture: Path, model: str) -> str:
    """The same in Python."""
    return "\n".join(
        [
            "from pathlib import Path",
            "",
            "from models.serving.image import read_image",
            "from models.serving.load import load_model, place",
            "from models.serving.make_video import Wish, make_video",
            "from models.strokes.trajectories import load_trajectories",
            "",
            f"pipeline = place(load_model({model!r}))",
            "wish = Wish(",
            f"    read_image(Path({str(picture)!r})).image,",
            f"    load_trajectories({str(folder / 'strokes.json')!r}),",
            f"    mode={wish.mode!r},",
            f"    prompt={wish.prompt!r},",
            f"    negative_prompt={wish.negative_prompt!r},",
            f"    seed={wish.seed},",
            f"    options={dict(wish.options)!r},",
            *_python_keyframes(wish, folder),
            ")",
            'Path("video.mp4").write_bytes(make_video(pipeline, wish).data)',
        ]
    )


def _python_keyframes(wish: Wish, folder: Path) -> list[str]:
    """The lines of `keyframes`, if there are any."""
    if not wish.keyframes:
        return []
    files = [(frame, str(folder / f"keyframe-{frame}.png")) for frame, _ in wish.keyframes]
    pairs = [f"        ({frame}, read_image(Path({file!r})).image)," for frame, file in files]
    return ["    keyframes=(", *pairs, "    ),"]


def _png(picture: Image.Image) -> str:
    """Base64 of a picture without loss."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def as_curl(wish: Wish, folder: Path, url: str) -> str:
    """The same as a request to a scoring server. A solver is no field of a request: a comment says so if one is set."""
    body = shlex.quote(f"@{folder / 'request.json'}")
    decode = "import base64, json, sys; "
    decode += "sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)['predictions'][0]['video']))"
    solver = wish.options.get("solver")
    comment = f"# The server takes the solver of its model. This video was made with {solver}.\n" if solver else ""
    return (
        f"{comment}curl -s {shlex.quote(url + '/invocations')} -H 'Content-Type: application/json' -d {body} \\\n"
        f'  | python -c "{decode}" > video.mp4'
    )
