"""EXIF and XMP data that say how an image is turned."""

from __future__ import annotations

import struct


def exif(orientation: int, order: str = "<", kind: int = 3, count: int = 1, more: int = 0) -> bytes:
    """EXIF data with this orientation, and so many other tags before it."""
    entries = b"".join(
        struct.pack(order + "HHLL", 0x0100 + number, 4, 1, number) for number in range(more)
    )
    value = struct.pack(
        order + ("L" if kind == 4 else "HH"), *([orientation] if kind == 4 else [orientation, 0])
    )
    entries += struct.pack(order + "HHL", 0x0112, kind, count) + value
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "LH", 8, 1 + more) + entries + bytes(4)


def xmp(orientation: int) -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
        b'"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF>'
        b"</x:xmpmeta>" % orientation
    )
