"""Wait until something listens at HOST:PORT: python deploy/wait_for.py HOST:PORT SECONDS"""

import socket
import sys
import time


def main() -> None:
    host, _, port = sys.argv[1].rpartition(":")
    deadline = time.monotonic() + float(sys.argv[2])
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"nothing listens at {sys.argv[1]} after {sys.argv[2]} s: {error}")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
