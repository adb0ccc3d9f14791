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

# For Debian 12, as root. Every target first installs what it needs.

BIN := .venv/bin
PYTEST := $(BIN)/pytest

# cron, for one, has a PATH without the daemons.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

# Tests run as if on a machine of their own, and leave nothing on this one.
ISOLATE = tools/isolate .test/$@

# The integration tests in groups, by what they share: each group is a run of
# its own, with a cloud of its own where it needs one. A module that is in no
# other group is in services.
MODULES_guests := file_script gate lanes launcher mariadb upgrade
MODULES_embedded := agent demo exec osc
MODULES_files := files
MODULES_debian := debian terminal ansible
MODULES_moves := hostile_guest moves
MODULES_services := $(filter-out $(MODULES_guests) $(MODULES_embedded) \
	$(MODULES_files) $(MODULES_debian) $(MODULES_moves), \
	$(patsubst tests/integration/test_%.py,%, \
	$(wildcard tests/integration/test_*.py)))
INTEGRATION := $(addprefix integration-,guests embedded files debian moves \
	services)

# What the stack's own environments are made from.
EXTENSION := $(shell find guest_agent_ext -type f -not -name '*.pyc') \
	$(shell find client/ansible_collections -type f -not -name '*.pyc') \
	setup.cfg setup.py requirements.txt client/pyproject.toml \
	client/setup.py dashboard/pyproject.toml dashboard/setup.py
PIP := pip install --quiet --disable-pip-version-check \
	-c tools/constraints.txt
# uwsgi is built for one Python: a wheel that pip has kept may be for another.
UWSGI := $(PIP) --no-cache-dir --force-reinstall --no-deps uwsgi

# The integration tests of Nova and the services, for older releases of Nova.
# There, functional tests that make parallel requests are left out: before 34,
# Nova's fixtures have one connection to the database for all threads.
SERVICES := $(addprefix tests/integration/test_, exec.py files.py faults.py \
	nova_manage.py mariadb.py)

# Which guest the demo starts: tiny or debian. The stack has the tiny one in any
# case.
DISTRO ?= tiny

# Anything, to have `make demo` show whole answers.
VERBOSE ?=

# Which schedules of faults `make faults` runs.
SEED ?= 1
RUNS ?= 2
FIRST ?= 0

# Which benchmarks run, by the names in benchmarks/__main__.py; none means all.
BENCHMARKS :=

.PHONY: help up demo down stack-up stack-down stack-test test test-quick \
	lint types docs unit functional panel pictures integration \
	$(INTEGRATION) faults stack releases samples bench

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' Makefile | expand -t 20

up: .venv/installed ## Start Nova with the extension, and a real guest
	@$(BIN)/python -m tools.testbed up --distro $(DISTRO)

demo: .venv/installed ## The same, with a guided tour (VERBOSE=1: whole answers)
	@$(BIN)/python -m tools.testbed demo --distro $(DISTRO) \
		$(if $(VERBOSE),--verbose)

down: ## Stop what `make up` or `make demo` started
	@if [ -e .demo ]; then $(BIN)/python -m tools.testbed down; fi

stack-up: .venv/installed .stack/openstack/extension .stack/client/extension .stack/horizon/static/built ## Start a whole OpenStack with the extension
	@$(BIN)/python -m tools.stack up --distro $(DISTRO)

stack-down: ## Stop what `make stack-up` started
	@if [ -e .stack ]; then $(BIN)/python -m tools.stack down; fi

stack-test: .venv/installed .stack/client/extension .stack/horizon/static/built .cache/debian ## Test what `make stack-up` started
	$(PYTEST) tests/stack

# To install is mostly to unpack: two at once, on two processors. Whoever ends
# this make ends the tests too.
test: ## Run lint, types, docs, unit, functional, panel, integration, faults, stack
	@$(MAKE) -s --no-print-directory -j 2 .cache/guest .cache/debian \
		.cache/wheel/built .stack/openstack/installed \
		.stack/horizon/installed
	@setpriv --pdeathsig TERM $(BIN)/python -m tools.gate

test-quick: .venv/installed ## Run lint, types, unit and functional: two minutes
	@setpriv --pdeathsig TERM $(BIN)/python -m tools.gate \
		lint types unit functional

lint: .venv/installed ## Check style and spelling, and that generated files are current
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/flake8
	$(BIN)/codespell
	$(BIN)/python -m tools.samples --check

types: .venv/installed ## Check types with mypy --strict
	$(BIN)/mypy

docs: .venv/installed ## Build the pages, the api-ref and the release notes
	@for pages in doc api-ref releasenotes; do \
		echo "Building $$pages/build/html ..."; \
		$(BIN)/sphinx-build -q -W -b html $$pages/source \
			$$pages/build/html || exit 1; \
	done

unit: .venv/installed ## Run the tests without I/O
	$(ISOLATE) $(PYTEST) tests/unit

functional: .venv/installed ## Run the tests on Nova's own fixtures, in one process
	$(ISOLATE) $(PYTEST) tests/functional

panel: .venv/installed .stack/horizon/static/built ## Run the tests of the Horizon panel, with a browser and without a cloud
	@$(ISOLATE) tools/panel/test $(BIN) .stack/horizon/bin

pictures: .venv/installed .stack/horizon/static/built ## Take the pictures of the user's guide anew
	@mkdir -p .test/pictures
	@PANEL_PICTURES=$(CURDIR)/.test/pictures $(PYTEST) \
		tests/panel/test_pictures.py -k wide
	@for name in tab history incidents run; do \
		cp .test/pictures/$$name-1280.png \
			doc/source/user/images/$$name.png; \
	done

integration: $(INTEGRATION) ## Run the tests on libvirt, QEMU, RabbitMQ and MariaDB

