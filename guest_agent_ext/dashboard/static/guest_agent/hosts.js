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

/* The hosts of a cloud: what they run now, and what they ran a moment ago. */
(function () {
  'use strict';

  const guestAgent = window.guestAgent = window.guestAgent || {};
  const drawing = guestAgent.drawing;

  // Milliseconds between two polls, and those that a plot shows.
  const GAP = 5000;
  const WINDOW = 5 * 60 * 1000;
  // Units of a plot: one a second, from left to right.
  const WIDTH = WINDOW / 1000;
  const HEIGHT = 100;
  const SERIES = ['running', 'pending'];

  /* The plot of a host, of what was seen since the page was opened. */
  class Plot {
    constructor(node, host) {
      this.host = host;
      this.samples = [];
      this.svg = drawing('svg', {
        class: 'ga-plot', role: 'img', preserveAspectRatio: 'none',
        viewBox: '0 -4 ' + WIDTH + ' ' + (HEIGHT + 8)
      });
      this.title = drawing('title', {});
      this.svg.appendChild(this.title);
      this.lines = SERIES.map((name) => {
        const line = drawing('polyline', {class: 'ga-line-' + name});
        this.svg.appendChild(line);
        return line;
      });
      node.textContent = '';
      node.appendChild(this.svg);
    }

    /* Add what a host has at a time, and draw it. */
    add(host, time) {
      this.samples.push({
        time: time, running: host.running, pending: host.pending
      });
      while (this.samples[0].time < time - WINDOW) {
        this.samples.shift();
      }
      this.draw(time);
    }

    draw(now) {
      const most = SERIES.map((name) => Math.max(
        ...this.samples.map((sample) => sample[name])
      ));
      const scale = HEIGHT / Math.max(1, ...most);
      SERIES.forEach((name, index) => {
        const points = this.samples.map((sample) => [
          WIDTH - (now - sample.time) / 1000, HEIGHT - sample[name] * scale
        ]);
        // A single point would be no line.
        points.unshift([points[0][0] - 2, points[0][1]]);
        this.lines[index].setAttribute('points', points.map(
          (point) => point[0].toFixed(1) + ',' + point[1].toFixed(1)
        ).join(' '));
      });
      this.tell(now, most);
    }

    /* The same in words. */
    tell(now, most) {
      const last = this.samples[this.samples.length - 1];
      const seconds = Math.round((now - this.samples[0].time) / 1000);
      const text = interpolate(gettext(
        '%s: %s running (at most %s), %s pending (at most %s), in %s s'
      ), [
        this.host, last.running, most[0], last.pending, most[1], seconds
      ]);
      this.svg.setAttribute('aria-label', text);
      this.title.textContent = text;
    }
  }

  /* Two cells may have hosts of the same name. */
  function nameOf(host, cell) {
    return (cell || '') + ' ' + host;
  }

  class Hosts {
    constructor(root, node, config) {
      this.root = root;
      this.config = config;
      this.rows = new Map();
      node.querySelectorAll('tr[data-host]').forEach((row) => {
        const host = row.dataset.host;
        const cell = row.querySelector('[data-field="plot"]');
        this.rows.set(nameOf(host, row.dataset.cell), {
          row: row, plot: new Plot(cell, host)
        });
      });
      const poller = new guestAgent.Poller(
        node, (isCurrent) => this.poll(isCurrent), {
          problem: node.querySelector('[data-field="problem"]'),
          goOn: node.querySelector('[data-do="go-on"]')
        }, GAP
      );
      poller.start();
    }

    async poll(isCurrent) {
      const answer = await guestAgent.json(
        this.root, 'GET', this.config.hosts
      );
      if (isCurrent()) {
        const now = Date.now();
        answer.hosts.forEach((host) => {
          const known = this.rows.get(nameOf(host.host, host.cell));
          // Another one is listed when the page is loaded again.
          if (known) {
            this.show(known.row, host);
            known.plot.add(host, now);
          }
        });
      }
      return {};
    }

    show(row, host) {
      ['version', 'last_seen', 'running', 'pending'].forEach(function (name) {
        row.querySelector('[data-field="' + name + '"]').textContent =
          host[name];
      });
      const state = row.querySelector('[data-field="state"]');
      state.textContent = host.state;
      state.className = 'label label-' +
        (host.state === 'up' ? 'success' : 'danger');
    }
  }

  guestAgent.startHosts = function (root, node, config) {
    return new Hosts(root, node, config);
  };
}());
