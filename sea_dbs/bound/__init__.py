"""How much the timing of pulses could win at a given rate: a search that knows what will come (``sea-dbs bound``)."""
