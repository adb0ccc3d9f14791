#!/bin/bash
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

# DevStack's plugin: installs the extension into the Nova that is there. What
# it writes is what doc/source/install tells an operator to write.

function install_guest_agent_ext {
    setup_develop $GUEST_AGENT_EXT_DIR
    pip_install $GUEST_AGENT_EXT_DIR/client
    if is_service_enabled g-agt-cpu; then
        pip_install_gr libvirt-python
    fi
}

# Tempest has an environment of its own.
function install_guest_agent_ext_tempest {
    if is_service_enabled tempest; then
        $TEMPEST_DIR/.tox/tempest/bin/pip install -c $REQUIREMENTS_DIR/upper-constraints.txt "$GUEST_AGENT_EXT_DIR[tempest]"
    fi
}

function configure_guest_agent_ext_api {
    local paste=$NOVA_API_PASTE_INI
    iniset $paste filter:guest_agent paste.filter_factory \
        guest_agent_ext.api.filter:filter_factory
    iniset $paste filter:sizelimit paste.filter_factory \
        guest_agent_ext.api.sizelimit:filter_factory
    # Once only: stack.sh may be run again.
    sed -i -e '/^keystone *=/{/ guest_agent /!s/ osapi_compute_app_v21/ guest_agent&/}' $paste
}

function init_guest_agent_ext {
    if is_service_enabled g-agt-cond; then
        $NOVA_BIN_DIR/guest-agent-manage --config-file $NOVA_CONF db sync
    fi
}

function start_guest_agent_ext {
    run_process g-agt-cond \
        "$NOVA_BIN_DIR/guest-agent-conductor --config-file $NOVA_CONF"
    run_process g-agt-cpu \
        "$NOVA_BIN_DIR/guest-agent-compute --config-file $NOVA_CPU_CONF" \
        $LIBVIRT_GROUP
}

function stop_guest_agent_ext {
    stop_process g-agt-cpu
    stop_process g-agt-cond
}

if is_service_enabled g-agt-cond g-agt-cpu; then
    case "$1 $2" in
        "stack install")
            echo_summary "Installing guest_agent_ext"
            install_guest_agent_ext
            ;;
        "stack post-config")
            echo_summary "Configuring guest_agent_ext"
            if is_service_enabled n-api; then
                configure_guest_agent_ext_api
            fi
            # Nova's tables are there by now, and its API is not yet started.
            init_guest_agent_ext
            ;;
        "stack extra")
            echo_summary "Starting guest_agent_ext"
            start_guest_agent_ext
            ;;
        "stack test-config")
            install_guest_agent_ext_tempest
            ;;
        "unstack "*)
            stop_guest_agent_ext
            ;;
    esac
fi
