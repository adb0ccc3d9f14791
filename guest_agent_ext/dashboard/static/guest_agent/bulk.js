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

/* Commands of a list that are chosen and deleted together. */
(function () {
  'use strict';

  const guestAgent = window.guestAgent = window.guestAgent || {};
  const say = guestAgent.say;

  class Bulk {
    constructor(root, node) {
      this.root = root;
      this.button = node.querySelector('[data-do="delete-chosen"]');
      this.state = node.querySelector('[data-field="deleted"]');
      this.all = node.querySelector('[data-do="choose-all"]');
      this.label = this.button.textContent;
      this.all.addEventListener('change', () => {
        this.boxes.forEach((box) => {
          box.checked = this.all.checked;
        });
        this.show();
      });
      root.addEventListener('change', (event) => {
        if (event.target.matches('[data-do="choose"]')) {
          this.show();
        }
      });
      this.button.addEventListener('click', () => this.remove());
      // A browser keeps what was chosen when the page is loaded again.
      this.show();
    }

    get boxes() {
      return Array.from(this.root.querySelectorAll('[data-do="choose"]'));
    }

    get chosen() {
      return this.boxes.filter(function (box) {
        return box.checked;
      });
    }

    show() {
      const number = this.chosen.length;
      this.button.disabled = number === 0;
      this.button.textContent = number ?
        this.label + ' (' + number + ')' : this.label;
      this.all.disabled = this.boxes.length === 0;
      this.all.checked = number > 0 && number === this.boxes.length;
      this.all.indeterminate = number > 0 && !this.all.checked;
    }

    async remove() {
      const chosen = this.chosen;
      if (!window.confirm(interpolate(ngettext(
        'Delete %s command and its output?',
        'Delete %s commands and their output?', chosen.length
      ), [chosen.length]))) {
        return;
      }
      const refusal = this.root.querySelector('[data-field="refusal"]');
      say(refusal, '');
      this.button.disabled = true;
      try {
        for (const [index, box] of chosen.entries()) {
          this.state.textContent = interpolate(
            gettext('Deleting %s of %s …'), [index + 1, chosen.length]
          );
          await this.removeOne(box);
        }
        window.location.reload();
      } catch (error) {
        // Of those that are left the same may be said.
        say(refusal, error.message);
        this.state.textContent = '';
        this.show();
        refusal.scrollIntoView({block: 'nearest'});
      }
    }

    async removeOne(box) {
      try {
        await guestAgent.call(this.root, 'DELETE', box.value);
      } catch (error) {
        // Somebody else was faster.
        if (error.status !== 404) {
          throw error;
        }
      }
      box.closest('tr').remove();
    }
  }

  guestAgent.startBulk = function (root, node) {
    return new Bulk(root, node);
  };
}());
