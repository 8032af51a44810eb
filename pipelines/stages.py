"""The stage table: which stages there are, in which order, and how each is made from the configuration."""

from typing import TYPE_CHECKING, cast

from pipelines.config import Config
from stores.model_files import model_uri, put_model

if TYPE_CHECKING:
    from transforms.stage import Stage

STAGES = ("frames", "pose", "render", "flow")


def store_name(stage: str, config: Config) -> str:
    """The store that a stage fills: each render variant has its own."""
    return f"render/{config.render.variant}" if stage == "render" else stage


def make_stage(stage: str, config: Config) -> "Stage":
    """Builds a stage; heavy libraries are imported only here.

    Raises:
        ValueError: an unknown stage, or a model file that is missing.
    """
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}; known: {', '.join(STAGES)}")
    if stage == "frames":
        from transforms.frames import FramesStage

        return cast("Stage", FramesStage(config.frames))
    if stage == "pose":
        return _pose(config)
    if stage == "render":
        from transforms.render import RenderStage

        return cast("Stage", RenderStage(config.render))
    from transforms.flow import FlowStage

    return cast("Stage", FlowStage(config.flow))


def _pose(config: Config) -> "Stage":
    if config.pose.backend == "file":
        from transforms.pose_file import KeypointsStage

        return cast("Stage", KeypointsStage(config.pose))
    from transforms.pose import PoseStage, model_file

    digest, uri = model_uri(config.workspace, model_file(config.pose))
    return cast("Stage", PoseStage(config.pose, model_sha256=digest, model_path=uri))


def put_models(stage: "Stage", config: Config) -> None:
    """Puts what workers need beside their inputs into the workspace."""
    uri = getattr(stage, "model_path", None)
    if uri:
        from transforms.pose import model_file

        put_model(model_file(config.pose), uri)
