"""When a batch does not fit into memory."""

from __future__ import annotations

import torch


def out_of_memory(error: BaseException) -> bool:
    """Tell an exhausted memory from other failures.

    Parameters
    ----------
    error
        What a model raised.

    Returns
    -------
    bool
        ``True`` for an accelerator that is full, and for the CPU's allocator, which has no error of its own.

    Examples
    --------
    >>> out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    True
    >>> out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"))
    True
    >>> out_of_memory(RuntimeError("shapes can't be multiplied"))
    False
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    message = str(error)
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in message or "out of memory" in message)
