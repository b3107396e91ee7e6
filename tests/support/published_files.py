"""Functions that make DeepSEA's .mat and Basset's .h5 in the published axis orders."""

from pathlib import Path

import h5py
import numpy as np
from scipy.io import savemat

#: Windows of 30 bases and 6 targets: all sizes differ, and none is 4.
WINDOW, TARGETS = 30, 6


def one_hot(
    windows: list[str], channels: str = "AGCT", *, dtype: type = np.uint8, n_value: float = 0
) -> np.ndarray:
    """(N, 4, length), base by base; with an `n_value`, of a type that holds it."""
    values = np.zeros((len(windows), 4, len(windows[0])), dtype=float if n_value else dtype)
    for row, window in enumerate(windows):
        for position, base in enumerate(window):
            if base == "N":
                values[row, :, position] = n_value
            else:
                values[row, channels.index(base), position] = 1
    return values


def basset_one_hot(windows: list[str], dtype: type = np.float16, n_value: float = 0) -> np.ndarray:
    """(N, 4, 1, length), channels A, C, G, T: what Basset reads."""
    return one_hot(windows, "ACGT", n_value=n_value)[:, :, None].astype(dtype)


def strand_pairs(rng: np.random.Generator, n: int) -> tuple[list[str], np.ndarray]:
    """n random windows and labels, then their reverse complements in the same order."""
    forward = ["".join(rng.choice(list("ACGTN"), WINDOW)) for _ in range(n)]
    turned = [w[::-1].translate(str.maketrans("ACGT", "TGCA")) for w in forward]
    labels = rng.integers(0, 2, (n, TARGETS), dtype=np.uint8)
    return forward + turned, np.concatenate([labels, labels])


def texts(codes: np.ndarray) -> list[str]:
    return ["".join("ACGTN"[code] for code in row) for row in codes]


def write_mat(path: Path, form: str, **arrays: np.ndarray) -> Path:
    """Write arrays that are given with rows first, windows as (N, 4, length).

    `form` is "v5" or "v7.3", which is HDF5 with reversed axes. The suffix "turned" reverses them
    once more. The suffix "gzip" compresses in chunks that do not divide the array evenly.
    """
    kind, _, how = form.partition(" ")
    turn = how == "turned" if kind == "v5" else how != "turned"
    arrays = {name: np.array(a.T, order="C") if turn else a for name, a in arrays.items()}
    if kind == "v5":
        savemat(path, arrays, do_compression=True)
        return path
    with h5py.File(path, "w", userblock_size=512) as file:  # as MATLAB does
        for name, array in arrays.items():
            filters: dict = {}
            if how == "gzip":
                filters = {"compression": "gzip", "chunks": tuple(-(-s // 3) for s in array.shape)}
            file.create_dataset(name, data=array, **filters)
    if form == "v7.3":
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


def write_h5(path: Path, **arrays: object) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    return path


def deepsea_files(folder: Path, **rows: int) -> tuple[list[Path], dict[str, list[str]]]:
    """Write a file of each split, train as v7.3 and the others as v5; return windows as well."""
    folder.mkdir(exist_ok=True)
    paths, truth = [], {}
    for seed, (split, n) in enumerate(rows.items()):
        windows, labels = strand_pairs(np.random.default_rng(seed), n)
        arrays = {f"{split}xdata": one_hot(windows), f"{split}data": labels}
        form = "v7.3" if split == "train" else "v5"
        paths.append(write_mat(folder / f"{split}.mat", form, **arrays))
        truth[split] = windows[:n]
    return paths, truth
