"""Several processes of one run: the first makes what all of them read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_inside = False


@contextlib.contextmanager
def first_process_first(device: str = "auto") -> Iterator[None]:
    """A block that the first process leaves before the others enter it, so that they find its stages done.

    Inside another such block nothing is ordered anew: the first process would wait there for processes that wait for
    it. For the same reason no model is trained inside one; a finished training may be read.

    Args:
        device: the training's own, 'auto' or 'cpu': processes on a machine without an accelerator are ordered too.
    """
    global _inside
    if _inside or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    import torch
    from accelerate import PartialState

    _inside = True
    try:
        with PartialState(cpu=device == "cpu" or not torch.accelerator.is_available()).main_process_first():
            yield
    finally:
        _inside = False
