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

/* Passwords and ssh keys of a guest's users. */
(function () {
  'use strict';

  const guestAgent = window.guestAgent = window.guestAgent || {};
  const say = guestAgent.say;
  const show = guestAgent.show;

  /* A form whose command calls the guest agent, and runs no program.
   *
   * commandOf: function that returns the type and the arguments of the command
   */
  class AgentForm {
    constructor(root, form, config, commandOf, onEnd) {
      this.root = root;
      this.form = form;
      this.config = config;
      this.commandOf = commandOf;
      this.onEnd = onEnd;
      this.button = form.querySelector('[type="submit"]');
      this.poller = new guestAgent.Poller(
        form, (isCurrent) => this.poll(isCurrent), {
          problem: this.field('problem'),
          goOn: form.querySelector('[data-do="go-on"]')
        }
      );
      form.addEventListener('submit', (event) => {
        event.preventDefault();
        this.submit();
      });
    }

    field(name) {
      return this.form.querySelector('[data-field="' + name + '"]');
    }

    /* Refuse what the guest cannot do. */
    refuse(types, reason) {
      const kinds = this.form.dataset.types.split(' ');
      const isPossible = !types || kinds.every(function (kind) {
        return types.includes(kind);
      });
      this.button.disabled = !isPossible;
      say(this.field('lacks'), isPossible ? '' : reason);
    }

    async submit() {
      say(this.field('refusal'), '');
      say(this.field('error'), '');
      this.button.disabled = true;
      try {
        const command = await guestAgent.postOnce(
          this.root, this.config.calls + 'commands/', this.commandOf(this)
        );
        // Nobody behind the user needs to find a password in it.
        this.form.querySelectorAll('[type="password"]').forEach(
          function (input) {
            input.value = '';
          }
        );
        this.url = this.config.calls + 'commands/' + command.uuid + '/';
        this.poller.start();
      } catch (error) {
        say(this.field('refusal'), error.message);
      }
      this.button.disabled = false;
    }

    async poll(isCurrent) {
      const command = await guestAgent.json(this.root, 'GET', this.url);
      if (!isCurrent()) {
        return {};
      }
      guestAgent.label(this.field('status'), command);
      say(this.field('error'), command.has_ended ? command.error : '');
      const link = this.field('link');
      link.href = command.url;
      show(link, true);
      if (command.has_ended) {
        this.onEnd();
      }
      return {isOver: command.has_ended};
    }
  }

  function passwordOf(form) {
    const password = form.field('password').value;
    if (password !== form.field('repeated').value) {
      throw new guestAgent.Refusal(
        400, gettext('The two passwords differ.')
      );
    }
    return {
      type: 'set-password',
      arguments: {user: form.field('user').value.trim(), password: password}
    };
  }

  function keysOf(form) {
    const keys = form.field('keys').value.split('\n').map(function (line) {
      return line.trim();
    }).filter(function (line) {
      return line && !line.startsWith('#');
    });
    // A private key must not leave this computer.
    if (!keys.length || keys.some(function (line) {
      return line.includes('PRIVATE KEY');
    })) {
      throw new guestAgent.Refusal(400, gettext(
        'Public keys are needed, one a line, as in id_ed25519.pub.'
      ));
    }
    const how = form.field('how').value;
    const args = {user: form.field('user').value.trim(), keys: keys};
    if (how === 'reset') {
      args.reset = true;
    }
    return {
      type: how === 'remove' ? 'ssh-keys-remove' : 'ssh-keys-add',
      arguments: args
    };
  }

  const COMMANDS = {password: passwordOf, keys: keysOf};

  /* Start the forms of a part; returns what refuses what a guest lacks. */
  guestAgent.startAccounts = function (root, part, config, onEnd) {
    const forms = Array.from(part.querySelectorAll('form')).map(
      function (form) {
        return new AgentForm(
          root, form, config, COMMANDS[form.dataset.do], onEnd
        );
      }
    );
    return function (types) {
      forms.forEach(function (form) {
        form.refuse(types, gettext('The guest agent does not know this call.'));
      });
    };
  };
}());
