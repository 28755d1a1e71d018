"""Wait for a Ray cluster: python deploy/wait_for.py HOST:PORT SECONDS [NODES]

Without NODES, wait until something listens at HOST:PORT; else, on one of its nodes, until so many have joined. The
sweep begins with those that are there, if some are late.
"""

import socket
import sys
import time


def main() -> None:
    deadline = time.monotonic() + float(sys.argv[2])
    if len(sys.argv) > 3:
        wait_for_nodes(sys.argv[1], int(sys.argv[3]), deadline)
    else:
        wait_for_port(sys.argv[1], deadline)


def wait_for_nodes(address: str, num_nodes: int, deadline: float) -> None:
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    while (num_alive := sum(node["Alive"] for node in ray.nodes())) < num_nodes and time.monotonic() < deadline:
        time.sleep(0.5)
    print(f"{num_alive} of {num_nodes} nodes have joined the cluster", flush=True)


def wait_for_port(address: str, deadline: float) -> None:
    host, _, port = address.rpartition(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"nothing listens at {address} after {sys.argv[2]} s: {error}")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
