"""Swingby: any dataset at memory speed, in front of the storage it lies on.

import swingby

dataset = swingby.open("s3://bucket/images")      # or a directory
sample = dataset[7]                               # sample.key, sample.data
for batch in swingby.Loader(dataset, batch_size=256, shuffle=True):
    data, offsets = batch.packed()
"""

from __future__ import annotations

import logging

from swingby.api import open, prefetch, read, read_into
from swingby.data.dataset import Batch, Dataset, Sample
from swingby.data.decode import Decode
from swingby.data.loader import Loader
from swingby.data.mixture import Mixture
from swingby.errors import SwingbyError

__version__ = "0.1.0"

logging.getLogger("swingby").addHandler(logging.NullHandler())  # silent unless the program listens

__all__ = [
    "Batch",
    "Dataset",
    "Decode",
    "Loader",
    "Mixture",
    "Sample",
    "SwingbyError",
    "open",
    "prefetch",
    "read",
    "read_into",
]
