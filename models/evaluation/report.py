"""The page reports/evaluation/index.html."""

from pathlib import Path
from typing import Any

from models.evaluation.claims import claims_of
from models.evaluation.paper import TABLE_1
from models.evaluation.pictures import ReportSection
from models.page import render_page

TITLES = {
    "still": "still copy of the picture",
    "no_control": "no control (image-to-video base alone)",
    "start": "motion ControlNet of the pre-training, untrained on the clips",
    "controlnet": "motion ControlNet, no LoRA",
    "camera_lora": "camera LoRA",
    "object_lora": "object LoRA",
    "both": "mode both",
    "real": "floor: real clips, their own tracks",
    "codec": "floor: real clips through the codec",
}
LEAKAGE_ROWS = {
    "object_mode_object": ("object mode: the object follows its stroke", "1"),
    "object_mode_background": ("object mode: the background follows it", "0"),
    "camera_mode_background": ("camera mode, one stroke on an object: the background follows it", "1"),
    "camera_mode_object_alone": ("camera mode, one stroke on an object: the object moves against the background", "0"),
    "camera_strokes_object_alone": ("camera mode, camera strokes: an object moves against the background", "0"),
}
BOTH_ROWS = {
    "object": "object strokes, camera strokes beside them",
    "object_alone": "the same object strokes alone, object LoRA",
    "camera": "background under camera strokes, object strokes beside them",
    "camera_alone": "background under the same camera strokes alone, camera LoRA",
}
BOTH_LEAKS = {
    "into_object": "the object follows the camera's strokes, beyond its own",
    "into_background": "the background follows the object's strokes",
}


def title_of(method: str) -> str:
    """A method's name in words."""
    if method.startswith("object_lora_"):
        return f"object LoRA, Eq. 5 with λ_trajs = {method.removeprefix('object_lora_')}"
    return TITLES[method]


def write_evaluation_report(path: Path, figures: dict[str, Any], sections: list[ReportSection]) -> None:
    """Write the page for the figures of metrics/evaluation.json and the pictures."""
    template = Path(__file__).with_name("report.html.j2")
    page = render_page(
        template,
        figures=figures,
        claims=claims_of(figures),
        sections=sections,
        title_of=title_of,
        leakage_rows=LEAKAGE_ROWS,
        both_rows=BOTH_ROWS,
        both_leaks=BOTH_LEAKS,
        table_1=TABLE_1,
    )
    path.write_text(page, encoding="utf-8")
