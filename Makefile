#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

# For Debian 12, as root. Every target installs what it needs first.

BIN := .venv/bin
PYTEST := $(BIN)/pytest

# cron, for one, has a PATH without the daemons.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

# What is tested meets nothing else on this machine, and leaves nothing on it.
ISOLATE = tools/isolate .test/$@

# The integration tests by what they share: each group is a run of its own, with
# a cloud of its own where it needs one. What is in no other is in services.
MODULES_guests := file_script gate lanes launcher mariadb upgrade
MODULES_embedded := agent demo exec osc
MODULES_files := files
MODULES_moves := hostile_guest moves
MODULES_services := $(filter-out $(MODULES_guests) $(MODULES_embedded) \
	$(MODULES_files) $(MODULES_moves), \
	$(patsubst tests/integration/test_%.py,%, \
	$(wildcard tests/integration/test_*.py)))
INTEGRATION := $(addprefix integration-,guests embedded files moves services)

# What the stack's own environments are made from.
EXTENSION := $(shell find guest_agent_ext -type f -not -name '*.pyc') \
	setup.cfg setup.py requirements.txt
PIP := pip install --quiet --disable-pip-version-check \
	-c tools/constraints.txt
# Its Python is compiled into it: what pip has kept may be of another one.
UWSGI := $(PIP) --no-cache-dir --force-reinstall --no-deps uwsgi

# Those of the integration tests that are about Nova and the services. With
# older releases, what makes requests in parallel is left out: until 34, Nova's
# fixtures have one connection to the database for all threads.
SERVICES := $(addprefix tests/integration/test_, exec.py files.py faults.py \
	nova_manage.py mariadb.py)

# Of the schedules of faults.
SEED ?= 1
RUNS ?= 2
FIRST ?= 0

# Names of those that are to run, see benchmarks/__main__.py; none is all.
BENCHMARKS :=

.PHONY: help up demo down stack-up stack-down stack-test test test-quick \
	lint types docs unit functional integration $(INTEGRATION) faults \
	stack releases samples bench

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' Makefile | expand -t 20

up: .venv/installed ## Start Nova with the extension and a real guest
	@$(BIN)/python -m tools.testbed up

demo: .venv/installed ## The same, then a guided tour of it
	@$(BIN)/python -m tools.testbed demo

down: ## Stop what `make up` started
	@if [ -e .demo ]; then $(BIN)/python -m tools.testbed down; fi

stack-up: .venv/installed .stack/openstack/extension .stack/client/extension ## Start a whole OpenStack with the extension
	@$(BIN)/python -m tools.stack up

stack-down: ## Stop what `make stack-up` started
	@if [ -e .stack ]; then $(BIN)/python -m tools.stack down; fi

stack-test: .venv/installed .stack/client/extension ## Tests of what `make stack-up` started
	$(PYTEST) tests/stack

# What is installed has mostly to be unpacked: on two processors, two at once.
# Whoever ends this make ends the tests too.
test: ## All of the following, side by side
	@$(MAKE) -s --no-print-directory -j 2 .cache/guest .cache/wheel/built \
		.stack/openstack/installed
	@setpriv --pdeathsig TERM $(BIN)/python -m tools.gate

test-quick: .venv/installed ## Of those what takes two minutes: lint, types, unit, functional
	@setpriv --pdeathsig TERM $(BIN)/python -m tools.gate \
		lint types unit functional

lint: .venv/installed ## ruff, hacking, codespell, and whether what is generated is current
	$(BIN)/ruff check
	$(BIN)/flake8
	$(BIN)/codespell
	$(BIN)/python -m tools.samples --check

types: .venv/installed ## mypy --strict
	$(BIN)/mypy

docs: .venv/installed ## The pages, the api-ref and the release notes
	@for pages in doc api-ref releasenotes; do \
		echo "Building $$pages/build/html ..."; \
		$(BIN)/sphinx-build -q -W -b html $$pages/source \
			$$pages/build/html || exit 1; \
	done

unit: .venv/installed ## Tests without I/O
	$(ISOLATE) $(PYTEST) tests/unit

functional: .venv/installed ## Tests on Nova's own fixtures, in one process
	$(ISOLATE) $(PYTEST) tests/functional

