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

/* Files to and from a server, with progress. */
(function () {
  'use strict';

  const guestAgent = window.guestAgent = window.guestAgent || {};
  const say = guestAgent.say;
  const show = guestAgent.show;

  function baseName(path) {
    return path.split(/[\\/]/).pop() || 'file';
  }

  /* One of the two forms. */
  class Transfer {
    constructor(root, form, config) {
      this.root = root;
      this.form = form;
      this.url = config.calls + 'file/';
      this.abort = function () {};
      form.addEventListener('submit', (event) => {
        event.preventDefault();
        this.run();
      });
      this.part('abort').addEventListener('click', () => this.abort());
    }

    field(name) {
      return this.form.querySelector('[data-field="' + name + '"]');
    }

    part(name) {
      return this.form.querySelector('[data-do="' + name + '"]');
    }

    async run() {
      const start = this.part('start');
      const began = Date.now();
      start.disabled = true;
      show(this.part('abort'), true);
      say(this.field('refusal'), '');
      this.field('done').textContent = '';
      this.progress(0, 0);
      show(this.field('progress'), true);
      try {
        const bytes = await this.transfer();
        this.field('done').textContent = interpolate(
          gettext('Done: %s in %s s.'),
          [guestAgent.size(bytes), ((Date.now() - began) / 1000).toFixed(1)]
        );
      } catch (error) {
        say(this.field('refusal'), error.name === 'AbortError' ?
          gettext('Stopped.') : error.message);
      }
      show(this.field('progress'), false);
      show(this.part('abort'), false);
      start.disabled = false;
      // Where the keyboard was, when it was on what is hidden now.
      if (document.activeElement === document.body) {
        start.focus();
      }
    }

    progress(done, total) {
      const bar = this.form.querySelector('progress');
      if (total) {
        bar.max = total;
        bar.value = done;
      } else {
        bar.removeAttribute('value');
      }
      this.field('amount').textContent = guestAgent.size(done) +
        (total ? ' / ' + guestAgent.size(total) : '');
    }
  }

  class Sending extends Transfer {
    transfer() {
      const file = this.form.querySelector('input[type="file"]').files[0];
      let path = this.field('path').value.trim();
      if (/[\\/]$/.test(path)) {
        path += file.name;
      }
      const query = new URLSearchParams({path: path});
      if (this.field('mode').value) {
        query.set('mode', this.field('mode').value);
      }
      const headers = guestAgent.headersOf(this.root, 'POST');
      headers['Content-Type'] = 'application/octet-stream';
      // fetch() tells no progress of what it sends.
      return new Promise((resolve, reject) => {
        const request = new XMLHttpRequest();
        request.open('POST', this.url + '?' + query);
        Object.keys(headers).forEach(function (name) {
          request.setRequestHeader(name, headers[name]);
        });
        request.upload.onprogress = (event) => {
          this.progress(event.loaded, file.size);
        };
        request.onload = function () {
          // A redirect to the login page was followed.
          const type = request.getResponseHeader('Content-Type') || '';
          const isJson = type.startsWith('application/json');
          if (request.status === 200 && isJson) {
            resolve(file.size);
          } else {
            reject(guestAgent.refusalOf(
              request.status === 200 ? 401 : request.status,
              request.responseText, request.getResponseHeader('Retry-After')
            ));
          }
        };
        request.onerror = function () {
          reject(new guestAgent.Refusal(0, gettext(
            'The transfer broke off, or the dashboard does not answer.'
          )));
        };
        request.onabort = function () {
          reject(new DOMException('', 'AbortError'));
        };
        this.abort = function () {
          request.abort();
        };
        request.send(file);
      });
    }
  }

  class Fetching extends Transfer {
    async transfer() {
      const path = this.field('path').value.trim();
      const controller = new AbortController();
      this.abort = function () {
        controller.abort();
      };
      const response = await guestAgent.call(
        this.root, 'GET',
        this.url + '?' + new URLSearchParams({path: path}),
        {signal: controller.signal}
      );
      const total = Number(response.headers.get('Content-Length'));
      let done = 0;
      const counted = response.body.pipeThrough(new TransformStream({
        transform: (chunk, stream) => {
          done += chunk.byteLength;
          this.progress(done, total);
          stream.enqueue(chunk);
        }
      }));
      let blob;
      try {
        // Of a type to which browsers add no ending.
        blob = await new Response(counted, {
          headers: {'Content-Type': 'application/octet-stream'}
        }).blob();
      } catch (error) {
        if (error.name === 'AbortError') {
          throw error;
        }
        blob = null;
      }
      if (!blob || blob.size !== total) {
        throw new guestAgent.Refusal(0, interpolate(
          gettext('The transfer broke off after %s.'),
          [guestAgent.size(done)]
        ));
      }
      const link = document.createElement('a');
      link.href = URL.createObjectURL(blob);
      link.download = baseName(path);
      link.click();
      // Once the browser has begun to save it.
      setTimeout(function () {
        URL.revokeObjectURL(link.href);
      }, 60000);
      return blob.size;
    }
  }

  guestAgent.startFiles = function (root, part, config) {
    const send = part.querySelector('form[data-do="send"]');
    const fetching = part.querySelector('form[data-do="fetch"]');
    if (send) {
      new Sending(root, send, config);
    }
    if (fetching) {
      new Fetching(root, fetching, config);
    }
  };
}());
