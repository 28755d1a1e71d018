"""Mutations of a file or folder: each damages one thing, chosen by a random generator."""

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ODD_NUMBERS = (b"999999999999999999999999", b"-1", b"1e400", b"nan", b"0x10", b"1_0", "²".encode(), b"-0", b"1.5", b"")
ODD_TEXTS = (
    b"\0",
    b"\xff\xfe",
    b"\r",
    b"\n\n",
    b'"',
    b"'",
    b",",
    b"{",
    b"}",
    b"[",
    b":",
    b"\t",
    b"\xef\xbb\xbf",
    b"null",
)
ODD_NAMES = (
    "a\nb.png",
    "-rf.png",
    "b\udcff.png",
    "ü ☃.png",
    "'\"$(x).png",
    "n" * 250 + ".png",
    "CON.png",
    "%00.png",
    "[1].png",
)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Bytes with one to four changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(BYTES)(rng, data)
    return data


def _place(rng: random.Random, data: bytes) -> int:
    return rng.randrange(len(data) + 1)


def _flip(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return data
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: _place(rng, data)]


def _insert(rng: random.Random, data: bytes) -> bytes:
    place = _place(rng, data)
    return data[:place] + rng.choice((*ODD_TEXTS, *ODD_NUMBERS, rng.randbytes(5))) + data[place:]


def _take_out(rng: random.Random, data: bytes) -> bytes:
    place = _place(rng, data)
    return data[:place] + data[place + rng.choice((1, 3, 100)) :]


def _number(rng: random.Random, data: bytes) -> bytes:
    """Replace one number by another."""
    digits = [place for place in range(len(data)) if data[place : place + 1].isdigit()]
    if not digits:
        return data
    start = end = rng.choice(digits)
    while end < len(data) and data[end : end + 1].isdigit():
        end += 1
    return data[:start] + rng.choice(ODD_NUMBERS) + data[end:]


def _lines(rng: random.Random, data: bytes) -> bytes:
    """Delete, repeat, move or cut a line."""
    lines = data.split(b"\n")
    here, there = rng.randrange(len(lines)), rng.randrange(len(lines))
    how = rng.randrange(4)
    if how == 0:
        del lines[here]
    elif how == 1:
        lines.insert(there, lines[here])
    elif how == 2:
        lines[here], lines[there] = lines[there], lines[here]
    else:
        lines[here] = lines[here][: _place(rng, lines[here])] + b"\n"
    return b"\n".join(lines)


def _encode(rng: random.Random, data: bytes) -> bytes:
    return data.decode("latin-1").encode(rng.choice(("utf-16", "utf-32-le", "utf-8-sig", "cp037")), "replace")


def _replace_all(rng: random.Random, data: bytes) -> bytes:
    return rng.choice((b"", b"\0" * 100, rng.randbytes(200), b"PK\x03\x04" + data[4:], b"\n" * 50, b"a" * 70_000))


BYTES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *(_flip, _flip, _cut, _insert, _insert, _take_out, _number, _number, _lines, _lines, _encode, _replace_all),
)


def odd_image(rng: random.Random) -> bytes:
    """An unusual image, or a file that only starts like one."""
    out = io.BytesIO()
    how = rng.randrange(10)
    grey = Image.fromarray(np.full((48, 48), 7, np.uint8))
    if how == 0:  # a header that claims 60000x60000 pixels
        header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
        chunk = b"IHDR" + header
        return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    if how == 1:
        Image.fromarray(np.zeros((48, 48), np.uint16)).save(out, "PNG")
    elif how == 2:
        grey.convert("CMYK").save(out, "JPEG")
    elif how == 3:
        grey.save(out, "GIF", save_all=True, append_images=[grey.rotate(90)])
    elif how == 4:
        grey.convert("P").save(out, "PNG", transparency=3)
    elif how == 5:
        grey.convert("LA").save(out, "PNG")
    elif how == 6:
        Image.new("1", (48, 48)).save(out, "TIFF", compression="group4")
    elif how == 7:
        Image.new("L", (rng.choice((1, 2, 5000)), 1)).save(out, "PNG")
    elif how == 8:
        Image.fromarray(np.zeros((48, 48), np.float32)).save(out, "TIFF")
    else:
        exif = Image.Exif()
        exif[0x0112] = rng.choice((0, 6, 9, 255))
        grey.save(out, "JPEG", exif=exif)
    return mutate(rng, out.getvalue()) if rng.random() < 0.3 else out.getvalue()


def mutate_tree(rng: random.Random, root: Path) -> str:
    """Damage one thing in a folder; return a description."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    if not files:
        return "nothing left"
    path = rng.choice(files)
    name = path.relative_to(root)
    how = rng.choice(
        ("bytes",) * 8 + ("gone", "folder", "loop", "dangling", "image", "image", "copy", "move", "fifo", "file")
    )
    if how == "bytes":
        path.write_bytes(mutate(rng, path.read_bytes()))
    elif how == "image":
        path.write_bytes(odd_image(rng))
    elif how == "copy":
        folder = rng.choice([other.parent for other in files])
        odd = folder / rng.choice(ODD_NAMES)
        odd.write_bytes(path.read_bytes())
        return f"{name} copied to {odd.name[:30]!a}"
    elif how == "move":
        other = rng.choice(files)
        path.replace(other)
        return f"{name} over {other.relative_to(root)}"
    elif how == "file":  # a file where a folder is expected
        folder = path.parent
        if folder == root:
            return "nothing"
        for inside in sorted(folder.rglob("*"), reverse=True):
            inside.rmdir() if inside.is_dir() and not inside.is_symlink() else inside.unlink()
        folder.rmdir()
        folder.write_bytes(b"no folder")
    else:
        path.unlink()
        if how == "folder":
            path.mkdir()
        elif how == "loop":
            path.symlink_to(rng.choice((path, path.parent, root)))
        elif how == "dangling":
            path.symlink_to("/nonexistent/nowhere")
        elif how == "fifo":
            os.mkfifo(path)
    return f"{how}: {name}"
