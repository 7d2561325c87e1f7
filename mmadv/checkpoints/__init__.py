"""Safe loading of checkpoints from untrusted sources."""

from mmadv.checkpoints.loading import file_sha256, load_checkpoint_file, load_weights, use_safe_loading

__all__ = ['file_sha256', 'load_checkpoint_file', 'load_weights', 'use_safe_loading']
