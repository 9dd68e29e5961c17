"""A Ray cluster of two nodes on the loopback, for one test: ``python ray_cluster.py``.

Says its address and the pid of its second node, which it loses when a line comes in. It ends with
its input.
"""

from __future__ import annotations

import sys

from ray._private import ray_constants
from ray.cluster_utils import Cluster


def main() -> None:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    node = cluster.add_node(num_cpus=1)
    (raylet,) = node.all_processes[ray_constants.PROCESS_TYPE_RAYLET]
    print(cluster.address, raylet.process.pid, flush=True)
    try:
        for _ in sys.stdin:
            cluster.remove_node(node, allow_graceful=False)
            print("lost", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
