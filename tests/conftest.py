"""What all tests share: one torch thread, so that small tensors do not wait for a second one."""

import torch

torch.set_num_threads(1)
