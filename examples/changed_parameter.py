"""A Gymnasium environment with one parameter changed: half of the cortical drive of the STN (hyperdirect pathway)."""

import gymnasium
import numpy as np

import envs
from envs.plant.state import draw_network


class WeakHyperdirect(gymnasium.Wrapper):
    def reset(self, *, seed=None, options=None):
        network = draw_network(np.random.default_rng(seed), pd=1.0)  # any network of the model; then the change
        network = network._replace(g_ctx_stn_ampa=0.5 * network.g_ctx_stn_ampa)
        return self.env.reset(seed=seed, options={**(options or {}), "network": network})


gymnasium.register("examples/WeakHyperdirect-v0", entry_point=lambda **keys: WeakHyperdirect(envs.make_env(**keys)))

if __name__ == "__main__":
    for name in (envs.ENV_ID, "examples/WeakHyperdirect-v0"):
        betas = [gymnasium.make(name, preset="paper").reset(seed=seed)[1]["P_beta"] for seed in range(8)]
        print(f"{name}: P_beta {np.mean(betas):.0f}, mean of {len(betas)} untreated networks")
