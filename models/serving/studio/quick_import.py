"""Import gradio in less time.

gradio writes type stubs beside its own files whenever it is imported, which is nearly half of its import. Only gradio's
developers need them. Garbage collection is off meanwhile, since it finds nothing.
"""

import gc
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from models.errors import UserError

STUBS = "gradio.component_meta"


def import_gradio() -> None:
    """Import gradio without its stubs. Raises UserError where it is not installed."""
    finder = _WithoutStubs()
    sys.meta_path.insert(0, finder)
    gc.disable()
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise UserError("studio: gradio is missing; install it with: pip install 'image-conductor[studio]'") from None
    finally:
        gc.enable()
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


class _WithoutStubs(MetaPathFinder):
    """An import hook that runs before all others and replaces one function of one module."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname != STUBS or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_without_stubs(module: ModuleType) -> None:
            execute(module)
            module.create_or_modify_pyi = lambda *_: None  # type: ignore[attr-defined]

        spec.loader.exec_module = execute_without_stubs  # type: ignore[method-assign]
        return spec
