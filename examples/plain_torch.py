"""The RepVGG block alone, in a network of plain torch: train it, switch it, compare.

python examples/plain_torch.py
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from mmrepvgg import RepVGGBlock, reparameterize


def make_network() -> nn.Sequential:
    """``(N, 1, 8, 8)`` -> ``(N, 10)``."""
    return nn.Sequential(
        RepVGGBlock(1, 32),
        RepVGGBlock(32, 32),
        RepVGGBlock(32, 64, stride=2),
        RepVGGBlock(64, 64, groups=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def main() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16  # (1797, 1, 8, 8), 0 to 1
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(images))
    train, test = order[:1500], order[1500:]

    network = make_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(3):
        for batch in train[torch.randperm(len(train))].split(50):
            loss = F.cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    # In eval mode: batch norms that go by the batch are no fixed function, and can't be folded in.
    network.eval()
    deployed = reparameterize(network)
    with torch.no_grad():
        before, after = network(images[test]), deployed(images[test])
    accuracy = (after.argmax(1) == labels[test]).float().mean().item()
    print(f'top-1: {100 * accuracy:.1f}% of {len(test)} images')
    print(f'predictions that differ: {(before.argmax(1) != after.argmax(1)).sum().item()}')
    print(f'largest difference: {((before - after).abs().max() / before.abs().max()).item():.1e} of the largest output')


if __name__ == '__main__':
    main()