$(INTEGRATION): integration-%: .cache/guest
	$(ISOLATE) $(PYTEST) \
		$(patsubst %,tests/integration/test_%.py,$(MODULES_$*))

integration-debian: .cache/debian

faults: .cache/guest ## Run RUNS schedules of faults made from SEED, on real services
	@$(ISOLATE) $(BIN)/python -m tools.faults --seed $(SEED) \
		--runs $(RUNS) --first $(FIRST)

stack: .cache/guest .cache/debian .stack/openstack/extension .stack/client/extension .stack/horizon/static/built ## Start a stack, test it, stop it
	@$(ISOLATE) tools/stack/test $(BIN)

# The other targets have Nova 34.
releases: .venv-nova32/installed .venv-nova33/installed ## Test with the older releases of Nova that are supported
	@for nova in 32 33; do \
		echo "With Nova $$nova ..."; \
		.venv-nova$$nova/bin/pytest tests/unit && \
		.venv-nova$$nova/bin/pytest -k 'not parallel' tests/functional && \
		.venv-nova$$nova/bin/pytest $(SERVICES) || exit 1; \
	done

bench: .venv/bench ## Measure, and write a report into .bench
	@$(BIN)/python -m benchmarks $(BENCHMARKS)

samples: .venv/installed ## Generate etc/, api-ref/openapi.json and the tables of metrics
	$(BIN)/python -m tools.samples

.cache/packages-installed: bindep.txt tools/install-packages
	@tools/install-packages bindep.txt
	@mkdir -p .cache && touch $@

.venv/installed: .cache/packages-installed setup.cfg requirements.txt \
		client/pyproject.toml doc/requirements.txt tools/constraints.txt
	@echo "Installing Nova and the extension into .venv ..."
	@python3.11 -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check \
		-c tools/constraints.txt nova -e '.[test,libvirt]' -e ./client \
		-r doc/requirements.txt
	@touch $@

# Fetched here, because isolated tests have no network.
.cache/guest: .venv/installed tools/testbed/image.py tools/testbed/guest_init
	@$(BIN)/python -m tools.testbed.image .cache
	@touch $@

# After the other guest, because only one apt at a time may fetch lists.
.cache/debian: .venv/installed tools/testbed/debian.py \
		tools/testbed/debian_setup | .cache/guest
	@$(BIN)/python -m tools.testbed.debian .cache
	@touch $@

.venv/bench: .venv/installed
	@$(BIN)/$(UWSGI)
	@$(BIN)/$(PIP) -e '.[bench]'
	@touch $@

# With the libraries of that release cycle.
.venv-nova%/installed: .cache/packages-installed setup.cfg requirements.txt \
		client/pyproject.toml tools/constraints-nova%.txt
	@echo "Installing Nova $* and the extension into .venv-nova$* ..."
	@python3.11 -m venv .venv-nova$*
	@.venv-nova$*/bin/pip install --quiet --disable-pip-version-check \
		-c tools/constraints-nova$*.txt nova -e '.[test,libvirt]' \
		-e ./client
	@touch $@

.stack/openstack/installed: .cache/packages-installed tools/constraints.txt
	@echo "Installing OpenStack into .stack/openstack ..."
	@python3.11 -m venv .stack/openstack
	@.stack/openstack/bin/$(PIP) nova keystone glance openstack-placement \
		neutron PyMySQL
	@.stack/openstack/bin/$(UWSGI)
	@touch $@

# Built once, and not while tests read the directories beside the sources.
.cache/wheel/built: .venv/installed $(EXTENSION)
	@rm -rf build client/build dashboard/build .cache/wheel
	@$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps \
		--wheel-dir .cache/wheel . ./client ./dashboard
	@touch $@

# Installed as the installation guide says.
.stack/openstack/extension: .stack/openstack/installed .cache/wheel/built
	@echo "Installing the extension into it ..."
	@wheel=$$(echo .cache/wheel/guest_agent_ext-*.whl); \
		.stack/openstack/bin/$(PIP) "$$wheel[libvirt]" && \
		.stack/openstack/bin/$(PIP) --no-deps --force-reinstall "$$wheel"
	@touch $@

.stack/client/extension: .cache/wheel/built tools/constraints.txt
	@echo "Installing the client into .stack/client ..."
	@python3.11 -m venv .stack/client
	@client=$$(echo .cache/wheel/python_guestagentclient-*.whl); \
		server=$$(echo .cache/wheel/guest_agent_ext-*.whl); \
		.stack/client/bin/$(PIP) $$client "$$server[tempest]" schemathesis \
		ansible-core && \
		.stack/client/bin/$(PIP) --no-deps --force-reinstall $$client $$server
	@touch $@

.stack/horizon/installed: .cache/packages-installed \
		tools/constraints-horizon.txt
	@echo "Installing Horizon into .stack/horizon ..."
	@python3.11 -m venv .stack/horizon
	@.stack/horizon/bin/pip install --quiet --disable-pip-version-check \
		-c tools/constraints-horizon.txt horizon gunicorn whitenoise pytest
	@touch $@

# Installed as the installation guide says.
.stack/horizon/extension: .stack/horizon/installed .cache/wheel/built
	@echo "Installing the panel into it ..."
	@.stack/horizon/bin/pip install --quiet --disable-pip-version-check \
		--no-deps --force-reinstall \
		.cache/wheel/guest_agent_dashboard-*.whl
	@touch $@

# What browsers fetch: it takes longer than to start Horizon.
.stack/horizon/static/built: .stack/horizon/extension tools/panel/build-static \
		$(wildcard tools/panel/site/*.py tools/panel/site/local/*.py)
	@tools/panel/build-static .stack/horizon
	@touch $@
