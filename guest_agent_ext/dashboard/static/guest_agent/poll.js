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

/* What is asked for again and again, while somebody looks at it. */
(function () {
  'use strict';

  const guestAgent = window.guestAgent = window.guestAgent || {};
  const say = guestAgent.say;
  const show = guestAgent.show;

  // Milliseconds between two polls, and the backoff factor.
  const MIN_GAP = 250;
  const MAX_GAP = 3000;
  const HIDDEN_GAP = 10000;
  const GROWTH = 1.4;
  // Endless polls would keep a session alive that nobody uses.
  const IDLE = 15 * 60 * 1000;
  // Polls that may fail in a row.
  const FAILURES = 20;

  let lastTouched = Date.now();

  function touch() {
    lastTouched = Date.now();
  }

  ['keydown', 'pointerdown', 'visibilitychange'].forEach(function (name) {
    document.addEventListener(name, touch);
  });

  class Poller {
    /* node: element that all this is for
     * ask: function that polls once and shows what is new. It gets a function
     *   that tells whether the answer is still wanted, and resolves to isNew
     *   and isOver.
     * parts: problem, the element that says what went wrong; goOn, the button
     *   that starts the poller again
     * gap: milliseconds between two polls, if they are always the same
     */
    constructor(node, ask, parts, gap) {
      this.node = node;
      this.ask = ask;
      this.parts = parts;
      this.minGap = gap || MIN_GAP;
      this.maxGap = gap || MAX_GAP;
      parts.goOn.addEventListener('click', () => this.start());
    }

    /* Poll until what is shown is over; a poller that runs starts anew. */
    async start() {
      const turn = this.turn = {};
      const isCurrent = () => turn === this.turn && this.node.isConnected;
      let gap = this.minGap;
      let failures = 0;
      touch();
      show(this.parts.goOn, false);
      while (isCurrent()) {
        try {
          const news = await this.ask(isCurrent);
          if (!isCurrent()) {
            return;
          }
          gap = news.isNew ?
            this.minGap : Math.min(gap * GROWTH, this.maxGap);
          failures = 0;
          say(this.parts.problem, '');
          if (news.isOver) {
            return;
          }
        } catch (error) {
          if (!isCurrent()) {
            return;
          }
          say(this.parts.problem, error.message);
          failures += 1;
          gap = this.maxGap;
          if (!error.isPassing || failures > FAILURES) {
            show(this.parts.goOn, true);
            return;
          }
        }
        if (Date.now() - lastTouched > IDLE) {
          show(this.parts.goOn, true);
          return;
        }
        await guestAgent.sleep(document.hidden ? HIDDEN_GAP : gap);
      }
    }
  }

  guestAgent.Poller = Poller;
  guestAgent.touch = touch;
}());
