"""Zip files with the same bytes for the same content: sorted, with one date for all files."""

import stat
import time
import zipfile
from pathlib import Path

_EARLIEST = 315532800  # zip files know no date before 1980


def write_zip(archive: Path, folder: Path, epoch: int) -> Path:
    """Zip a folder, whose name is the archive's one entry at the top.

    Args:
        archive: file to write.
        folder: what goes in; links and executable files stay so.
        epoch: date of every file, in seconds since 1970.
    """
    date = time.gmtime(max(epoch, _EARLIEST))[:6]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            entry = zipfile.ZipInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}", date)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, so that the mode below counts
            if path.is_symlink():
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                target.writestr(entry, str(path.readlink()))
                continue
            mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
            entry.external_attr = (stat.S_IFREG | mode) << 16
            target.writestr(entry, path.read_bytes())
    return archive
