"""A real Ray cluster on this machine: a head without processors, and machines with one each."""

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

HAS_RAY = importlib.util.find_spec("ray") is not None


def require_ray() -> None:
    if not HAS_RAY:
        pytest.skip("needs the package ray")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two machines with a processor each; the test process is a driver beside them.

    A test that removes a machine adds another one.
    """
    require_ray()
    import ray  # noqa: PLC0415
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        try:
            for _ in range(2):
                made.add_node(num_cpus=1)
            made.wait_for_nodes()
            yield made
        finally:
            ray.shutdown()
            made.shutdown()
