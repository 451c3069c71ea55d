"""s3fs getting all objects with its own asynchronous batches.

    python -m swingby.bench.peers.s3fs_async ENDPOINT BUCKET PREFIX COUNT IN_FLIGHT SIZE

Prints seconds and how many objects had the right bytes, as JSON. Credentials come from the AWS environment.
"""

from __future__ import annotations

import json
import sys
import time

import s3fs

from swingby.bench import data


def main() -> None:
    """All objects once."""
    endpoint, bucket, prefix, count, in_flight, size = sys.argv[1:7]
    file_system = s3fs.S3FileSystem(
        endpoint_url=endpoint,
        config_kwargs={"max_pool_connections": int(in_flight), "s3": {"addressing_style": "path"}},
        use_listings_cache=False,
    )
    paths = [f"{bucket}/{prefix}/{number:08d}" for number in range(int(count))]
    file_system.cat(paths[:1])
    started = time.perf_counter()
    found = (
        file_system.cat(paths, batch_size=int(in_flight)) if len(paths) > 1 else {paths[0]: file_system.cat(paths[0])}
    )
    seconds = time.perf_counter() - started
    right = sum(found[path] == data.record(number, int(size)) for number, path in enumerate(paths))
    print(json.dumps({"seconds": seconds, "objects": len(found), "right": right}))


if __name__ == "__main__":
    main()
