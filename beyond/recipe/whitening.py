"""The first layer's filters, which whiten the patches of the training images and are not trained.

Page, "How to train your ResNet" (2019), part 8; Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024, arXiv
2404.00498), section 3.2.
"""

import torch
from torch.nn import functional

SIDE = 2  # pixels
IMAGES = 5000  # that the patches are taken from, as published
EPS = 5e-4  # added to each variance, as published: or the filters of the faintest directions would amplify noise


def patch_moments(images: torch.Tensor) -> torch.Tensor:
    """The second moments of all 2x2 patches, float64 (12, 12), of normalised images (N, 3, H, W)."""
    patches = functional.unfold(images, SIDE).transpose(1, 2).reshape(-1, 3 * SIDE**2).double()
    return patches.T @ patches / len(patches)


def whitening_filters(images: torch.Tensor, eps: float = EPS) -> torch.Tensor:
    """Filters whose outputs are uncorrelated and, but for `eps`, of mean square 1 over the patches of the images.

    Args:
        images: float (N, 3, H, W), normalised.
        eps: Added to the variance of each direction.

    Returns:
        float32 (12, 3, 2, 2): the eigenvectors of the patches' second moments, each over sqrt(eigenvalue + eps), the
        greatest eigenvalue first.
    """
    eigenvalues, eigenvectors = torch.linalg.eigh(patch_moments(images))
    filters = (eigenvectors / (eigenvalues + eps).sqrt()).T.flip(0)
    return filters.reshape(-1, 3, SIDE, SIDE).float()
