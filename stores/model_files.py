"""Model files that workers need travel through the workspace, named by digest."""

import os
import tempfile

from stores import files
from stores.checks import Damaged

FOLDER = "models"


def model_uri(workspace: str, path: str) -> tuple[str, str]:
    """The sha256 of a model file, and where in the workspace it belongs.

    Raises:
        FileNotFoundError: there is no such file.
    """
    digest = files.digest(path).hexdigest()
    return digest, files.join(workspace, FOLDER, digest, os.path.basename(path))


def put_model(path: str, uri: str) -> None:
    """Copies a model file into the workspace, unless it is there."""
    if not files.exists(uri):
        files.put_file(path, uri)


def local_model(uri: str) -> str:
    """A local path of a model in a workspace; fetched once a machine where the workspace is remote.

    Raises:
        ValueError: what lies in the workspace is not what its name says.
    """
    if files.is_local(uri):
        return files.local_path(uri)
    digest, name = uri.split("/")[-2:]
    path = os.path.join(tempfile.gettempdir(), f"perfnet-models-{os.getuid()}", digest, name)
    if not os.path.exists(path) or files.digest(path).hexdigest() != digest:
        files.put_bytes(path, files.read_bytes(uri))
        if files.digest(path).hexdigest() != digest:
            raise Damaged(f"{files.printable(uri)} is damaged; remove it and run the same command again")
    return path
