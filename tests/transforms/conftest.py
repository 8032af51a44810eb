import os
from pathlib import Path

import pytest

from transforms import movenet_model, pose_model


@pytest.fixture(scope="session")
def pose_bundle() -> Path:
    """The default pose model out of the cache, fetched once where it is missing."""
    try:
        return pose_model.default_model_path()
    except ValueError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def movenet(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """MoveNet as one file, packed outside the user's cache."""
    graph = real_data / "pose_models/movenet-multipose/movenet-multipose.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERFNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        return str(movenet_model.pack_model(str(graph)))
