"""For Beam's --setup_file, which wants a setup.py: metadata and settings are in pyproject.toml.

Beam sends a source distribution to the workers and installs it there without extras. So the distribution, and only
that, depends on what workers need, in the versions of requirements.lock.
"""

import os
import re
import tomllib

from setuptools import setup
from setuptools.command.sdist import sdist

WORKER_EXTRAS = ("beam", "gcp")


class WorkerDistribution(sdist):
    """A source distribution whose dependencies are those of workers."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, [name for name in files if not name.startswith("tests")])
        path = os.path.join(base_dir, "pyproject.toml")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        lines = "".join(f'  "{pinned}",\n' for pinned in worker_dependencies(tomllib.loads(text)["project"]))
        os.unlink(path)  # it may be a hard link to the project's own
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                re.sub(r"(?m)^dependencies = \[\n(?:.*\n)*?\]", lambda _: f"dependencies = [\n{lines}]", text)
            )


def worker_dependencies(project):
    """What workers install: our dependencies and those of the extras, each in the version of the lock."""
    with open("requirements.lock", encoding="utf-8") as file:
        versions = dict(line.strip().split("==") for line in file if re.match(r"[\w.-]+==", line))
    extras = [wanted for extra in WORKER_EXTRAS for wanted in project["optional-dependencies"][extra]]
    found = {}
    for wanted in [*project["dependencies"], *extras]:
        name = re.match(r"[\w.-]+(?:\[[\w,]+\])?", wanted)[0]
        bare = name.split("[")[0]
        found[bare] = max(f"{name}=={versions[bare]}", found.get(bare, ""), key=len)
    return sorted(found.values())


setup(cmdclass={"sdist": WorkerDistribution})
