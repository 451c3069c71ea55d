"""PyTorch's DataLoader over a map-style dataset that gets each object with boto3.

    python -m swingby.bench.peers.dataloader_boto3 ENDPOINT BUCKET PREFIX COUNT WORKERS SIZE

Prints seconds and how many objects had the right bytes, as JSON. Credentials come from the AWS environment.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import boto3
import botocore.config
import torch.utils.data

from swingby.bench import data


class Objects(torch.utils.data.Dataset[tuple[int, bytes]]):
    """One object an index."""

    def __init__(self, endpoint: str, bucket: str, prefix: str, count: int) -> None:
        self._place = endpoint, bucket, prefix
        self._count = count
        self._client: Any = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[int, bytes]:
        endpoint, bucket, prefix = self._place
        if self._client is None:  # a worker's own: clients do not survive forks
            options = botocore.config.Config(s3={"addressing_style": "path"})
            self._client = boto3.client("s3", endpoint_url=endpoint, config=options)
        return index, self._client.get_object(Bucket=bucket, Key=f"{prefix}/{index:08d}")["Body"].read()


def main() -> None:
    """One epoch in random order."""
    endpoint, bucket, prefix, count, workers, size = sys.argv[1:7]
    objects = Objects(endpoint, bucket, prefix, int(count))
    loader = torch.utils.data.DataLoader(
        objects, batch_size=64, shuffle=True, num_workers=int(workers), collate_fn=list, prefetch_factor=4
    )
    started = time.perf_counter()
    found = [sample for batch in loader for sample in batch]
    seconds = time.perf_counter() - started
    right = sum(content == data.record(index, int(size)) for index, content in found)
    print(json.dumps({"seconds": seconds, "objects": len(found), "right": right}))


if __name__ == "__main__":
    main()
