"""What the timing of pulses can win at a given rate: a search that knows the future (``sea-dbs foresight``)."""
