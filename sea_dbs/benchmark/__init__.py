"""Every controller on every task with every seed, as jobs that are run once: `jobs`, `play`, two engines, tables."""
