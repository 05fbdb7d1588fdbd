"""What the paper shows (arXiv 2507.06326), read off its figures: Fig. 4 to ±0.02, Figs. 5 to 7 to ±15."""

from __future__ import annotations

#: Fig. 4a: mean of the observation in training (P_beta/1000) by episode.
FIG4_EPISODES = (0, 50, 100, 150)
FIG4_BETA = {"ddpg": (0.479, 0.428, 0.402, 0.374), "sea-dbs": (0.471, 0.416, 0.385, 0.341)}
#: Fig. 4b: reward of an episode's decisions, at the start (range) and at the end.
FIG4_REWARD = {"ddpg": ((-1.5, -1.1), -0.08), "sea-dbs": ((-1.5, -1.0), 0.0)}
#: Fig. 5: P_beta at inference, by step.
FIG5_STEPS = (0, 5, 10)
FIG5_50HZ = {"ddpg": (465.0, 412.0, 360.0), "sea-dbs": (465.0, 345.0, 311.0)}
FIG5_30HZ_END = {"ddpg": (398.0, 418.0), "sea-dbs": (388.0, 408.0)}  # at step 10, range
#: Fig. 6: P_beta at step 10 with FP32 and FP16 weights.
FIG6 = {"ddpg": (371.0, 385.0), "sea-dbs": (310.0, 320.0)}
#: Fig. 7: the order at step 10, from the highest beta to the lowest.
FIG7_ORDER = ("gs-only", "ddpg", "pm-only", "sea-dbs")
#: Table II: the seed of the environment changes every so many steps; SEA-DBS is better at each.
TABLE2_STEPS = (10, 20, 50, 75)

NAMES = {"ddpg": "DDPG baseline", "sea-dbs": "SEA-DBS", "gs-only": "GS only", "pm-only": "PM only"}
