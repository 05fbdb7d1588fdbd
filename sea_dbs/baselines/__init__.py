"""Learners from elsewhere, trained on the same environments: PPO, DQN and QR-DQN of Stable-Baselines3 (`outsiders`)."""
