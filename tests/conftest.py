"""Settings of the whole suite: generated inputs are the same in every run."""

from __future__ import annotations

import torch
from hypothesis import settings

settings.register_profile("suite", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("suite")
torch.set_num_threads(1)
