"""Import what computes after the page has opened, in one thread at a time.

Two threads that import overlapping modules from different ends can find half a module. So every import of the page's
functions comes after a call of one of these.
"""

import threading

_LIGHT, _HEAVY = threading.Lock(), threading.Lock()


def import_light() -> None:
    """Import what reads, places and follows strokes: scipy, OpenCV and PyAV. Takes under a second."""
    with _LIGHT:
        import models.serving.studio.estimate
        import models.serving.studio.importing  # noqa: F401


def import_heavy() -> None:
    """Import what makes and measures videos as well: torch and diffusers. Takes seconds."""
    import_light()
    with _HEAVY:
        import models.serving.load
        import models.serving.studio.work  # noqa: F401
