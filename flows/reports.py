"""What a flow run shows in Prefect's UI: tables, curves and pictures of what the stages made."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from stages.data.paths import EVALUATION, EVALUATION_REPORT, REGISTRATION
from stages.data.tables import read_clips
from stages.params import SPLITS

CURVES = {name: Path("artifacts") / name / "loss.csv" for name in ("motion_controlnet", "camera_lora", "object_lora")}
MOST_PICTURES = 6
PICTURE_SIDE = 1024


def curation() -> None:
    """Clips kept and dropped, by reason."""
    create_table_artifact(curation_table(), key="clips", description="Videos by what became of them")


def curation_table() -> list[dict[str, Any]]:
    """One row per split, status and kind of reason, with the number of videos."""
    rows = []
    for split in SPLITS:
        clips = read_clips(split)
        kinds = clips["reason"].str.partition(":")[0].replace("", "-")
        for (status, reason), count in clips.groupby(["status", kinds]).size().items():
            rows.append({"split": split, "status": status, "reason": reason, "videos": int(count)})
    return rows


def training() -> None:
    """The loss curves; none where every stage took its weights from elsewhere."""
    curves = {name: pd.read_csv(path) for name, path in CURVES.items() if path.exists()}
    if not curves:
        return
    figure = Figure(figsize=(4 * len(curves), 3), layout="constrained")
    for axes, (name, curve) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        axes.plot(curve["step"], curve["loss"])
        axes.set(title=name, xlabel="step", ylabel="loss")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    create_image_artifact(_as_url(picture.getvalue(), "png"), key="loss", description="Training loss")


def evaluation() -> None:
    """Trajectory errors as a table, everything else as JSON, and the contact sheets."""
    metrics = json.loads(EVALUATION.read_text(encoding="utf-8"))
    create_table_artifact(errors_by_method(metrics), key="errors", description="Error in px at 384x256, by method")
    decision = json.loads(REGISTRATION.read_text(encoding="utf-8"))
    rest = {name: value for name, value in metrics.items() if name not in ("cam_mc", "obj_mc")}
    create_markdown_artifact(
        f"**{decision['model_name']}**: alias {decision['alias']} "
        f"{'moves' if decision['alias_moves'] else 'does not move'}: {decision['why']}\n\n"
        f"```json\n{json.dumps(rest, indent=2)}\n```",
        key="evaluation",
    )
    for number, path in enumerate(pictures()):
        create_image_artifact(picture_url(path), key=f"evaluation-{number}", description=path.stem)


def errors_by_method(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per method with both errors; a dash where a method has none."""
    methods = dict.fromkeys([*metrics["cam_mc"], *metrics["obj_mc"]])
    return [
        {"method": method, "CamMC": _error(metrics["cam_mc"], method), "ObjMC": _error(metrics["obj_mc"], method)}
        for method in methods
    ]


def pictures() -> list[Path]:
    """The first contact sheets of the report."""
    return sorted(path for path in EVALUATION_REPORT.rglob("*") if path.suffix in (".png", ".jpg"))[:MOST_PICTURES]


def picture_url(path: Path) -> str:
    """A picture, small enough for the server's database, as an address that needs no other server."""
    picture = Image.open(path).convert("RGB")
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    return _as_url(data.getvalue(), "jpeg")


def _error(errors: dict[str, Any], method: str) -> str:
    if method not in errors or errors[method]["px"] is None:
        return "-"
    result = errors[method]
    low, high = result["ci95"]
    return f"{result['px']:.2f} ({low:.2f} to {high:.2f}), n {result['n']}, {result['failures']} failed"


def _as_url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
