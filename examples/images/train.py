"""Trains a small network to tell circles from squares, with PyTorch alone: python train.py [DIRECTORY].

docs/pytorch.md shows the two lines that make it read through Swingby.
"""

import io
import os
import sys
from itertools import starmap

import numpy as np
import torch
from torch.utils.data import DataLoader


class Files(torch.utils.data.Dataset):
    """Every file under a directory, in order of their names; a sample is what `transform((name, data))` returns."""

    def __init__(self, root, transform):
        self.root, self.transform = root, transform
        paths = starmap(os.path.join, ((folder, name) for folder, _, names in os.walk(root) for name in names))
        self.names = sorted(os.path.relpath(path, root) for path in paths)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        with open(os.path.join(self.root, self.names[index]), "rb") as file:
            return self.transform((self.names[index], file.read()))


def decode(sample):
    name, data = sample
    image = np.load(io.BytesIO(data)).astype(np.float32) / 255
    return torch.from_numpy(image)[None], float(name.startswith("circle"))


def train(root, *, epochs=6, shuffle=True, num_workers=2):
    torch.manual_seed(0)
    dataset = Files(root, decode)
    loader = DataLoader(dataset, batch_size=20, shuffle=shuffle, num_workers=num_workers)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 5, stride=2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 14 * 14, 1)
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(epochs):
        for images, are_circles in loader:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images)[:, 0], are_circles.float())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return losses


if __name__ == "__main__":
    losses = train(sys.argv[1] if len(sys.argv) > 1 else "images")
    print(f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last")
