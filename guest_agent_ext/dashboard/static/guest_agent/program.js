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

/* The fields of a form that say what is to be run. */
(function () {
  'use strict';

  const guestAgent = window.guestAgent = window.guestAgent || {};
  const say = guestAgent.say;

  const SHELL = ['/bin/sh', '-c'];
  const WINDOWS_SHELL = ['cmd.exe', '/c'];

  /* The pairs of a text with a line of NAME=value each.
   *
   * problem: what is said of a line that is none, with %s for it
   */
  function pairs(text, problem) {
    const found = Object.create(null);
    text.split('\n').forEach(function (line) {
      if (!line.trim()) {
        return;
      }
      const at = line.indexOf('=');
      if (at < 1) {
        throw new guestAgent.Refusal(400, interpolate(problem, [line]));
      }
      found[line.slice(0, at).trim()] = line.slice(at + 1);
    });
    return found;
  }

  class Program {
    /* isWindows: function that tells which shell there is */
    constructor(form, isWindows) {
      this.form = form;
      this.isWindows = isWindows;
      this.text = form.querySelector('#ga-command');
    }

    field(name) {
      return this.form.querySelector('[data-field="' + name + '"]');
    }

    option(name) {
      return this.form.querySelector('[data-option="' + name + '"]');
    }

    set mode(value) {
      this.form.querySelector('[value="' + value + '"]').checked = true;
    }

    get mode() {
      return this.form.querySelector('[name="ga-mode"]:checked').value;
    }

    /* The arguments, as the API has them. */
    arguments() {
      const shell = this.isWindows() ? WINDOWS_SHELL : SHELL;
      const text = this.text.value;
      const args = {
        command: this.mode === 'shell' ?
          shell.concat([text]) : text.replace(/\n$/, '').split('\n')
      };
      ['user', 'cwd', 'output_keep'].forEach((name) => {
        const value = this.option(name).value.trim();
        if (value) {
          args[name] = value;
        }
      });
      if (this.option('timeout').value) {
        args.timeout = Number(this.option('timeout').value);
      }
      if (this.option('input_data').value) {
        args.input_data = this.option('input_data').value;
      }
      const env = pairs(
        this.option('env').value,
        gettext('Environment: "%s" is not NAME=value.')
      );
      if (Object.keys(env).length) {
        args.env = env;
      }
      return args;
    }

    /* Fill the form with what an earlier command or run was told.
     *
     * url: call that tells it
     */
    async fillFrom(root, url) {
      let earlier;
      try {
        earlier = await guestAgent.json(root, 'GET', url);
      } catch (error) {
        say(this.field('refusal'), error.message);
        return undefined;
      }
      this.fill(earlier.arguments || {});
      return earlier;
    }

    fill(args) {
      const argv = args.command || [];
      const isShell = argv.length === 3 &&
        [SHELL, WINDOWS_SHELL].some(function (shell) {
          return shell[0] === argv[0] && shell[1] === argv[1];
        });
      const isLines = argv.every(function (word) {
        return !word.includes('\n');
      });
      this.mode = isShell ? 'shell' : 'argv';
      this.text.value = isShell ? argv[2] : argv.join('\n');
      ['user', 'cwd', 'timeout', 'output_keep'].forEach((name) => {
        this.option(name).value = args[name] === undefined ? '' : args[name];
      });
      this.option('env').value = (args.env || []).map(function (name) {
        return name + '=';
      }).join('\n');
      const notes = [gettext('This is what the earlier command was told.')];
      if ((args.env || []).length || args.input_bytes) {
        notes.push(gettext(
          'Values of its environment and its input are not kept: add them.'
        ));
        this.form.querySelector('details').open = true;
      }
      if (!isShell && !isLines) {
        notes.push(gettext('An argument had several lines: mend it.'));
      }
      say(this.field('note'), notes.join(' '));
      this.text.focus();
    }
  }

  /* Post what is accepted once, and once more if there was no answer: the key
   * has it done once. */
  async function postOnce(root, url, body) {
    const keyed = Object.assign({key: guestAgent.random()}, body);
    try {
      return await guestAgent.json(root, 'POST', url, {json: keyed});
    } catch (error) {
      if (error.status !== 0) {
        throw error;
      }
    }
    await guestAgent.sleep(1000);
    return guestAgent.json(root, 'POST', url, {json: keyed});
  }

  Object.assign(guestAgent, {
    Program: Program,
    pairs: pairs,
    postOnce: postOnce
  });
}());
