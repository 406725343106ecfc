"""Ask one address many times, each time over a new connection, and print each answer as a line of JSON.

    podwire exec pod/default/client -- python3 examples/fetch.py http://users:8080/ 20

For machines without curl. A request that fails is a line too: {"error": "..."}; the exit status is then 1.
"""

import json
import sys
import urllib.request


def main() -> int:
    """Read the words, ask, print."""
    url, times = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    failed = 0
    for _ in range(times):
        try:
            with opener.open(url, timeout=5) as answer:
                print(json.dumps(json.load(answer)), flush=True)
        except (OSError, ValueError) as error:
            failed += 1
            print(json.dumps({"error": str(error)}), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
