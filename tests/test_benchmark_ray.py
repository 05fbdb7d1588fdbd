"""The same jobs on a cluster of two nodes, one of which dies in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sea_dbs.benchmark.engine_ray import RayEngine
from sea_dbs.benchmark.run import run_jobs
from sea_dbs.benchmark.schedule import Schedule
from sea_dbs.benchmark.store import Files, Store
from sea_dbs.benchmark.suites import Options, job_of

ray = pytest.importorskip("ray")


def test_a_dying_node_loses_nothing_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    options = Options(1, 2, 3)
    jobs = [job_of("paper", name, seed, options) for seed in range(2) for name in ("never", "always")]
    store, kept = Store(tmp_path), []
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()

        class Watched(Schedule):
            def done(self, job: Any, files: Files) -> None:
                if not kept:
                    cluster.remove_node(second, allow_graceful=False)  # both nodes are at work
                kept.append(job.key)
                super().done(job, files)

        monkeypatch.setattr("sea_dbs.benchmark.run.Schedule", Watched)
        failures = run_jobs(store, jobs, RayEngine(cluster.address), "test", quiet=True)
        assert len(ray_nodes_alive(cluster)) == 1
    finally:
        cluster.shutdown()
    assert failures == {}
    assert sorted(kept) == sorted(job.key for job in jobs)  # every job once
    assert all(store.find(job) is not None for job in jobs)


def ray_nodes_alive(cluster: Any) -> list[Any]:
    """Nodes that the cluster still runs."""
    return list(cluster.list_all_nodes())
