# Two commands on a machine with Python 3.11: `make demo` and `make test`. Each makes .venv from the lock.

PYTHON ?= python3.11
# Which build of torch: empty takes what pip finds, cpu or cuda take PyTorch's own index.
TORCH ?=
TORCH_INDEX = $(if $(filter cpu,$(TORCH)),--index-url https://download.pytorch.org/whl/cpu,$(if $(filter cuda,$(TORCH)),--index-url https://download.pytorch.org/whl/cu130))
EXTRAS = beam,gcp,train,demo,report,export,score,dev
LOCK = requirements.lock
BIN = .venv/bin

# Where Airflow listens, on 127.0.0.1.
PORT ?= 8080

.PHONY: help demo airflow test test-all lint format lock clean

help:
	@echo 'make demo        sample videos, all stores, three teachers, the student: about thirteen minutes on two cores'
	@echo 'make airflow     Airflow with the DAGs on 127.0.0.1, for trying them out; everything in .airflow/'
	@echo 'make test        the tests, without the long ones'
	@echo 'make test-all    the long ones alone'
	@echo 'make lint        ruff and mypy'
	@echo 'make lock        resolve pyproject.toml anew into $(LOCK)'
	@echo 'Variables: PYTHON=python3.11  TORCH=cpu|cuda (which build of torch; default: the one pip finds)  PORT=8080 (of Airflow)'

.venv/done: $(LOCK) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo 'perfnet needs Python 3.11; name yours: make PYTHON=/path/to/python3.11'; exit 1; }
	@$(PYTHON) pipelines/system_libraries.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(TORCH_INDEX) "$$(grep -i '^torch==' $(LOCK))"
	$(BIN)/pip install --quiet --constraint $(LOCK) --editable '.[$(EXTRAS)]'
	@touch $@

# Airflow and its Google provider are 120 packages more, which only the DAGs and their tests need.
.venv/airflow: .venv/done
	$(BIN)/pip install --quiet --constraint $(LOCK) --editable '.[$(EXTRAS),airflow]'
	@touch $@

demo: .venv/done
	$(BIN)/perfnet demo

airflow: .venv/airflow
	@dags/serve.sh $(PORT)

test: .venv/airflow
	$(BIN)/pytest -m 'not slow'

test-all: .venv/airflow
	$(BIN)/pytest -m slow -o timeout=1800

lint: .venv/done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet "$$(grep -i '^torch==' $(LOCK))"
	.venv-lock/bin/pip install --quiet '.[$(EXTRAS),airflow]'
	echo '# Exact versions that were tested together on Python 3.11; `make lock` writes this file.' > $(LOCK)
	.venv-lock/bin/pip freeze --exclude perfnet | sed 's/+cpu$$//' >> $(LOCK)
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-lock build *.egg-info demo .airflow
