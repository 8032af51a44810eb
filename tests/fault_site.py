"""Real videos and a workspace over them, for tests that run the whole prepare chain on them."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.chain import Chain
from pipelines.config import Config, load_config
from pipelines.progress import Screen
from pipelines.samples import write_sample_videos
from stores import files
from stores.checks import StageFailed
from stores.clips import make_clips, write_clips
from stores.store import Store

STAGES = ("frames", "pose", "render", "flow")
STORES = ("frames", "pose", "render/rgb-bar-13-ratio", "flow")
OPTIONS = {"frames.shorter_side_px": 48, "frames.timeout_s": 2.0, "store.num_shards": 8, "run.workers": 1}
Digests = dict[str, list[tuple[int, str | None]]]


@dataclass(frozen=True)
class Site:
    """A folder of videos and a workspace over it."""

    videos: Path
    workspace: str

    def config(self, **options: Any) -> Config:
        return load_config(None, {"workspace": self.workspace, **OPTIONS, **options})

    def make(self) -> "Site":
        """Writes the clips table: the first ten frames of each video."""
        uris = sorted(self.videos.glob("*/*.mp4"))
        rows = [
            {"clip_id": u.parent.name, "uri": str(u), "stop_s": 0.4, "label": u.parent.name} for u in uris
        ]
        write_clips(self.workspace, make_clips(rows))
        return self

    def run(self, **options: Any) -> dict[str, int]:
        """Brings all stores up to date; stage → clips computed."""
        chain = Chain(self.config(**options), Screen(quiet=True))
        chain.run(STAGES)
        return {o.store: o.counters.get("computed", 0) for o in chain.outcomes}

    def digests(self) -> Digests:
        return {
            name: [(s.shard, s.sha256) for s in Store(self.workspace, name).require_snapshot().shards]
            for name in STORES
        }

    def clip(self, label: str) -> Path:
        return next((self.videos / label).glob("*.mp4"))

    def shards(self, store: str, suffix: str) -> list[Path]:
        folder = Path(self.workspace) / store / "shards"
        return sorted(p for p in folder.iterdir() if p.name.endswith(suffix))

    def check(self) -> None:
        """Every file that a snapshot or a summary names is there and is what it says."""
        for name in STORES:
            store = Store(self.workspace, name)
            names = [n for n in store.listing() if n.endswith(".json")]
            for summary in store.summaries(names).values():
                assert summary is not None
                if summary.data:
                    assert files.digest(store.shard_uri(summary.data)).hexdigest() == summary.sha256


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six short videos."""
    folder = tmp_path_factory.mktemp("samples")
    for clip in write_sample_videos(folder, clips_per_class=2)[1::2]:
        clip.path.unlink()
    return folder


@pytest.fixture(scope="module")
def calm(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Digests:
    site = Site(samples, str(tmp_path_factory.mktemp("calm"))).make()
    assert set(site.run().values()) == {6}
    return site.digests()


@pytest.fixture
def site(samples: Path, tmp_path: Path) -> Site:
    shutil.copytree(samples, tmp_path / "videos")
    return Site(tmp_path / "videos", str(tmp_path / "ws")).make()


def fails(site: Site, match: str, **options: Any) -> str:
    """A run that must fail in words, and leaves only whole files behind."""
    with pytest.raises(StageFailed, match=match) as found:
        site.run(**options)
    site.check()
    return str(found.value)
