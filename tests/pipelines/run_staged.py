"""Runs a pipeline that was staged for Dataflow, as Dataflow would: from the proto alone, with a worker pool.

    python run_staged.py gs://bucket/…/pipeline.pb

Only the Docker environment is swapped, for a worker pool that is a process of its own. Neither has our __main__, and
what workers do not install cannot be imported in the pool. Prints the counters as JSON.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

NOT_ON_WORKERS = [
    *("airflow", "hypothesis", "pycocotools", "pytest"),
    *("pytorch_lightning", "skimage", "tensorboard", "torch"),
]
_BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed on workers", name=name)
sys.meta_path.insert(0, Blocker())
"""


@contextlib.contextmanager
def worker_pool(folder: Path) -> Iterator[str]:
    """A Beam worker pool with the workers' dependencies only; yields its address."""
    (folder / "sitecustomize.py").write_text(_BLOCKER.format(names=set(NOT_ON_WORKERS)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"  # the pool starts a bare `python`
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder)}
    module = "apache_beam.runners.worker.worker_pool_main"
    with open(folder / "pool.log", "wb") as log:
        command = [sys.executable, "-m", module, f"--service_port={port}"]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, (folder / "pool.log").read_text()
            time.sleep(0.2)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait()


def run(staged: str, pool: str) -> dict[str, int]:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.portability import common_urns
    from apache_beam.portability.api import beam_runner_api_pb2 as api
    from apache_beam.portability.api import endpoints_pb2
    from apache_beam.runners.portability.fn_api_runner import fn_runner

    from stores import files

    pipeline = api.Pipeline.FromString(files.read_bytes(staged))
    docker = common_urns.environments.DOCKER.urn
    swapped = [env for env in pipeline.components.environments.values() if env.urn == docker]
    assert swapped
    for environment in swapped:
        environment.urn = common_urns.environments.EXTERNAL.urn
        endpoint = endpoints_pb2.ApiServiceDescriptor(url=pool)
        environment.payload = api.ExternalPayload(endpoint=endpoint).SerializeToString()
        del environment.dependencies[:]
    options = PipelineOptions(pickle_library="cloudpickle")
    result = fn_runner.FnApiRunner().run_via_runner_api(pipeline, options)
    result.wait_until_finish()
    found: dict[str, int] = {}
    for counter in result.metrics().query()["counters"]:
        name = counter.key.metric.name
        found[name] = found.get(name, 0) + (counter.committed or 0)
    return found


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder, worker_pool(Path(folder)) as pool:
        print(json.dumps(run(sys.argv[1], pool)))
