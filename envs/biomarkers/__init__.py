"""Biomarkers of the parkinsonian state, read from spikes."""
