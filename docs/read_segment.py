#!/usr/bin/env python3
"""Reads a segment of lastlayer's cache with NumPy alone; the format is described in ARCHITECTURE.md.

    python3 read_segment.py CACHE/spaces/ID/NAME.seg
"""
import struct
import sys

import numpy as np

KEY = np.dtype([("content", "u1", 32), ("view", "<u4"), ("zero", "<u4"), ("checksum", "u1", 8)])


def read(path):
    """Returns header (a dict), contents [rows, 32] u8, views [rows] u32 and rows [rows, dim] f32, mapped from the file."""
    data = np.memmap(path, np.uint8, "r")
    magic, length, zero = struct.unpack("<8sII", data[:16].tobytes())
    if magic != b"LLSEGM01" or zero:
        raise ValueError(f"{path} is no segment")
    encoded = data[16 : 16 + length].tobytes()
    fixed = struct.Struct("<IIQ32sQQ32s")
    names = "format", "dim", "rows", "space", "keys_offset", "rows_offset", "keys_blake3"
    header = dict(zip(names, fixed.unpack_from(encoded)))
    if header["format"] != 1:
        raise ValueError(f"{path} has format {header['format']}; this script reads format 1")
    position = fixed.size
    for name in "device", "runtime", "program":
        (count,) = struct.unpack_from("<Q", encoded, position)
        position += 8 + count
        header[name] = encoded[position - count : position].decode()
    dim, rows = header["dim"], header["rows"]
    keys = data[header["keys_offset"] :][: rows * KEY.itemsize].view(KEY)
    values = data[header["rows_offset"] :].view("<f4").reshape(rows, dim)
    return header, keys["content"], keys["view"], values


def main(path):
    header, contents, views, rows = read(path)
    print(f"{header['rows']} rows of {header['dim']} numbers, computed on {header['device']}", end=" ")
    print(f"with ONNX Runtime {header['runtime']} by lastlayer {header['program']}")
    for content, view, row in list(zip(contents, views, rows))[:10]:
        print(f"{content.tobytes().hex()} view {view}: {' '.join(f'{value:.4g}' for value in row[:6])} …")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
