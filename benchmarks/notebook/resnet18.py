"""ResNet-18 as the paper's notebook trains it: torchvision's transforms on PIL images, a DataLoader, an eager loop.

Written from the record of what the notebook ran, to compare speed with: each image becomes a PIL image and is flipped,
cropped and normalised by itself, in the training's own process, and the loss is read after each step.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import models, transforms

Json = dict[str, Any]
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # the notebook's


class PictureDataset(Dataset[tuple[Any, int]]):
    """Images in memory as torchvision's CIFAR10 gives them: a PIL image, transformed, and its class."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Any) -> None:
        self.images, self.labels, self.transform = images, labels.astype(int).tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def start(images: np.ndarray, labels: np.ndarray, batch_size: int, device: str) -> tuple[Json, Json]:
    """A function that trains on some rows and reports each step to a log, and what must be the same in ours."""
    transform = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            transforms.RandomCrop(32, padding=4),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    dataset = PictureDataset(images, labels, transform)
    model = models.resnet18(weights=None, num_classes=10).to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

    def train(order: np.ndarray, log: Any) -> None:
        loader = DataLoader(Subset(dataset, order.tolist()), batch_size=batch_size, shuffle=True)
        model.train()
        running_loss, correct, total = 0.0, 0, 0
        for step, (inputs, targets) in enumerate(loader, start=1):
            inputs, targets = inputs.to(device), targets.to(device)
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            _, predicted = torch.max(outputs, 1)
            total += targets.size(0)
            correct += (predicted == targets).sum().item()
            log.step(step, running_loss / step, correct / total)

    return {"as it is": train}, settings(model)


def settings(model: nn.Module) -> Json:
    """What must be the same in all ways."""
    return {
        "threads": torch.get_num_threads(),
        "weights": sum(weight.numel() for weight in model.state_dict().values()),
        "augmentation": "flip_crop",
    }
