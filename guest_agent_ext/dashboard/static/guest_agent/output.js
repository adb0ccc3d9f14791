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

/* A command that is watched: its state, and its output as it comes. */
(function () {
  'use strict';

  const guestAgent = window.guestAgent = window.guestAgent || {};
  const say = guestAgent.say;
  const show = guestAgent.show;

  class Output {
    /* root: element with the token; part: that of the template */
    constructor(root, part, config) {
      this.root = root;
      this.part = part;
      this.config = config;
      this.onChange = function () {};
      this.field = function (name) {
        return part.querySelector('[data-field="' + name + '"]');
      };
      this.button = function (name) {
        return part.querySelector('[data-do="' + name + '"]');
      };
      this.streams = {};
      ['out', 'err'].forEach((name) => {
        const node = part.querySelector('[data-stream="' + name + '"]');
        this.streams[name] = {
          node: node,
          note: node.querySelector('[data-field="note"]'),
          screen: new guestAgent.Screen(
            node.querySelector('[data-field="text"]')
          )
        };
      });
      this.button('cancel').addEventListener('click', () => this.cancel());
      this.poller = new guestAgent.Poller(
        part, (isCurrent) => this.poll(isCurrent),
        {problem: this.field('refusal'), goOn: this.button('go-on')}
      );
    }

    /* Show a command from its beginning on. */
    watch(id) {
      this.id = id;
      this.url = this.config.calls + 'commands/' + id + '/';
      Object.values(this.streams).forEach(function (stream) {
        stream.screen.clear();
        stream.note.textContent = '';
        stream.offset = 0;
        stream.shown = 0;
        stream.lost = 0;
        stream.isComplete = false;
      });
      say(this.field('refusal'), '');
      say(this.field('error'), '');
      show(this.part, true);
      show(this.part.querySelector('.ga-streams'), this.config.output);
      return this.poller.start();
    }

    /* Ask once, and show what is new. */
    async poll(isCurrent) {
      const query = !this.config.output ? '' : '?' + ['out', 'err'].map(
        (name) => name + '=' + this.streams[name].offset
      ).join('&');
      const command = await guestAgent.json(
        this.root, 'GET', this.url + query
      );
      if (!isCurrent()) {
        return {};
      }
      this.showState(command);
      let isNew = false;
      let isComplete = true;
      ['out', 'err'].forEach((name) => {
        const answer = command[name];
        if (answer) {
          isNew = this.add(this.streams[name], answer) || isNew;
          isComplete = isComplete && answer.complete;
        }
      });
      const isOver = command.has_ended && isComplete;
      if (isOver) {
        this.finish(command);
      }
      return {isNew: isNew, isOver: isOver};
    }

    showState(command) {
      guestAgent.label(this.field('status'), command);
      this.field('outcome').textContent = command.outcome;
      this.field('took').textContent = command.duration;
      say(this.field('error'), command.has_ended ? command.error : '');
      show(this.button('cancel'), this.config.cancel && !command.has_ended);
      const link = this.field('link');
      if (!this.config.command) {
        link.href = command.url;
        show(link, true);
      }
      if (command.status !== this.status || this.shownId !== command.uuid) {
        this.status = command.status;
        this.shownId = command.uuid;
        this.onChange(command);
      }
    }

    add(stream, answer) {
      if (answer.problem) {
        // For now: the command goes on, and so does this.
        stream.note.textContent = answer.problem;
        return false;
      }
      const bytes = guestAgent.bytesOf(answer.data);
      stream.lost += answer.offset - stream.offset;
      stream.note.textContent = !stream.lost ? '' : interpolate(
        gettext('%s bytes in between were not kept.'), [stream.lost]
      );
      stream.offset = answer.next;
      stream.shown += bytes.length;
      stream.screen.write(bytes, answer.complete);
      return bytes.length > 0;
    }

    finish(command) {
      ['out', 'err'].forEach((name) => {
        const stream = this.streams[name];
        const written = (command.written || {})[name];
        if (!command[name]) {
          return;
        }
        if (!stream.shown) {
          stream.note.textContent = gettext('Nothing.');
        } else if (written > stream.shown) {
          stream.note.textContent = interpolate(
            gettext('%s of %s bytes were kept.'), [stream.shown, written]
          );
        } else {
          stream.note.textContent = '';
        }
      });
    }

    async cancel() {
      this.button('cancel').disabled = true;
      try {
        await guestAgent.call(this.root, 'POST', this.url + 'cancel/',
                              {json: {}});
        guestAgent.touch();
      } catch (error) {
        say(this.field('refusal'), error.message);
      }
      this.button('cancel').disabled = false;
    }
  }

  guestAgent.Output = Output;
}());
