"""Distances between pictures, as src/evaluate/emoji/pyramid.rs measures them."""
import numpy as np

SIDE = 64
LEVELS = (16, 8, 4)


def features(pictures):
    """f64 [N, D], whose Euclidean distances are the pictures' distances in 8-bit steps."""
    rows = np.stack([np.asarray(picture) for picture in pictures]).astype(np.float64)  # [N, 64, 64, 3]
    parts = []
    for cells in LEVELS:
        size = SIDE // cells
        means = rows.reshape(len(rows), cells, size, cells, size, 3).mean(axis=(2, 4))
        parts.append(means.reshape(len(rows), -1) / np.sqrt(len(LEVELS) * cells * cells * 3))
    return np.concatenate(parts, axis=1)


def distances(queries, gallery):
    """f64 [N, G] between features [N, D] and [G, D]."""
    square = (queries**2).sum(1)[:, None] + (gallery**2).sum(1)[None] - 2 * queries @ gallery.T
    return np.sqrt(np.maximum(square, 0))


def between_styles(pictures):
    """Distances of all pairs of styles of one concept; pictures: concept -> {style: features [D]}."""
    found = []
    for styles in pictures.values():
        if len(styles) > 1:
            rows = np.stack([styles[s] for s in sorted(styles)])
            found.append(distances(rows, rows)[np.triu_indices(len(rows), 1)])
    return np.concatenate(found)