integration: $(INTEGRATION) ## Tests on libvirt, QEMU, RabbitMQ and MariaDB

$(INTEGRATION): integration-%: .cache/guest
	$(ISOLATE) $(PYTEST) \
		$(patsubst %,tests/integration/test_%.py,$(MODULES_$*))

faults: .cache/guest ## RUNS schedules of faults from SEED, on real parts
	@$(ISOLATE) $(BIN)/python -m tests.faults --seed $(SEED) \
		--runs $(RUNS) --first $(FIRST)

stack: .cache/guest .stack/openstack/extension .stack/client/extension ## The stack, from its start to its end
	@$(ISOLATE) tools/stack/test $(BIN)

# Nova 34 is what the other targets have.
releases: .venv-nova32/installed .venv-nova33/installed ## The older releases of Nova that are supported
	@for nova in 32 33; do \
		echo "With Nova $$nova ..."; \
		.venv-nova$$nova/bin/pytest tests/unit && \
		.venv-nova$$nova/bin/pytest -k 'not parallel' tests/functional && \
		.venv-nova$$nova/bin/pytest $(SERVICES) || exit 1; \
	done

bench: .venv/bench ## Measure, and write the report in doc/source/contributor
	@$(BIN)/python -m benchmarks $(BENCHMARKS)

samples: .venv/installed ## Write anew what is generated: etc/, api-ref/openapi.json
	$(BIN)/python -m tools.samples

.cache/packages-installed: bindep.txt tools/install-packages
	@tools/install-packages bindep.txt
	@mkdir -p .cache && touch $@

.venv/installed: .cache/packages-installed setup.cfg requirements.txt \
		doc/requirements.txt tools/constraints.txt
	@echo "Installing Nova and the extension into .venv ..."
	@python3.11 -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check \
		-c tools/constraints.txt nova -e '.[test,libvirt]' \
		-r doc/requirements.txt
	@touch $@

# Fetched here: what is isolated has no network.
.cache/guest: .venv/installed tools/testbed/image.py tools/testbed/guest_init
	@$(BIN)/python -m tools.testbed.image .cache
	@touch $@

.venv/bench: .venv/installed
	@$(BIN)/$(UWSGI)
	@$(BIN)/$(PIP) -e '.[bench]'
	@touch $@

# With the libraries of its own cycle.
.venv-nova%/installed: .cache/packages-installed setup.cfg requirements.txt \
		tools/constraints-nova%.txt
	@echo "Installing Nova $* and the extension into .venv-nova$* ..."
	@python3.11 -m venv .venv-nova$*
	@.venv-nova$*/bin/pip install --quiet --disable-pip-version-check \
		-c tools/constraints-nova$*.txt nova -e '.[test,libvirt]'
	@touch $@

.stack/openstack/installed: .cache/packages-installed tools/constraints.txt
	@echo "Installing OpenStack into .stack/openstack ..."
	@python3.11 -m venv .stack/openstack
	@.stack/openstack/bin/$(PIP) nova keystone glance openstack-placement \
		neutron PyMySQL
	@.stack/openstack/bin/$(UWSGI)
	@touch $@

# Built once, and by nobody while tests read what stands beside the sources.
.cache/wheel/built: .venv/installed $(EXTENSION)
	@rm -rf build .cache/wheel
	@$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps \
		--wheel-dir .cache/wheel .
	@touch $@

# As the admin guide says.
.stack/openstack/extension: .stack/openstack/installed .cache/wheel/built
	@echo "Installing the extension into it ..."
	@wheel=$$(echo .cache/wheel/*.whl); \
		.stack/openstack/bin/$(PIP) "$$wheel[libvirt]" && \
		.stack/openstack/bin/$(PIP) --no-deps --force-reinstall "$$wheel"
	@touch $@

.stack/client/extension: .cache/wheel/built tools/constraints.txt
	@echo "Installing the client into .stack/client ..."
	@python3.11 -m venv .stack/client
	@wheel=$$(echo .cache/wheel/*.whl); \
		.stack/client/bin/$(PIP) "$$wheel[osc,tempest]" schemathesis && \
		.stack/client/bin/$(PIP) --no-deps --force-reinstall "$$wheel"
	@touch $@
