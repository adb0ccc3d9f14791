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

/* Runs: the form that starts one, and the page that shows how it goes on. */
(function () {
  'use strict';

  const guestAgent = window.guestAgent = window.guestAgent || {};
  const drawing = guestAgent.drawing;
  const element = guestAgent.element;
  const say = guestAgent.say;
  const show = guestAgent.show;

  function partOf(part, x, width) {
    return drawing('rect', {
      class: 'ga-part-' + part.name, x: x, y: 0, width: width, height: 1
    });
  }

  /* Draw the bar of a run, as the template _bar.html does. */
  function drawBar(node, bar) {
    const svg = drawing('svg', {
      class: 'ga-bar', role: 'img', 'aria-label': bar.text,
      viewBox: '0 0 ' + bar.width + ' 1', preserveAspectRatio: 'none'
    });
    const title = drawing('title', {});
    title.textContent = bar.text;
    svg.appendChild(title);
    bar.parts.forEach(function (part) {
      svg.appendChild(partOf(part, part.x, part.width));
    });
    node.textContent = '';
    node.appendChild(svg);
  }

  /* A list whose nodes stay while their items do, and keep the focus.
   *
   * make: function that makes the node of an item
   * update: function that shows the item in its node
   */
  class Kept {
    constructor(parent, make, update) {
      this.parent = parent;
      this.make = make;
      this.update = update;
      this.known = new Map();
    }

    /* Show items in their order.
     *
     * keyOf: function that tells the name of an item
     */
    show(items, keyOf) {
      const before = this.known;
      this.known = new Map();
      items.forEach((item) => {
        const key = keyOf(item);
        const text = JSON.stringify(item);
        const kept = before.get(key) || {node: this.make(item)};
        before.delete(key);
        if (kept.text !== text) {
          kept.text = text;
          this.update(kept.node, item);
        }
        this.known.set(key, kept);
      });
      before.forEach(function (kept) {
        kept.node.remove();
      });
      let at = this.parent.firstElementChild;
      this.known.forEach((kept) => {
        if (kept.node === at) {
          at = at.nextElementSibling;
        } else {
          this.parent.insertBefore(kept.node, at);
        }
      });
    }
  }

  /* A row whose cells a screen reader knows in narrow windows, too. */
  function rowOf(classes) {
    const row = element('tr');
    row.setAttribute('role', 'row');
    classes.forEach(function (name) {
      const cell = element('td', name);
      cell.setAttribute('role', 'cell');
      row.appendChild(cell);
    });
    return row;
  }

  function link(url, text) {
    const made = element('a', '', text);
    made.href = url;
    made.title = text;
    return made;
  }

  class Run {
    constructor(root, config) {
      this.root = root;
      this.config = config;
      this.field = function (name) {
        return root.querySelector('[data-field="' + name + '"]');
      };
      this.part = root.querySelector('[data-part="refused"]');
      this.remove = root.querySelector('[data-do="delete"]');
      this.canceller = root.querySelector('[data-do="cancel-run"]');
      this.canceller.addEventListener('click', () => this.cancel());
      this.legend = new Kept(
        this.field('legend'), (part) => this.legendOf(part),
        function (node, part) {
          node.querySelector('[data-field="text"]').textContent = part.text;
        }
      );
      this.rows = new Kept(
        root.querySelector('#ga-targets tbody'),
        (command) => this.rowOf(command),
        (row, command) => this.update(row, command)
      );
      this.refused = -1;
      this.poller = new guestAgent.Poller(
        root, (isCurrent) => this.poll(isCurrent), {
          problem: this.field('problem'),
          goOn: root.querySelector('[data-do="go-on"]')
        }
      );
      this.poller.start();
    }

    nameOf(id) {
      return this.config.names[id] || id;
    }

    async poll(isCurrent) {
      const query = new URLSearchParams({refused: this.refused});
      ['status', 'marker'].forEach((name) => {
        if (this.config[name]) {
          query.set(name, this.config[name]);
        }
      });
      const run = await guestAgent.json(
        this.root, 'GET', this.config.run + 'progress/?' + query
      );
      if (!isCurrent()) {
        return {};
      }
      const text = JSON.stringify(run);
      const isNew = text !== this.text;
      this.text = text;
      if (isNew) {
        this.showState(run);
        this.showCommands(run);
        if (run.refused) {
          this.showRefused(run.refused);
        }
      }
      return {isNew: isNew, isOver: run.has_ended};
    }

    showState(run) {
      guestAgent.label(this.field('status'), run);
      this.field('progress').textContent = run.progress;
      this.field('took').textContent = run.duration;
      this.field('end').textContent = run.has_ended ? run.bar.text : '';
      say(this.field('error'), run.error);
      show(this.canceller, this.config.cancel && !run.has_ended);
      show(this.remove, run.has_ended);
      if (run.has_ended) {
        say(this.field('note'), '');
      }
      [run.created, run.finished].forEach((time, index) => {
        this.root.querySelector(
          '[data-time="' + index + '"]'
        ).textContent = time || '–';
      });
      drawBar(this.field('bar'), run.bar);
      this.legend.show(run.bar.parts, function (part) {
        return part.name;
      });
    }

    legendOf(part) {
      const item = element('li');
      const swatch = drawing('svg', {
        class: 'ga-swatch', 'aria-hidden': 'true', viewBox: '0 0 1 1'
      });
      swatch.appendChild(partOf(part, 0, 1));
      item.appendChild(swatch);
      // The commands of the part, and those that got none.
      const url = part.name === 'REFUSED' ? '#ga-refused-title' :
        part.status && '?' + new URLSearchParams({status: part.status});
      const text = element(url ? 'a' : 'span');
      if (url) {
        text.href = url;
      }
      text.dataset.field = 'text';
      item.appendChild(text);
      return item;
    }

    showCommands(run) {
      this.rows.show(run.commands, function (command) {
        return command.uuid;
      });
      show(this.field('table'), run.commands.length > 0);
      let empty = '';
      if (!run.commands.length) {
        empty = this.config.status || this.config.marker || run.has_ended ?
          gettext('No commands fit.') : gettext('No instance has begun yet.');
      }
      say(this.field('empty'), empty);
      const next = this.field('next');
      show(next, Boolean(run.next));
      next.href = '?' + new URLSearchParams({
        status: this.config.status, marker: run.next
      });
    }

    rowOf(command) {
      const row = rowOf([
        'ga-name', 'ga-status ga-one-line', 'ga-why', 'ga-took', 'ga-actions'
      ]);
      row.dataset.command = command.uuid;
      const name = this.nameOf(command.server_id);
      row.cells[0].appendChild(link(command.server_url, name));
      row.cells[1].appendChild(element('span'));
      row.cells[1].appendChild(document.createTextNode(''));
      const shown = link(command.url, gettext('Output and details'));
      shown.setAttribute(
        'aria-label', gettext('Output and details') + ' ' + name
      );
      row.cells[4].appendChild(shown);
      return row;
    }

    update(row, command) {
      guestAgent.label(row.cells[1].firstChild, command);
      row.cells[1].lastChild.data = ' ' + command.outcome;
      row.cells[2].textContent = command.error;
      row.cells[3].textContent = command.duration;
    }

    showRefused(refused) {
      const body = this.part.querySelector('tbody');
      body.textContent = '';
      refused.forEach((target) => {
        const row = rowOf(['ga-name', 'ga-why']);
        row.cells[0].appendChild(
          link(target.server_url, this.nameOf(target.server_id))
        );
        row.cells[1].textContent = target.error;
        body.appendChild(row);
      });
      this.refused = refused.length;
      show(this.part, refused.length > 0);
    }

    async cancel() {
      if (!window.confirm(gettext(
        'Cancel the run? All of its commands that run are killed.'
      ))) {
        return;
      }
      const refusal = this.field('refusal');
      say(refusal, '');
      this.canceller.disabled = true;
      try {
        await guestAgent.call(
          this.root, 'POST', this.config.run + 'cancel/', {json: {}}
        );
        say(this.field('note'), gettext('It is being cancelled.'));
        this.poller.start();
      } catch (error) {
        say(refusal, error.message);
      }
      this.canceller.disabled = false;
    }
  }

  /* The form that starts a run. */
  class NewRun {
    constructor(root, config) {
      this.root = root;
      this.config = config;
      this.form = root.querySelector('form');
      this.program = new guestAgent.Program(this.form, function () {
        return false;
      });
      this.form.addEventListener('submit', (event) => {
        event.preventDefault();
        this.submit();
      });
      if (config.again) {
        this.fill();
      }
    }

    target(name) {
      return this.form.querySelector('[data-target="' + name + '"]');
    }

    async fill() {
      const run = await this.program.fillFrom(this.root, this.config.again);
      if (run) {
        ['name', 'max_concurrency', 'max_errors'].forEach((name) => {
          this.target(name).value = run[name] === null ? '' : run[name];
        });
        const note = this.program.field('note');
        note.textContent = [
          note.textContent, gettext('Choose the instances again.')
        ].join(' ');
      }
    }

    targets() {
      const targets = {};
      const servers = Array.from(
        this.target('servers').selectedOptions
      ).map(function (option) {
        return option.value;
      });
      const tags = this.target('tags').value.split(',').map(function (tag) {
        return tag.trim();
      }).filter(Boolean);
      const metadata = guestAgent.pairs(
        this.target('metadata').value,
        gettext('Metadata: "%s" is not NAME=value.')
      );
      if (servers.length) {
        targets.servers = servers;
      }
      if (tags.length) {
        targets.tags = tags;
      }
      if (Object.keys(metadata).length) {
        targets.metadata = metadata;
      }
      if (!Object.keys(targets).length) {
        throw new guestAgent.Refusal(400, gettext(
          'Choose instances, or name tags or metadata.'
        ));
      }
      return targets;
    }

    /* The run, as the API has it. */
    run() {
      const run = {
        targets: this.targets(),
        type: 'exec',
        arguments: this.program.arguments()
      };
      const name = this.target('name').value.trim();
      if (name) {
        run.name = name;
      }
      ['max_concurrency', 'max_errors'].forEach((field) => {
        const value = this.target(field).value.trim();
        if (value) {
          run[field] = value.endsWith('%') ? value : Number(value);
        }
      });
      if (this.target('allow_missing_cells').checked) {
        run.allow_missing_cells = true;
      }
      return run;
    }

    async submit() {
      const button = this.form.querySelector('[data-do="submit"]');
      const refusal = this.program.field('refusal');
      say(refusal, '');
      button.disabled = true;
      try {
        const run = await guestAgent.postOnce(
          this.root, this.config.runs, {run: this.run()}
        );
        window.location.assign(run.url);
      } catch (error) {
        say(refusal, error.message);
        button.disabled = false;
      }
    }
  }

  guestAgent.startRun = function (root, config) {
    return new Run(root, config);
  };
  guestAgent.startNewRun = function (root, config) {
    return new NewRun(root, config);
  };
}());
