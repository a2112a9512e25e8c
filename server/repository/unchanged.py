"""Whether a version's files are still those that it was loaded from."""

from trivet.server.repository.layout import ModelFolder


def changed_file(folder: ModelFolder, version: int) -> str:
    """One that has changed or gone since the folder was looked at; empty: none. In a thread: asks
    the disk."""
    place = folder.files(version).version_dir
    for name, size, modified_ns, inode in folder.versions[version]:
        try:
            status = (place / name).stat()
        except OSError:
            return name
        if (status.st_size, status.st_mtime_ns, status.st_ino) != (size, modified_ns, inode):
            return name
    return ""
