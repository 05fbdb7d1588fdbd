"""Types that all wrappers share."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

Observation = NDArray[np.float32]
Action = NDArray[np.int8]
Env = gymnasium.Env[Observation, Action]
Step = tuple[Observation, float, bool, bool, dict[str, Any]]
