"""Figures with units, short enough for one line."""


def format_bytes(size_bytes: float) -> str:
    """Decimal units, three figures or so: 950 B, 3.95 MB, 19.8 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000 or unit == "GB":
            break
        size_bytes /= 1000
    return f"{size_bytes:.3g} {unit}" if size_bytes < 1000 else f"{size_bytes:.0f} {unit}"
