#!/usr/bin/env python3
"""Cut the bundled subset of Fashion-MNIST out of the whole data set.

Source: the Debian package dataset-fashion-mnist (MIT licence, Zalando SE; see LICENSE).
Output: the first 10,000 training and the first 1,000 test images with their labels, as
gzipped IDX files under their public names, in this folder or in the folder given.

The output depends on nothing but the source files: gzip's time stamp is 0 and no file name
is stored. Another zlib may compress to other bytes of the same content; `--check` therefore
compares what is inside.

IDX: u32 magic (0x803 images, 0x801 labels), u32 count, for images also u32 rows and u32
columns, big-endian; then one unsigned byte per pixel or label.

usage: make.py [--source DIR] [--check] [OUTPUT]
"""
import argparse
import gzip
import os
import struct
import sys

COUNTS = {"train": 10_000, "t10k": 1_000}


def subset(source: bytes, name: str, count: int) -> bytes:
    """The first count items of an IDX file's content."""
    magic, total = struct.unpack_from(">II", source)
    if magic == 0x803:
        rows, columns = struct.unpack_from(">II", source, 8)
        head, size = 16, rows * columns
    elif magic == 0x801:
        head, size = 8, 1
    else:
        sys.exit(f"{name}: not an IDX file of images or labels (magic {magic:#x})")
    if total < count or len(source) != head + total * size:
        sys.exit(f"{name}: {total} items in {len(source)} bytes, want at least {count}")
    return struct.pack(">II", magic, count) + source[8 : head + count * size]


def main() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--source", default="/usr/share/datasets/fashion-mnist")
    p.add_argument("--check", action="store_true", help="compare with the files that are there")
    p.add_argument("output", nargs="?", default=here)
    args = p.parse_args()

    for part, count in COUNTS.items():
        for kind in ("images-idx3", "labels-idx1"):
            name = f"{part}-{kind}-ubyte.gz"
            with gzip.open(os.path.join(args.source, name)) as f:
                content = subset(f.read(), name, count)
            path = os.path.join(args.output, name)
            if args.check:
                with gzip.open(path) as f:
                    if f.read() != content:
                        sys.exit(f"{path}: differs from the first {count} items of the source")
            else:
                with open(path, "wb") as f:
                    f.write(gzip.compress(content, 9, mtime=0))
            print(f"{path}: {count} items, {os.path.getsize(path)} bytes")


if __name__ == "__main__":
    main()
