"""The page reports/evaluation/index.html."""

from pathlib import Path
from typing import Any

import jinja2

TITLES = {
    "still": "still copy of the picture",
    "no_control": "no control (image-to-video base alone)",
    "controlnet": "motion ControlNet, no LoRA",
    "camera_lora": "camera LoRA",
    "object_lora": "object LoRA",
    "real": "floor: real clips, their own tracks",
    "codec": "floor: real clips through the codec",
}
PAPER_TABLE_1 = [
    ("DragNUWA", 237.26, 1283.85, 48.72, 51.24),
    ("DragAnything", 243.17, 1287.15, 66.54, 60.97),
    ("Image Conductor", 209.74, 1116.17, 33.49, 42.38),
]


def title_of(method: str) -> str:
    """A method's name in words."""
    if method.startswith("object_lora_"):
        return f"object LoRA, Eq. 5 with λ_trajs = {method.removeprefix('object_lora_')}"
    return TITLES[method]


def write_report(path: Path, figures: dict[str, Any], pictures: dict[str, list[tuple[str, str]]]) -> None:
    """Write the page. `pictures`: section -> (title, file relative to the page)."""
    folder = Path(__file__).parent
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True)
    template = environment.get_template("report.html.j2")
    path.write_text(
        template.render(figures=figures, pictures=pictures, title_of=title_of, table_1=PAPER_TABLE_1), encoding="utf-8"
    )
