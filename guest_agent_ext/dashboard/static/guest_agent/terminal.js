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

/* A terminal in a server: xterm.js, and an attached command. */
(function () {
  'use strict';

  const guestAgent = window.guestAgent = window.guestAgent || {};
  const say = guestAgent.say;
  const show = guestAgent.show;

  // The login shell of the user.
  const SHELL = ['/bin/sh', '-c', 'exec "${SHELL:-/bin/sh}" -l'];
  const ROWS = 24;
  const MAX_COLUMNS = 200;
  // Milliseconds between two requests for output that had none.
  const MIN_GAP = 50;
  const MAX_GAP = 1000;
  const GROWTH = 1.5;
  const RETRY = 1000;
  const RESIZE_DELAY = 300;
  // Bytes of input in one request.
  const PIECE = 64 * 1024;
  const PREFIX = 'OpenStack-Guest-Agent-';

  let library;

  /* Load xterm.js, once. */
  function load(config) {
    library = library || new Promise(function (resolve, reject) {
      const style = document.createElement('link');
      style.rel = 'stylesheet';
      style.href = config.xterm_style;
      document.head.appendChild(style);
      const script = document.createElement('script');
      script.src = config.xterm;
      script.onload = resolve;
      script.onerror = function () {
        library = undefined;
        reject(new guestAgent.Refusal(
          0, gettext('xterm.js cannot be loaded.')
        ));
      };
      document.head.appendChild(script);
    });
    return library;
  }

  class Terminal {
    constructor(root, part, config) {
      this.root = root;
      this.part = part;
      this.config = config;
      this.field = function (name) {
        return part.querySelector('[data-field="' + name + '"]');
      };
      this.opener = part.querySelector('[data-do="open-terminal"]');
      this.closer = part.querySelector('[data-do="close-terminal"]');
      part.querySelector('form').addEventListener('submit', (event) => {
        event.preventDefault();
        this.open();
      });
      this.closer.addEventListener('click', () => this.close());
      window.addEventListener('resize', () => this.fit());
      window.addEventListener('pagehide', () => this.leave());
    }

    /* Say why the guest cannot have one, if it cannot. */
    refuse(reason) {
      say(this.field('lacks'), reason);
      if (!this.isOpen) {
        this.opener.disabled = Boolean(reason);
      }
    }

    async open() {
      this.isOpen = true;
      this.opener.disabled = true;
      say(this.field('refusal'), '');
      this.field('state').textContent = gettext('Starting …');
      try {
        await load(this.config);
        await this.start();
      } catch (error) {
        this.end('');
        say(this.field('refusal'), error.message);
        return;
      }
      show(this.opener, false);
      show(this.closer, true);
      this.read();
    }

    async start() {
      const columns = this.columns();
      const args = {
        command: SHELL,
        terminal: {columns: columns, rows: ROWS, term: 'xterm-256color'}
      };
      const user = this.field('user').value.trim();
      if (user) {
        args.user = user;
      }
      const command = await guestAgent.json(
        this.root, 'POST', this.config.calls + 'commands/',
        {json: {arguments: args, key: guestAgent.random()}}
      );
      this.id = command.uuid;
      this.url = this.config.calls + 'commands/' + this.id + '/';
      this.client = guestAgent.random();
      this.sent = 0;
      this.waiting = [];
      this.isSending = false;
      this.draw(columns);
    }

    /* Show the terminal, and take what is typed. */
    draw(columns) {
      const screen = this.field('screen');
      if (this.term) {
        this.term.dispose();
      }
      show(screen, true);
      show(this.field('keys'), true);
      this.term = new window.Terminal({
        cols: columns,
        rows: ROWS,
        screenReaderMode: true,
        scrollback: 5000
      });
      this.term.open(screen);
      this.term.attachCustomKeyEventHandler((event) => {
        // The way out for those who have no mouse.
        if (event.key === 'F6' && event.ctrlKey && event.shiftKey) {
          this.closer.focus();
          return false;
        }
        return true;
      });
      this.term.onData((text) => {
        this.type(new TextEncoder().encode(text));
      });
      this.term.onBinary((text) => {
        this.type(Uint8Array.from(text, (char) => char.charCodeAt(0)));
      });
      this.term.focus();
      // What is out of sight is not drawn.
      screen.scrollIntoView({block: 'nearest'});
    }

    /* The number of columns that there is room for. */
    columns() {
      const probe = guestAgent.element('span', 'ga-probe', 'm'.repeat(100));
      this.part.appendChild(probe);
      const width = probe.getBoundingClientRect().width / 100;
      probe.remove();
      // Beside the scroll bar and the padding.
      const room = this.part.clientWidth - 32;
      return Math.min(MAX_COLUMNS, Math.max(20, Math.floor(room / width)));
    }

    fit() {
      if (!this.id) {
        return;
      }
      clearTimeout(this.timer);
      this.timer = setTimeout(() => {
        const columns = this.columns();
        if (!this.id || columns === this.term.cols) {
          return;
        }
        this.term.resize(columns, ROWS);
        guestAgent.call(this.root, 'POST', this.url + 'resize/', {
          json: {columns: columns, rows: ROWS}
        }).catch(function () {
          // The next change of the window's size asks again.
        });
      }, RESIZE_DELAY);
    }

    /* Show output until its end. */
    async read() {
      const id = this.id;
      let offset = 0;
      let gap = MIN_GAP;
      let isStarted = false;
      while (this.id === id && this.part.isConnected) {
        let answer;
        try {
          answer = await guestAgent.call(
            this.root, 'GET',
            this.url + 'stream/?' + new URLSearchParams({
              stream: 'out', offset: offset, client: this.client
            })
          );
        } catch (error) {
          if (await this.hasEnded(id, error)) {
            return;
          }
          await guestAgent.sleep(RETRY);
          continue;
        }
        const bytes = new Uint8Array(await answer.arrayBuffer());
        if (this.id !== id) {
          return;
        }
        offset = Number(answer.headers.get(PREFIX + 'Next-Offset'));
        if (bytes.length) {
          if (!isStarted) {
            isStarted = true;
            this.field('state').textContent = gettext('Connected.');
          }
          // No further than is shown: the command waits meanwhile.
          await new Promise((resolve) => this.term.write(bytes, resolve));
          gap = MIN_GAP;
        } else if (answer.headers.get(PREFIX + 'Complete') === 'true') {
          await this.tellEnd(id);
          return;
        } else {
          await guestAgent.sleep(gap);
          gap = Math.min(gap * GROWTH, MAX_GAP);
        }
      }
    }

    /* Tell the end if the command has one, else what went wrong. */
    async hasEnded(id, error) {
      if (this.id !== id) {
        return true;
      }
      if (error.isPassing) {
        this.field('state').textContent = error.message;
        return false;
      }
      try {
        const command = await guestAgent.json(this.root, 'GET', this.url);
        if (this.id === id && command.has_ended) {
          this.showEnd(command);
        } else if (this.id === id) {
          // Another client is attached, or the output is gone.
          this.leave();
          this.end('');
          say(this.field('refusal'), error.message);
        }
      } catch (other) {
        this.end('');
        say(this.field('refusal'), error.message);
      }
      return true;
    }

    async tellEnd(id) {
      // The end is told a moment after the last byte.
      for (let left = 20; left && this.id === id; left -= 1) {
        try {
          const command = await guestAgent.json(this.root, 'GET', this.url);
          if (command.has_ended) {
            this.showEnd(command);
            return;
          }
        } catch (error) {
          if (!error.isPassing) {
            break;
          }
        }
        await guestAgent.sleep(MIN_GAP * 5);
      }
      if (this.id === id) {
        this.end(gettext('The terminal has ended.'));
      }
    }

    showEnd(command) {
      this.end([
        gettext('The terminal has ended:'), command.status, command.outcome
      ].join(' '));
      if (command.error && command.status !== 'CANCELLED') {
        say(this.field('refusal'), command.error);
      }
    }

    type(bytes) {
      if (!this.id) {
        return;
      }
      this.waiting.push(bytes);
      this.send();
    }

    /* Send what was typed, in order; what is not taken is sent again. */
    async send() {
      if (this.isSending) {
        return;
      }
      this.isSending = true;
      const id = this.id;
      let gap = MIN_GAP;
      while (this.id === id && this.waiting.length) {
        // More may be typed meanwhile; it is behind.
        const count = this.waiting.length;
        const all = new Uint8Array(await new Blob(this.waiting).arrayBuffer());
        const query = new URLSearchParams({
          offset: this.sent, client: this.client
        });
        try {
          const answer = await guestAgent.json(
            this.root, 'POST', this.url + 'input/?' + query,
            {body: all.slice(0, PIECE)}
          );
          if (this.id !== id) {
            break;
          }
          const taken = answer.next_offset - this.sent;
          this.sent = answer.next_offset;
          this.waiting.splice(0, count, ...(
            taken < all.length ? [all.slice(taken)] : []
          ));
          gap = taken ? MIN_GAP : Math.min(gap * GROWTH, MAX_GAP);
          if (!taken) {
            await guestAgent.sleep(gap);
          }
        } catch (error) {
          // Not started yet, or a host that is away: typed is typed.
          if (await this.hasEnded(id, error)) {
            break;
          }
          await guestAgent.sleep(RETRY);
        }
      }
      this.isSending = false;
    }

    async close() {
      const id = this.id;
      const url = this.url;
      this.end(gettext('Closed.'));
      if (id) {
        try {
          await guestAgent.call(
            this.root, 'POST', url + 'cancel/', {json: {}}
          );
        } catch (error) {
          // It may have ended by itself.
          if (error.status !== 409) {
            say(this.field('refusal'), error.message);
          }
        }
      }
    }

    /* The page goes, and its terminal with it. */
    leave() {
      if (this.id) {
        fetch(this.url + 'cancel/', {
          method: 'POST',
          body: '{}',
          keepalive: true,
          headers: guestAgent.headersOf(this.root, 'POST')
        }).catch(function () {
          // Without a client it is cancelled after a while in any case.
        });
      }
    }

    end(text) {
      const hadFocus = this.part.contains(document.activeElement);
      this.id = undefined;
      this.isOpen = false;
      this.field('state').textContent = text;
      if (this.term) {
        this.term.options.disableStdin = true;
        this.term.options.cursorBlink = false;
      }
      show(this.closer, false);
      show(this.opener, true);
      this.opener.disabled = false;
      if (hadFocus) {
        this.opener.focus();
      }
    }
  }

  guestAgent.startTerminal = function (root, part, config) {
    return new Terminal(root, part, config);
  };
}());
