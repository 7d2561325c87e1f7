"""Detection of out-of-memory errors on any device, and release of memory."""

from __future__ import annotations

import gc

import torch

# Texts of a plain RuntimeError from torch's allocators.
SENTENCES = ("can't allocate memory", 'not enough memory', 'out of memory')


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that memory was exhausted, on the processor or an accelerator."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sentence in str(error) for sentence in SENTENCES)


def release_memory() -> None:
    """Frees the memory that a failed attempt still holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
