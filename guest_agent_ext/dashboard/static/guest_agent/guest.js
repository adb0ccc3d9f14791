/*
 *    Licensed under the Apache License, Version 2.0 (the "License"); you may
 *    not use this file except in compliance with the License. You may obtain
 *    a copy of the License at
 *
 *         http://www.apache.org/licenses/LICENSE-2.0
 *
 *    Unless required by applicable law or agreed to in writing, software
 *    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
 *    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
 *    License for the specific language governing permissions and limitations
 *    under the License.
 */

/* What the pages of the panel do; on all others this does nothing. */
(function () {
  'use strict';

  const guestAgent = window.guestAgent = window.guestAgent || {};
  const element = guestAgent.element;
  const say = guestAgent.say;
  const show = guestAgent.show;

  // How often a guest that is busy is asked, and the milliseconds between.
  const QUESTIONS = 3;
  const QUESTION_GAP = 1500;

  function part(root, name) {
    return root.querySelector('[data-part="' + name + '"]');
  }

  function field(node, name) {
    return node.querySelector('[data-field="' + name + '"]');
  }

  /* Whether commands can run, and what to do if not. */
  class Agent {
    constructor(root, node, config, onAnswer) {
      this.root = root;
      this.node = node;
      this.config = config;
      this.onAnswer = onAnswer;
      this.isWindows = false;
      this.checked = this.check();
      node.querySelector('[data-do="check"]').addEventListener(
        'click', () => {
          this.checked = this.check();
        }
      );
      const details = node.querySelector('[data-do="details"]');
      if (details) {
        details.addEventListener('toggle', () => {
          if (details.open) {
            this.details();
          }
        });
      }
    }

    async check() {
      const status = field(this.node, 'status');
      const button = this.node.querySelector('[data-do="check"]');
      button.disabled = true;
      try {
        const agent = await guestAgent.json(
          this.root, 'GET', this.config.calls
        );
        const isAvailable = agent.status === 'available';
        status.className = 'label label-' +
          (isAvailable ? 'success' : 'warning');
        status.textContent = isAvailable ?
          gettext('Available') : gettext('Unavailable');
        this.isWindows = /windows/i.test(agent.os || '');
        field(this.node, 'about').textContent = [
          agent.os, agent.version &&
            interpolate(gettext('agent %s'), [agent.version]),
          agent.execution === 'direct' && gettext('no launcher')
        ].filter(Boolean).join(', ');
        this.problem(agent.reason, agent.advice);
        this.onAnswer(agent);
      } catch (error) {
        status.className = 'label label-danger';
        status.textContent = gettext('Not known');
        this.problem(error.message, '');
      }
      button.disabled = false;
    }

    problem(reason, advice) {
      show(field(this.node, 'problem'), Boolean(reason));
      field(this.node, 'reason').textContent = reason || '';
      field(this.node, 'advice').textContent = advice || '';
    }

    async details() {
      const node = field(this.node, 'details');
      node.textContent = gettext('Asking …');
      // A guest is asked one question at a time.
      await this.checked;
      for (let left = QUESTIONS; left; left -= 1) {
        try {
          const details = await guestAgent.json(
            this.root, 'GET', this.config.calls + 'details/'
          );
          node.textContent = '';
          guestAgent.showDetails(node, details);
          return;
        } catch (error) {
          node.textContent = error.message;
          if (error.status !== 409) {
            return;
          }
        }
        await guestAgent.sleep(QUESTION_GAP);
      }
    }
  }

  function facts(node, pairs) {
    const list = element('dl', 'dl-horizontal ga-facts');
    pairs.forEach(function (pair) {
      if (pair[1] !== undefined && pair[1] !== null && pair[1] !== '') {
        list.appendChild(element('dt', '', pair[0]));
        list.appendChild(element('dd', '', pair[1]));
      }
    });
    if (list.children.length) {
      node.appendChild(list);
    }
  }

  function table(node, title, names, rows) {
    if (!rows || !rows.length) {
      return;
    }
    node.appendChild(element('h4', '', title));
    const scroll = element('div', 'ga-scroll');
    const made = element('table', 'table table-condensed ga-table');
    const head = made.createTHead().insertRow();
    names.forEach(function (name) {
      const cell = element('th', '', name);
      cell.scope = 'col';
      head.appendChild(cell);
    });
    const body = made.createTBody();
    rows.forEach(function (row) {
      const line = body.insertRow();
      row.forEach(function (text) {
        line.appendChild(element('td', '', text));
      });
    });
    scroll.appendChild(made);
    node.appendChild(scroll);
  }

  function addressOf(address) {
    return address.ip_address +
      (address.prefix === undefined ? '' : '/' + address.prefix);
  }

  function usageOf(system) {
    if (!system.total_bytes) {
      return '';
    }
    return interpolate(gettext('%s of %s (%s %)'), [
      guestAgent.size(system.used_bytes), guestAgent.size(system.total_bytes),
      Math.round(100 * system.used_bytes / system.total_bytes)
    ]);
  }

  function timeOf(seconds) {
    return new Date(seconds * 1000).toISOString().slice(0, 19)
      .replace('T', ' ') + ' UTC';
  }

  guestAgent.showDetails = function (node, details) {
    const os = details.os || {};
    const time = details.time;
    facts(node, [
      [gettext('System'), os.pretty_name || os.name || os.id],
      [gettext('Kernel'), os.kernel_release],
      [gettext('Host name'), details.host_name],
      [gettext('Time zone'), (details.timezone || {}).zone],
      [gettext('Clock'), time && timeOf(time.nanoseconds / 1e9)],
      [gettext('Clock ahead by'), time && interpolate(
        gettext('%s s'), [Number(time.offset).toFixed(3)]
      )],
      [gettext('Processors'), details.vcpus && details.vcpus.length]
    ]);
    table(node, gettext('Users'), [gettext('User'), gettext('Since')],
          (details.users || []).map(function (user) {
            return [user.user, timeOf(user.login_time)];
          }));
    table(node, gettext('Network'),
          [gettext('Interface'), gettext('Hardware address'),
           gettext('Addresses')],
          (details.interfaces || []).map(function (item) {
            return [item.name, item.hardware_address,
                    (item.ip_addresses || []).map(addressOf).join(', ')];
          }));
    table(node, gettext('File systems'),
          [gettext('Mounted at'), gettext('Device'), gettext('Type'),
           gettext('Used')],
          (details.filesystems || []).map(function (item) {
            return [item.mountpoint, item.name, item.type, usageOf(item)];
          }));
    table(node, gettext('Disks'), [gettext('Name'), gettext('Alias')],
          (details.disks || []).map(function (item) {
            return [item.name, item.alias];
          }));
    table(node, gettext('Not told'), [gettext('What'), gettext('Why')],
          Object.entries(details.unavailable || {}));
  };

  /* The form that runs commands. */
  class Runner {
    constructor(root, node, config, agent) {
      this.root = root;
      this.config = config;
      this.form = node.querySelector('form');
      this.program = new guestAgent.Program(this.form, function () {
        return Boolean(agent && agent.isWindows);
      });
      this.output = new guestAgent.Output(
        root, part(root, 'output'), config
      );
      this.form.addEventListener('submit', (event) => {
        event.preventDefault();
        this.submit();
      });
      this.program.text.addEventListener('keydown', (event) => {
        if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
          event.preventDefault();
          this.form.requestSubmit();
        }
      });
      this.again = this.output.button('again');
      this.again.addEventListener('click', () => this.run(this.last));
      if (config.again) {
        this.fill(config.again);
      }
    }

    async submit() {
      let args;
      try {
        args = this.program.arguments();
      } catch (error) {
        say(field(this.form, 'refusal'), error.message);
        return;
      }
      await this.run(args);
    }

    async run(args) {
      const button = this.form.querySelector('[data-do="submit"]');
      const refusal = field(this.form, 'refusal');
      say(refusal, '');
      button.disabled = true;
      this.again.disabled = true;
      try {
        const command = await guestAgent.postOnce(
          this.root, this.config.calls + 'commands/', {arguments: args}
        );
        this.last = args;
        say(field(this.form, 'note'), '');
        show(this.again, true);
        this.output.watch(command.uuid);
      } catch (error) {
        say(refusal, error.message);
      }
      button.disabled = false;
      this.again.disabled = false;
    }

    /* Fill the form with what an earlier command was told. */
    fill(id) {
      return this.program.fillFrom(
        this.root, this.config.calls + 'commands/' + id + '/'
      );
    }
  }

  /* The last commands of a server. */
  class Last {
    constructor(root, node, config) {
      this.root = root;
      this.node = node;
      this.config = config;
      this.load();
    }

    async load() {
      const empty = field(this.node, 'empty');
      let answer;
      try {
        answer = await guestAgent.json(
          this.root, 'GET', this.config.calls + 'commands/'
        );
      } catch (error) {
        say(empty, error.message);
        return;
      }
      const body = this.node.querySelector('tbody');
      body.textContent = '';
      answer.commands.forEach((command) => {
        body.appendChild(this.row(command));
      });
      show(field(this.node, 'table'), answer.commands.length > 0);
      say(empty, answer.commands.length ? '' :
        gettext('No command was run in this instance yet.'));
    }

    row(command) {
      const row = element('tr');
      row.dataset.command = command.uuid;
      row.appendChild(element('td', 'ga-time', command.created));
      const line = element('td', 'ga-line');
      const link = element('a');
      link.href = command.url;
      link.appendChild(element('code', '', command.line));
      line.appendChild(link);
      row.appendChild(line);
      const status = element('td', 'ga-status');
      const label = element('span');
      guestAgent.label(label, command);
      status.appendChild(label);
      status.appendChild(document.createTextNode(' ' + command.outcome));
      row.appendChild(status);
      row.appendChild(element('td', 'ga-took', command.duration));
      const actions = element('td', 'ga-actions');
      if (this.config.run && command.type === 'exec' &&
          this.onAgain && !command.is_attached) {
        const button = element(
          'button', 'btn btn-default btn-xs always-enabled',
          gettext('Use again')
        );
        button.type = 'button';
        button.setAttribute(
          'aria-label', gettext('Use again') + ' ' + command.line
        );
        button.addEventListener('click', () => this.onAgain(command.uuid));
        actions.appendChild(button);
      }
      row.appendChild(actions);
      // Narrow windows have no table, but what is read aloud has.
      row.setAttribute('role', 'row');
      Array.from(row.cells).forEach(function (cell) {
        cell.setAttribute('role', 'cell');
      });
      return row;
    }
  }

  function startTab(root, config) {
    const parts = {};
    ['agent', 'run', 'terminal', 'files', 'accounts', 'last'].forEach(
      function (name) {
        parts[name] = part(root, name);
      }
    );
    const last = parts.last && new Last(root, parts.last, config);
    const refuse = parts.accounts && guestAgent.startAccounts(
      root, parts.accounts, config, function () {
        if (last) {
          last.load();
        }
      }
    );
    const terminal = parts.terminal &&
      guestAgent.startTerminal(root, parts.terminal, config);
    const agent = parts.agent && new Agent(
      root, parts.agent, config, function (answer) {
        if (terminal) {
          const lacks = answer.unavailable || {};
          terminal.refuse(lacks.terminal || lacks.attach);
        }
        if (refuse && answer.status === 'available') {
          refuse(answer.command_types);
        }
      }
    );
    const runner = parts.run && new Runner(root, parts.run, config, agent);
    if (parts.files) {
      guestAgent.startFiles(root, parts.files, config);
    }
    if (last && runner) {
      runner.output.onChange = function () {
        last.load();
      };
      last.onAgain = function (id) {
        runner.fill(id);
      };
    }
  }

  /* What is asked before a command or a run is deleted or cancelled. */
  function questionOf(isRun, isDelete) {
    if (isRun) {
      return isDelete ?
        gettext('Delete the run, and its commands with their output?') :
        gettext('Cancel the run? All of its commands that run are killed.');
    }
    return isDelete ?
      gettext('Delete the command and its output?') :
      gettext('Cancel the command? All of its processes are killed.');
  }

  /* Buttons of rows and of a page, that ask before they act. */
  function startButtons(root) {
    const refusal = field(root, 'refusal');
    root.addEventListener('click', async function (event) {
      const button = event.target.closest('button[data-call]');
      if (!button) {
        return;
      }
      const isDelete = button.dataset.do === 'delete';
      const isRun = button.dataset.kind === 'run';
      if (!window.confirm(questionOf(isRun, isDelete))) {
        return;
      }
      button.disabled = true;
      try {
        await guestAgent.call(
          root, isDelete ? 'DELETE' : 'POST',
          button.dataset.call + (isDelete ? '' : 'cancel/'),
          isDelete ? {} : {json: {}}
        );
        if (button.dataset.next) {
          window.location.assign(button.dataset.next);
        } else {
          window.location.reload();
        }
      } catch (error) {
        say(refusal, error.message);
        button.disabled = false;
      }
    });
  }

  function startCommand(root, config) {
    const output = new guestAgent.Output(root, part(root, 'output'), config);
    const remove = root.querySelector('[data-do="delete"]');
    output.onChange = function (command) {
      show(remove, command.has_ended);
      command.times.forEach(function (text, index) {
        const node = root.querySelector('[data-time="' + index + '"]');
        node.textContent = text || '–';
      });
    };
    output.watch(config.command);
  }

  /* The list of commands, and on the page of admins the hosts above it. */
  function startList(root, config) {
    const hosts = part(root, 'hosts');
    if (hosts) {
      guestAgent.startHosts(root, hosts, config);
    }
    const bulk = part(root, 'bulk');
    if (bulk) {
      guestAgent.startBulk(root, bulk);
    }
  }

  const STARTERS = {
    list: startList,
    tab: startTab,
    command: startCommand,
    run: guestAgent.startRun,
    'new-run': guestAgent.startNewRun
  };

  /* Start what is new in a part of the page. */
  function start(node) {
    node.querySelectorAll(
      '[data-guest-agent]:not([data-is-started])'
    ).forEach(function (root) {
      root.dataset.isStarted = 'true';
      const config = JSON.parse(root.dataset.config || '{}');
      const starter = STARTERS[root.dataset.guestAgent];
      startButtons(root);
      if (starter) {
        starter(root, config);
      }
    });
  }

  function startAll() {
    start(document);
    // Horizon fetches a tab when it is chosen.
    if (window.horizon && horizon.tabs && horizon.tabs.addTabLoadFunction) {
      horizon.tabs.addTabLoadFunction(function (tab) {
        start($(tab)[0]);
      });
    }
  }

  if (document.readyState === 'loading') {
    document.addEventListener('DOMContentLoaded', startAll);
  } else {
    startAll();
  }
}());
