"""Telling that something did not fit into memory, whatever the device."""

from __future__ import annotations

import gc

import torch

# What allocators of torch say in a plain RuntimeError.
SENTENCES = ("can't allocate memory", 'not enough memory', 'out of memory')


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that memory was exhausted, on the processor or an accelerator."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sentence in str(error) for sentence in SENTENCES)


def release_memory() -> None:
    """Gives back what a failed attempt has left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
