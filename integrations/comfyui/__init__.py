"""ComfyUI custom nodes: load a model, make strokes from coordinates or tracks, sample a video.

Put a link to this folder into ComfyUI's `custom_nodes`, and install the project into ComfyUI's Python:
`pip install -e <folder of the project>`.
"""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
