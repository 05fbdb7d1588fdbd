"""Drivers of real stimulators, and the emulators they are tested against; see docs/stimulators.md.

Such a device judges nothing: the envelope and the lease live on the host alone (class "no device envelope"), so every
driver refuses to work outside bench mode. Research use only; not for human use.
"""
