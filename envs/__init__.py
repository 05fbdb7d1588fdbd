"""The world: plant, sensing, stimulation, Gymnasium environments.

Importing this package registers ``sea_dbs/BasalGanglia-v0`` with Gymnasium.
"""
