"""Damage to files: of bytes, of numbers in text, of JSON values, of the entries of zip files, of safetensors headers, of sets."""

from __future__ import annotations

import gzip
import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

NUMBER = re.compile(rb"\d+")
NUMBERS = [
    *(b"-1", b"0", b"1", b"2", b"3", b"4", b"7", b"255", b"65536", b"2147483647", b"-2147483648", b"4294967296"),
    *(b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"1e3", b"1e400", b"-0", b"0.5", b"1.0"),
    *(b"NaN", b"Infinity", b"null", b"true", b'"1"', b"1_0", b"0x10", b"01", b"+1", b" 1", b"", b"9" * 400, b"9" * 5000),
]
VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 5, 0.5, 2.0, 1e300, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 10**400),
    *("", "1", "x" * 1000, "\x00", "\ud800", [], {}, [[]], [[[]]], [0] * 2000, {"a": 1}),
]
DIGITS = b"0123456789"
Mutator = Callable[[bytes, Random], bytes]


def mutated(files: dict[str, bytes], random: Random) -> dict[str, bytes]:
    """Return a damaged copy of the files of a sample: mostly one file changed in up to three ways."""
    changed = dict(files)
    if len(files) > 1 and random.random() < 0.1:
        return _set_damage(changed, random)
    name = random.choice(sorted(changed))
    for _ in range(random.choice((1, 1, 2, 3))):
        changed[name] = random.choice(_mutators(changed[name]))(changed[name], random)
    return changed


def _mutators(content: bytes) -> list[Mutator]:
    """Return the kinds of damage that fit a content; those that know its structure come up as often as all others."""
    plain: list[Mutator] = [_flip, _overwrite, _truncate, _delete, _repeat, _insert]
    start = content[:16]
    if start.startswith(b"PK"):
        return plain + [_zip_entry] * len(plain)
    if start.startswith(b"\x1f\x8b"):
        return plain + [_gzip_content] * len(plain)
    if start.startswith(b"\x93NUMPY"):
        return plain + [_npy_header] * len(plain)
    if start[8:9] == b"{":
        return plain + [_safetensors_header] * len(plain)
    if start.lstrip()[:1] in (b"{", b"["):
        return plain + [_number] * 2 + [_json_value] * 4
    if all(byte < 128 for byte in content[:256]):
        return plain + [_number] * 3 + [_line] * 3
    return plain


def _set_damage(files: dict[str, bytes], random: Random) -> dict[str, bytes]:
    name, other = random.sample(sorted(files), 2)
    kind = random.randrange(4)
    if kind == 0:
        del files[name]
    elif kind == 1:
        files[name], files[other] = files[other], files[name]
    else:  # another number in the name: a rank or step that is missing, or there twice
        content = files.pop(name) if kind == 2 else files[name]
        numbers = list(NUMBER.finditer(name.encode()))
        place = random.choice(numbers) if numbers else None
        renamed = name if place is None else f"{name[: place.start()]}{random.choice((0, 1, 2, 10**8))}{name[place.end() :]}"
        files[renamed] = content
    return files


def _flip(content: bytes, random: Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 4, 16)) if damaged else 0):
        damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def _overwrite(content: bytes, random: Random) -> bytes:
    start = random.randrange(len(content) + 1)
    length = random.choice((1, 2, 4, 8))
    filling = random.choice((b"\x00", b"\xff", b"\x7f", b"\x80", random.randbytes(1))) * length
    return content[:start] + filling + content[start + length :]


def _truncate(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _delete(content: bytes, random: Random) -> bytes:
    start = random.randrange(len(content) + 1)
    return content[:start] + content[start + random.choice((1, 2, 8, 64)) :]


def _repeat(content: bytes, random: Random) -> bytes:
    """Splice a stretch of the content into another place."""
    start, place = random.randrange(len(content) + 1), random.randrange(len(content) + 1)
    stretch = content[start : start + random.choice((1, 4, 16, 256))]
    return content[:place] + stretch * random.choice((1, 1, 1, 50)) + content[place:]


def _insert(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content) + 1)
    odd = random.choice((random.randbytes(4), b"\xef\xbb\xbf", b"\x00", b"\r\n", b"[" * 3000, b'{"a":' * 3000, b",", b'"'))
    return content[:place] + odd + content[place:]


def _number(content: bytes, random: Random) -> bytes:
    places = list(NUMBER.finditer(content))
    if not places:
        return content
    place = random.choice(places)
    return content[: place.start()] + random.choice(NUMBERS) + content[place.end() :]


def _line(content: bytes, random: Random) -> bytes:
    lines = content.split(b"\n")
    place = random.randrange(len(lines))
    other = random.choice(lines)
    lines[place : place + random.randrange(2)] = random.choice(
        ([], [other], [other, other], [b""], [other + b",1"], [other + b"\t1"])
    )
    return b"\n".join(lines)


def _json_value(content: bytes, random: Random) -> bytes:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return _number(content, random)
    holders: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        value = waiting.pop()
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in pairs:
            holders.append((value, key))
            waiting.append(inner)
    if not holders:
        return json.dumps(random.choice(VALUES)).encode()
    holder, key = random.choice(holders)
    kind = random.randrange(5)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        holder[key] = [holder[key]]
    elif kind == 2 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif kind == 3 and isinstance(holder, dict):
        holder[random.choice(("", "x", str(random.choice(VALUES))[:40]))] = holder[key]
    else:
        holder[key] = random.choice(VALUES)
    return json.dumps(document).encode()


def _zip_entry(content: bytes, random: Random) -> bytes:
    """Damage an entry and pack the file anew with right checksums, so that the damage gets past them."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:  # an archive that is already damaged
        return _flip(content, random)
    if not entries:
        return content
    place = random.randrange(len(entries))
    name, inner = entries[place]
    kind = random.randrange(12)
    if kind == 0:
        del entries[place]
    elif kind == 1:
        entries.append((random.choice(("x", "../x", "data.pkl", "loads.npy", "head.npy")), inner))
    elif kind == 2:
        entries[place] = (name, bytes(1 << 22))
    else:
        entries[place] = (name, random.choice(_mutators(inner))(inner, random))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, inner in entries:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a name that is there twice
                archive.writestr(name, inner)
    return packed.getvalue()


def _gzip_content(content: bytes, random: Random) -> bytes:
    """Damage what is packed, which gets past the checksum."""
    try:
        inner = gzip.decompress(content)
    except Exception:  # a file that is already damaged
        return _flip(content, random)
    return gzip.compress(random.choice(_mutators(inner))(inner, random), mtime=0)


def _npy_header(content: bytes, random: Random) -> bytes:
    """Damage a number or word of the header and keep its stated length right where it can be."""
    if len(content) < 10:
        return content
    length = int.from_bytes(content[8:10], "little")
    header, data = content[10 : 10 + length], content[10 + length :]
    word = random.choice(((b"(", b"(("), (b"<i8", b"<f8"), (b"<i8", b"|O"), (b"<i8", b"<U9"), (b"<i8", b"|V8"), (b"<i8", b">i4")))
    other = random.choice(((b"False", b"True"), (b"(", b"[("), (b"}", b""), (b"'shape'", b"'x'"), (b"(", b"(0,"), (b"(", b"(1,")))
    header = random.choice((_number(header, random), header.replace(*word), header.replace(*other)))
    return content[:8] + min(len(header), 65535).to_bytes(2, "little") + header + data


def _safetensors_header(content: bytes, random: Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    header = random.choice((_json_value, _json_value, _number))(header, random)
    return len(header).to_bytes(8, "little") + header + data
