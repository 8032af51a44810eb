# Images from one file; docs/cloud.md says how to build and use each.
#
#   worker    what Dataflow starts on its machines (and Flink or Spark through Beam's portable runner)
#   template  the same, from which a Flex Template can be launched
#   launcher  perfnet for a machine that submits jobs or runs stages itself
#   train     the launcher with PyTorch and Lightning
#
#   docker build --target worker --tag $IMAGE .
#   docker build --target worker --build-arg TORCH=cu130 --tag $IMAGE-gpu .     flow.backend torch on GPUs

# One minor version of Python on all sides: Beam refuses to run on another one than the job was made with.
ARG PYTHON=3.11
# The version in requirements.lock, for the same reason; tests/test_dockerfile.py compares both.
ARG BEAM=2.77.0
# Which build of torch: cpu, cu130 (NVIDIA), or none to leave it out of workers.
ARG TORCH=none

# Only for the files that Dataflow starts a worker with; nothing of it is run here.
FROM apache/beam_python${PYTHON}_sdk:${BEAM} AS beam

# Only for the program that launches Flex Templates. Google moves this tag and documents no other.
# hadolint ignore=DL3007
FROM gcr.io/dataflow-templates-base/python311-template-launcher-base:latest AS flex

# slim, because half of the full image is compilers; bookworm, because its libraries are those of the wheels' tests.
FROM python:${PYTHON}-slim-bookworm AS base
# The system libraries of OpenCV and MediaPipe. Without them the image builds, and the first clip on a worker fails.
# Their versions are Debian's: the release is pinned above, and pinned packages vanish with the next security fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libegl1 libgl1 libgles2 libglib2.0-0 libxcb1 \
    && rm -rf /var/lib/apt/lists/*
# Everything is installed into one virtual environment, which is copied whole from the stage that builds it.
ENV VENV=/opt/venv
ENV PATH="$VENV/bin:$PATH" PYTHONUNBUFFERED=1
# Processes give the parallelism; threads of libraries would only compete for the same cores.
ENV OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OPENCV_FOR_THREADS_NUM=1 NUMBA_NUM_THREADS=1
ENV TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 TF_CPP_MIN_LOG_LEVEL=3 GLOG_minloglevel=2
# TV-L1 is compiled for the CPU that it runs on, once a container; the package's own folder may be read-only.
ENV NUMBA_CACHE_DIR=/tmp/numba

# Compilers, for the few packages that come without a wheel, stay in this stage.
FROM base AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
# Sources stay in this stage too: what runs is what pip has installed.
WORKDIR /src
# The stages that run take it over whole, so that nobody installs anything there.
RUN python -m venv "$VENV"
# The dependencies come before the sources: a change of our code then reuses this layer.
COPY pyproject.toml setup.py requirements.lock README.md LICENSE ./
# Our packages as empty folders, which is all that installing their dependencies needs.
RUN mkdir models pipelines stores transforms

# What workers need, and no more: their image is fetched by every machine of a job.
FROM build AS build-worker
# Inherited from the top of the file, which every stage has to ask for.
ARG TORCH
# torch has an index of its own for each kind of device; the lock says which version.
RUN if [ "$TORCH" != none ]; then \
      pip install --no-cache-dir --index-url "https://download.pytorch.org/whl/$TORCH" "$(grep '^torch==' requirements.lock)"; \
    fi
# Exact versions, those that were tested together.
RUN pip install --no-cache-dir --constraint requirements.lock ".[beam,gcp]"
# Our code comes last, because it changes most. One line a package: a COPY of several folders would join them.
COPY models models
COPY pipelines pipelines
COPY stores stores
COPY transforms transforms
# Once more, for our code alone. MediaPipe's default model and the compiled kernels are no part of it.
# A wrong pair of versions is found here and not on worker 400.
RUN pip install --no-cache-dir --no-deps --force-reinstall . && pip check

# What training needs beside it: PyTorch, Lightning, the report.
FROM build AS build-train
ARG TORCH
# A CPU build where nothing is asked for: the one that pip finds brings two gigabytes of CUDA.
RUN device="$TORCH"; [ "$device" != none ] || device=cpu; \
    pip install --no-cache-dir --index-url "https://download.pytorch.org/whl/$device" "$(grep '^torch==' requirements.lock)"
# With what stages need, too: `perfnet run` goes through all of them.
RUN pip install --no-cache-dir --constraint requirements.lock ".[beam,gcp,train,report,score]"
COPY models models
COPY pipelines pipelines
COPY stores stores
COPY transforms transforms
RUN pip install --no-cache-dir --no-deps --force-reinstall . && pip check

# From base, not from build: without compilers and sources.
FROM base AS worker
# Under the same path, because a virtual environment cannot be moved.
COPY --from=build-worker $VENV $VENV
# What Dataflow starts: it fetches the job's options and runs Beam's worker. Root, as Dataflow's mounts are root's.
COPY --from=beam /opt/apache/beam /opt/apache/beam
# Use the environment above. Otherwise boot makes one of its own, that sees the system's packages and not ours.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
# Where Dataflow puts NVIDIA's driver on machines with a GPU; without one the folder is absent, which does no harm.
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64
# A worker that cannot load its libraries is found while building.
RUN python -c "import apache_beam, gcsfs, pipelines.beam_main, transforms.frames, transforms.render, transforms.tvl1"
# Dataflow adds the worker's arguments, which no shell may look at.
ENTRYPOINT ["/opt/apache/beam/boot"]

# From worker: one image launches the job and runs its stages, so both sides have the same versions.
FROM worker AS template
# What the service starts: it turns a template's parameters into our flags.
COPY --from=flex /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
# A folder of our own, for the file that is launched.
WORKDIR /template
# The launcher runs a file, not a module; nothing beside it can be imported by accident.
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/main.py
# It is our entry that knows flags only.
RUN printf 'from pipelines.beam_main import main\n\nmain()\n' > main.py
# The entry point stays the worker's: templates are launched by the launcher's path, and workers of the job, which may
# use this image too, by its entry point.

# Without Beam's boot files: no worker is started from it.
FROM base AS launcher
COPY --from=build-worker $VENV $VENV
# People and schedulers need no root; a number, because Kubernetes' runAsNonRoot cannot judge a name.
RUN useradd --create-home --uid 1000 perfnet
# Before WORKDIR, which makes the folder that this user writes to.
USER 1000
# Relative paths of a configuration start here; mount data below it.
WORKDIR /home/perfnet
# What follows the image's name in `docker run` are perfnet's arguments.
ENTRYPOINT ["perfnet"]

# The same, from the environment that has PyTorch.
FROM base AS train
# Whole, like the worker's.
COPY --from=build-train $VENV $VENV
RUN useradd --create-home --uid 1000 perfnet
USER 1000
WORKDIR /home/perfnet
ENTRYPOINT ["perfnet"]
